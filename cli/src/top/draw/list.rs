//! The list of containers, under the hosts: as many columns as have room, the most telling first.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Row, Table};

use super::bars::{bar, fit, sparkline};
use super::theme::Theme;
use super::{hosts, instead, rule};
use crate::top::app::App;
use crate::top::container::Flow;
use crate::top::figures::{bytes, duration, percent};
use crate::top::rows::{self, Column, Tone};

/// How far the curve goes back, whatever its width.
const CURVE_MS: u64 = 60_000;

/// Below this a curve stays flat, in percent.
const PERCENT_LEAST: f64 = 5.0;

/// The longest name that the column of names grows for.
const NAME_WIDTH_MAX: usize = 40;

/// The widest curve: a glyph for two seconds of the minute.
const CURVE_WIDTH_MAX: u16 = 30;

/// What a column shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Show {
    Mark,
    Name,
    Host,
    State,
    Cpu,
    CpuBar,
    Curve,
    Memory,
    MemoryBar,
    Limit,
    Received,
    Sent,
    Read,
    Written,
    Pids,
    Restarts,
    Uptime,
    Image,
}

/// A column: what it shows, its heading, its least width, and by what a click of `s` sorts it.
struct Shape(Show, &'static str, u16, Option<Column>);

/// From left to right.
static SHAPES: [Shape; 18] = [
    Shape(Show::Mark, "", 1, None),
    Shape(Show::Name, "NAME", 14, Some(Column::Name)),
    Shape(Show::Host, "HOST", 10, None),
    Shape(Show::State, "STATE", 12, Some(Column::State)),
    Shape(Show::Cpu, "CPU%", 5, Some(Column::Cpu)),
    Shape(Show::CpuBar, "", 8, None),
    Shape(Show::Curve, "MINUTE", 10, None),
    Shape(Show::Memory, "MEM", 5, Some(Column::Memory)),
    Shape(Show::MemoryBar, "", 8, None),
    Shape(Show::Limit, "LIMIT", 5, None),
    Shape(Show::Received, "NET↓", 5, Some(Column::Network)),
    Shape(Show::Sent, "NET↑", 5, None),
    Shape(Show::Read, "READ", 5, Some(Column::Disk)),
    Shape(Show::Written, "WRITE", 5, None),
    Shape(Show::Pids, "PIDS", 5, Some(Column::Pids)),
    Shape(Show::Restarts, "RST", 4, Some(Column::Restarts)),
    Shape(Show::Uptime, "UP", 6, Some(Column::Uptime)),
    Shape(Show::Image, "IMAGE", 14, None),
];

/// Those that may be missing, the most telling first.
const OPTIONAL: [Show; 11] = [
    Show::Host,
    Show::Received,
    Show::Sent,
    Show::Pids,
    Show::Limit,
    Show::Uptime,
    Show::Restarts,
    Show::Read,
    Show::Written,
    Show::CpuBar,
    Show::Image,
];

/// Draws it.
pub fn draw(app: &mut App, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let host_lines = hosts::lines(app);
    let parts = [Constraint::Length(host_lines), Constraint::Length(1), Constraint::Min(1)];
    let [top, line, below] = Layout::vertical(parts).areas(area);
    hosts::draw(app, theme, frame, top);
    let mut scroll = app.scroll;
    let rows = app.rows();
    frame.render_widget(rule(theme, title(app, theme, rows.len()), area.width), line);
    if rows.is_empty() {
        return instead(theme, frame, below, &nothing(app));
    }
    let selected = app.selected.as_ref();
    let selected = rows.iter().position(|row| Some(row.key) == selected).unwrap_or(0);
    let selected_key = rows.get(selected).map(|row| row.key);
    scroll.select(Some(selected));
    let shapes = shapes(app, &rows, below.width);
    let header = shapes.iter().map(|(shape, width)| heading(app, theme, shape, *width));
    let widths: Vec<_> = shapes.iter().map(|(_, width)| Constraint::Length(*width)).collect();
    let lines: Vec<Row<'_>> = rows
        .iter()
        .map(|row| {
            let cells = shapes.iter().map(|(shape, width)| cell(app, theme, row, shape.0, *width));
            let line = Row::new(cells.collect::<Vec<_>>());
            match (row.stale, Some(row.key) == selected_key) {
                (true, _) => line.style(theme.quiet()),
                (_, true) => line.style(theme.selected()),
                _ => line,
            }
        })
        .collect();
    let table = Table::new(lines, widths)
        .header(Row::new(header.collect::<Vec<_>>()))
        .row_highlight_style(theme.under_selected());
    frame.render_stateful_widget(table, below, &mut scroll);
    app.scroll = scroll;
}

fn title(app: &App, theme: Theme, listed: usize) -> Vec<Span<'static>> {
    let all = app.model.shown(app.now_ms).count();
    let count = if listed == all { all.to_string() } else { format!("{listed} of {all}") };
    let mut title =
        vec![Span::styled("Containers ", theme.accent()), Span::styled(count, theme.quiet())];
    if !app.filter.text().is_empty() {
        title.push(Span::styled(" · only ", theme.quiet()));
        title.push(Span::styled(fit(app.filter.text(), 40), theme.tone(Tone::Warn)));
    }
    if app.model.left_out > 0 {
        let text = " · more than there is room for: some are left out";
        title.push(Span::styled(text, theme.tone(Tone::Warn)));
    }
    title
}

/// What stands where nothing is listed.
fn nothing(app: &App) -> Vec<String> {
    let any = app.model.shown(app.now_ms).next().is_some();
    let lines: &[&str] = match (app.loaded, any) {
        (false, _) => &["Reading what is stored…"],
        (true, true) => &["No container matches that filter.", "", "esc shows all of them"],
        (true, false) => &[
            "No container is measured yet.",
            "",
            "aklight producer   measures a machine with its containers, where the engine is",
            "aklight up         runs a broker, producers and a consumer on this machine",
            "",
            "They show here as soon as their first samples are stored.",
        ],
    };
    lines.iter().map(|line| (*line).to_owned()).collect()
}

/// The columns that have room, with their widths.
fn shapes(app: &App, rows: &[rows::Row<'_>], width: u16) -> Vec<(&'static Shape, u16)> {
    let one_host = app.model.hosts.len() < 2
        && rows.windows(2).all(|pair| pair[0].key.producer == pair[1].key.producer);
    let mut shown: Vec<&Shape> = SHAPES.iter().collect();
    if one_host {
        shown.retain(|shape| shape.0 != Show::Host);
    }
    let taken = |shown: &[&Shape]| shown.iter().map(|shape| shape.2 + 1).sum::<u16>() - 1;
    for optional in OPTIONAL.iter().rev() {
        if taken(&shown) <= width {
            break;
        }
        shown.retain(|shape| shape.0 != *optional);
    }
    let mut left = width.saturating_sub(taken(&shown));
    let longest = |text: &dyn Fn(&rows::Row<'_>) -> usize, most: usize| {
        u16::try_from(rows.iter().map(text).max().unwrap_or(0).min(most)).unwrap_or(0)
    };
    let wanted = [
        (Show::Name, longest(&|row| Span::raw(row.name.as_str()).width(), NAME_WIDTH_MAX)),
        (Show::Curve, 15),
        (Show::Image, longest(&|row| Span::raw(row.image()).width(), NAME_WIDTH_MAX)),
        (Show::Host, longest(&|row| row.key.producer.len(), 20)),
        (Show::Curve, CURVE_WIDTH_MAX),
        (Show::MemoryBar, 12),
        (Show::CpuBar, 12),
    ];
    let mut shapes: Vec<(&Shape, u16)> = shown.into_iter().map(|shape| (shape, shape.2)).collect();
    for (show, wish) in wanted {
        if let Some((_, width)) = shapes.iter_mut().find(|(shape, _)| shape.0 == show) {
            let more = wish.saturating_sub(*width).min(left);
            *width += more;
            left -= more;
        }
    }
    shapes
}

fn heading<'a>(app: &App, theme: Theme, shape: &Shape, width: u16) -> Cell<'a> {
    let sorted = shape.3 == Some(app.sort.column);
    let text = match (sorted, app.sort.is_ascending()) {
        (false, _) => shape.1.to_owned(),
        (true, true) => format!("{}▲", shape.1),
        (true, false) => format!("{}▼", shape.1),
    };
    let style = if sorted { theme.accent() } else { theme.quiet().add_modifier(Modifier::BOLD) };
    let line = Line::styled(fit(&text, usize::from(width)), style);
    if is_number(shape.0) { line.right_aligned().into() } else { line.into() }
}

fn is_number(show: Show) -> bool {
    use Show::{Cpu, Limit, Memory, Pids, Read, Received, Restarts, Sent, Uptime, Written};
    matches!(
        show,
        Cpu | Limit | Memory | Pids | Read | Received | Restarts | Sent | Uptime | Written
    )
}

fn cell<'a>(app: &App, theme: Theme, row: &rows::Row<'_>, show: Show, width: u16) -> Cell<'a> {
    let room = usize::from(width);
    let quiet = theme.quiet();
    let usage = &row.container.usage;
    let live = row.is_running() && !row.stale;
    match show {
        Show::Mark if row.alerts > 0 => Span::styled("▲", theme.tone(Tone::Bad)).into(),
        Show::Mark => blank(),
        Show::Name => Span::raw(fit(&row.name, room)).into(),
        Show::Host => Span::styled(fit(&row.key.producer, room), quiet).into(),
        Show::Image => Span::styled(fit(row.image(), room), quiet).into(),
        Show::State => {
            let text = fit(&format!("{}{}", row.glyph(), row.status), room);
            Span::styled(text, theme.tone(row.tone)).into()
        }
        Show::Restarts => match row.container.restarts.get() {
            Some(0) | None => number("0".to_owned(), quiet),
            Some(count) => number(count.to_string(), theme.tone(Tone::Warn)),
        },
        // What ended has left its last numbers behind: they are nobody's present.
        _ if !row.is_running() => blank(),
        Show::Uptime => number(row.uptime_ms.map(duration).unwrap_or_default(), quiet),
        Show::Curve => {
            let span_ms = (CURVE_MS / u64::from(width)).max(1_000);
            let peaks = usage.cpu_series.peaks(app.now_ms, span_ms, room);
            let style = if row.stale { theme.track() } else { theme.blocks() };
            sparkline(&peaks, PERCENT_LEAST, style).into()
        }
        Show::Cpu => usage.cpu.get().map_or_else(blank, |cpu| {
            let idle = row.stale || cpu.percent < 0.05;
            number(percent(cpu.percent), if idle { quiet } else { theme.share(cpu.share()) })
        }),
        Show::CpuBar => usage
            .cpu
            .get()
            .filter(|_| live)
            .map_or_else(blank, |cpu| Line::from(bar(theme, cpu.share(), width)).into()),
        Show::Memory => usage.memory.get().map_or_else(blank, |memory| {
            let style = if row.stale { quiet } else { Style::new() };
            number(bytes(memory.bytes), style)
        }),
        Show::MemoryBar => usage.memory.get().filter(|_| live).map_or_else(blank, |memory| {
            Line::from(bar(theme, memory.percent / 100.0, width)).into()
        }),
        Show::Limit => {
            let limit = row.container.info().map_or(0.0, |info| info.limit_bytes);
            let text = if limit > 0.0 { bytes(limit) } else { "–".to_owned() };
            number(text, quiet)
        }
        Show::Received => rate(theme, row, usage.network.get(), |flow| flow.into),
        Show::Sent => rate(theme, row, usage.network.get(), |flow| flow.out),
        Show::Read => rate(theme, row, usage.disk.get(), |flow| flow.into),
        Show::Written => rate(theme, row, usage.disk.get(), |flow| flow.out),
        Show::Pids => row.container.pids.get().map_or_else(blank, |(count, _)| {
            number(count.to_string(), if row.stale { quiet } else { Style::new() })
        }),
    }
}

fn rate<'a>(
    theme: Theme,
    row: &rows::Row<'_>,
    flow: Option<&Flow>,
    side: fn(&Flow) -> f64,
) -> Cell<'a> {
    let Some(rate) = flow.map(side) else { return blank() };
    let style = if row.stale || rate < 1.0 { theme.quiet() } else { Style::new() };
    number(bytes(rate), style)
}

/// A cell with nothing in it. ratatui's default one is not even a cell: it spans no column.
fn blank<'a>() -> Cell<'a> {
    Cell::from("")
}

fn number<'a>(text: String, style: Style) -> Cell<'a> {
    Line::styled(text, style).right_aligned().into()
}
