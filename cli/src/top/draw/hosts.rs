//! The hosts, a line each, above the list of containers.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Row, Table};

use super::bars::{bar, fit, sparkline};
use super::theme::Theme;
use crate::top::app::App;
use crate::top::container::{Flow, Host};
use crate::top::figures::{bytes, cpus, percent};
use crate::top::rows::Tone;

/// Most lines; of more hosts the last line tells how many.
pub const LINES_MAX: usize = 4;

/// The width of bars, and of the curve beside the CPU's; on a narrow screen bars are short, and
/// there is no curve.
const BAR: u16 = 10;
const BAR_NARROW: u16 = 6;
const CURVE: u16 = 12;

/// How long a glyph of the curve is.
const SPAN_MS: u64 = 5_000;

/// Below this a curve stays flat, in percent.
const PERCENT_LEAST: f64 = 10.0;

/// From these widths on, the curve, disk and the producer's cost have room.
const WIDTH_CURVE: u16 = 100;
const WIDTH_DISK: u16 = 118;
const WIDTH_COST: u16 = 136;

/// How many lines they take.
pub fn lines(app: &App) -> u16 {
    u16::try_from(app.model.hosts.len().min(LINES_MAX)).unwrap_or(0)
}

/// Draws them.
pub fn draw(app: &App, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let hosts = &app.model.hosts;
    let shown = if hosts.len() > LINES_MAX { LINES_MAX - 1 } else { hosts.len() };
    let mut rows: Vec<Row<'_>> = hosts
        .iter()
        .take(shown)
        .map(|(name, host)| row(app, theme, name, host, area.width))
        .collect();
    if shown < hosts.len() {
        let more = format!("… and {} more", hosts.len() - shown);
        rows.push(Row::new([Span::raw(""), Span::styled(more, theme.quiet())]));
    }
    let (bar, curve) = bar_and_curve(area.width);
    let mut widths = vec![Constraint::Length(1), Constraint::Fill(1)];
    widths.extend([3, bar, 11, curve, 3, bar, 11, 18].map(Constraint::Length));
    if area.width >= WIDTH_DISK {
        widths.push(Constraint::Length(26));
    }
    if area.width >= WIDTH_COST {
        widths.push(Constraint::Length(17));
    }
    frame.render_widget(Table::new(rows, widths), area);
}

fn bar_and_curve(width: u16) -> (u16, u16) {
    if width >= WIDTH_CURVE { (BAR, CURVE) } else { (BAR_NARROW, 0) }
}

fn row<'a>(app: &App, theme: Theme, name: &str, host: &Host, width: u16) -> Row<'a> {
    let usage = &host.usage;
    let (bar_width, curve) = bar_and_curve(width);
    let silent = usage.silent_ms(app.now_ms);
    let name = fit(&crate::top::record::unescape(name), 30);
    let quiet = theme.quiet();
    let mark = if silent.is_some() { ("○", Tone::Quiet) } else { ("●", Tone::Good) };
    let mut cells = vec![
        Cell::from(Span::styled(mark.0, theme.tone(mark.1))),
        Cell::from(Span::styled(name, theme.accent())),
    ];
    match usage.cpu.get() {
        Some(cpu) => {
            let curve = usage.cpu_series.peaks(app.now_ms, SPAN_MS, usize::from(curve));
            cells.extend([
                Cell::from(Span::styled("CPU", quiet)),
                Line::from(bar(theme, cpu.share(), bar_width)).into(),
                right(format!("{}% of {}", percent(cpu.percent), cpus(cpu.cpus))),
                sparkline(&curve, PERCENT_LEAST, theme.blocks()).into(),
            ]);
        }
        None => cells.extend([const { "" }; 4].map(Cell::from)),
    }
    match usage.memory.get() {
        Some(memory) => cells.extend([
            Cell::from(Span::styled("MEM", quiet)),
            Line::from(bar(theme, memory.percent / 100.0, bar_width)).into(),
            right(format!("{}/{}", bytes(memory.bytes), bytes(memory.limit_bytes))),
        ]),
        None => cells.extend([const { "" }; 3].map(Cell::from)),
    }
    cells.push(flow(theme, "NET", usage.network.get(), ["↓", "↑"]));
    if width >= WIDTH_DISK {
        let full = host.fs_percent.get().map(|full| format!("DISK {full:.0}%"));
        cells.push(flow(theme, &full.unwrap_or_default(), usage.disk.get(), ["r", "w"]));
    }
    if width >= WIDTH_COST {
        let cost = host.cost.get().map(|(cpu, memory)| {
            Line::from(vec![
                Span::styled("cost ", quiet),
                Span::raw(format!("{}% {}", percent(*cpu), bytes(*memory))),
            ])
        });
        cells.push(cost.unwrap_or_default().right_aligned().into());
    }
    let row = Row::new(cells);
    if silent.is_some() { row.style(quiet) } else { row }
}

fn flow<'a>(theme: Theme, before: &str, flow: Option<&Flow>, signs: [&'static str; 2]) -> Cell<'a> {
    let Some(flow) = flow else { return Cell::from("") };
    Line::from(vec![
        Span::styled(format!("{before} "), theme.quiet()),
        Span::styled(signs[0], theme.curve()),
        Span::raw(format!("{:<6}", bytes(flow.into))),
        Span::styled(signs[1], theme.second()),
        Span::raw(format!("{:<5}", bytes(flow.out))),
    ])
    .right_aligned()
    .into()
}

fn right<'a>(text: String) -> Cell<'a> {
    Line::raw(text).right_aligned().into()
}
