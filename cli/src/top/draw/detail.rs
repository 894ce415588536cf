//! A container: what it is, four charts, and what happened to it with its last minute.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Row, Table, TableState};

use super::bars::{bar, fit, sparkline};
use super::charts::{self, Picture, Scale};
use super::theme::Theme;
use super::{ago, instead, rule};
use crate::top::app::App;
use crate::top::container::{Container, Event, Info};
use crate::top::detail::{Detail, SPANS, Span as Reach, TwoWays};
use crate::top::figures::{bytes, cpus, duration, percent};
use crate::top::rows::{self, Tone};
use crate::top::series::Series;

/// How many lines what is told of it takes, and what happened to it.
const FACT_LINES: u16 = 3;
const EVENT_LINES: u16 = 6;

/// The last minute has a glyph for each second, or for every two where there is less room.
const GLYPHS: [usize; 2] = [60, 30];

/// From this width on there is room for the longer one.
const WIDTH_LONG: u16 = 130;

/// What stands beside the glyphs: a name and the peak.
const BESIDE_GLYPHS: usize = 11;

/// So far apart two samples, and two rollups, are still of one curve.
const SAMPLE_GAP_MS: u64 = 15_000;
const ROLLUP_GAP_MS: u64 = 180_000;

/// Draws it.
pub fn draw(app: &App, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let Some(detail) = &app.detail else { return };
    let Some(container) = app.model.containers.get(&detail.key) else {
        let lines =
            ["It is not there any more.".to_owned(), String::new(), "esc goes back".to_owned()];
        return instead(theme, frame, area, &lines);
    };
    let parts = [
        Constraint::Length(FACT_LINES),
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Length(EVENT_LINES),
    ];
    let [top, upper, lower, bottom] = Layout::vertical(parts).areas(area);
    frame.render_widget(facts(app, theme, detail, container, top.width), top);
    let halves = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(2);
    let [cpu, memory] = halves.areas(upper);
    let [network, disk] = halves.areas(lower);
    for (picture, area) in
        pictures(theme, detail, container).into_iter().zip([cpu, memory, network, disk])
    {
        charts::draw(theme, picture, app.now_ms, frame, area);
    }
    events(app, theme, detail, container, frame, bottom);
}

fn facts(
    app: &App,
    theme: Theme,
    detail: &Detail,
    container: &Container,
    width: u16,
) -> Text<'static> {
    let alerts = app.model.firing().get(&detail.key).copied().unwrap_or_default();
    let row = rows::Row::of(&detail.key, container, alerts, app.now_ms);
    let none = Info::default();
    let info = container.info().unwrap_or(&none);
    let quiet = theme.quiet();
    let mut first = vec![
        Span::styled(format!(" {}/", detail.key.producer), quiet),
        Span::styled(fit(&row.name, usize::from(width) / 3), theme.accent()),
        Span::raw("  "),
        Span::styled(format!("{}{}", row.glyph(), row.status), theme.tone(row.tone)),
    ];
    let mut fact = |name: &str, value: String| {
        first.push(Span::styled(format!("   {name} "), quiet));
        first.push(Span::raw(value));
    };
    if let Some(ms) = row.uptime_ms {
        fact("up", duration(ms));
    }
    if let Some(restarts) = container.restarts.get() {
        fact("restarts", restarts.to_string());
    }
    if row.alerts > 0 {
        first.push(Span::styled(format!("   ▲ {} firing", row.alerts), theme.tone(Tone::Bad)));
    }
    if container.is_removed() {
        first.push(Span::styled("   removed", theme.tone(Tone::Warn)));
    }
    let mut second = vec![Span::raw(" ")];
    let mut fact = |name: &str, value: String| {
        if !value.is_empty() {
            second.push(Span::styled(format!("{name} "), quiet));
            second.push(Span::raw(value + "   "));
        }
    };
    fact("image", fit(&info.image, usize::from(width) / 3));
    fact("id", info.id.clone());
    fact("service", info.service.clone());
    if let Some((pids, limit)) = container.pids.get().filter(|_| row.is_running()) {
        let of = if *limit > 0 { format!(" of {limit}") } else { String::new() };
        fact("pids", format!("{pids}{of}"));
    }
    for (name, value) in [("throttled", &container.throttling), ("pressure", &container.pressure)] {
        if let Some(value) = value.get().filter(|_| row.is_running()) {
            fact(name, format!("{}%", percent(*value)));
        }
    }
    fact("read from", info.source.clone());
    let mut spans = vec![Span::styled("Charts ", theme.accent())];
    for span in SPANS {
        let style = if span == detail.span { theme.selected() } else { quiet };
        spans.push(Span::styled(format!(" {} ", span.name()), style));
    }
    if !detail.loaded {
        spans.push(Span::styled(" reading what is stored…", quiet));
    }
    Text::from(vec![Line::from(first), Line::from(second), rule(theme, spans, width)])
}

fn pictures<'a>(theme: Theme, detail: &'a Detail, container: &'a Container) -> [Picture<'a>; 4] {
    let usage = &container.usage;
    let (curve, second, quiet) = (theme.curve(), theme.second(), theme.quiet());
    let live = detail.span == Reach::Minutes5;
    let picture = |title, curves, scale, most| Picture {
        title,
        curves,
        scale,
        most,
        span_ms: detail.span.ms(),
        gap_ms: if live { SAMPLE_GAP_MS } else { ROLLUP_GAP_MS },
        from: format!("-{}", detail.span.name()),
    };
    let named = |name: &'static str| Span::styled(format!("─ {name} "), theme.accent());
    let info = container.info();

    let mut cpu = vec![named("CPU")];
    if let Some(now) = usage.cpu.get().filter(|_| container.is_running()) {
        cpu.push(Span::styled(format!("{}% ", percent(now.percent)), theme.share(now.share())));
        cpu.extend(bar(theme, now.share(), 8));
        let of = match info.map_or(now.limit_cpus, |info| info.limit_cpus) {
            limit if limit > 0.0 => format!(" limit {} CPUs ", cpus(limit)),
            _ => format!(" of {} CPUs ", cpus(now.cpus)),
        };
        cpu.push(Span::styled(of, quiet));
    }
    let mut memory = vec![named("Memory")];
    if let Some(now) = usage.memory.get().filter(|_| container.is_running()) {
        let share = now.percent / 100.0;
        memory.push(Span::styled(format!("{}% ", percent(now.percent)), theme.share(share)));
        memory.extend(bar(theme, share, 8));
        let limited = info.is_some_and(|info| info.limit_bytes > 0.0);
        let of = if limited { "limit" } else { "of" };
        let of = format!(" {} {of} {} ", bytes(now.bytes), bytes(now.limit_bytes));
        memory.push(Span::styled(of, quiet));
    }
    let both = |name, flow: Option<&crate::top::container::Flow>, signs: [&'static str; 2]| {
        let mut title = vec![named(name)];
        if let Some(flow) = flow.filter(|_| container.is_running()) {
            title.push(Span::styled(format!("{} {}/s ", signs[0], bytes(flow.into)), curve));
            title.push(Span::styled(format!("{} {}/s ", signs[1], bytes(flow.out)), second));
        }
        title
    };
    let network = both("Network", usage.network.get(), ["received", "sent"]);
    let disk = both("Disk", usage.disk.get(), ["read", "written"]);
    if live {
        let pair = |(into, out): &'a (Series, Series)| vec![(into, curve), (out, second)];
        [
            picture(cpu, vec![(&usage.cpu_series, curve)], Scale::Percent, None),
            picture(memory, vec![(&usage.memory_series, curve)], Scale::Percent, Some(100.0)),
            picture(network, pair(&usage.network_series), Scale::Bytes, None),
            picture(disk, pair(&usage.disk_series), Scale::Bytes, None),
        ]
    } else {
        let ways = |ways: &'a TwoWays| {
            let TwoWays { into, out, together } = ways;
            vec![(&together.series, quiet), (&into.series, curve), (&out.series, second)]
        };
        [
            picture(cpu, vec![(&detail.cpu.series, curve)], Scale::Percent, None),
            picture(memory, vec![(&detail.memory.series, curve)], Scale::Percent, Some(100.0)),
            picture(network, ways(&detail.network), Scale::Bytes, None),
            picture(disk, ways(&detail.disk), Scale::Bytes, None),
        ]
    }
}

fn events(
    app: &App,
    theme: Theme,
    detail: &Detail,
    container: &Container,
    frame: &mut Frame<'_>,
    area: Rect,
) {
    let [line, below] = Layout::vertical([Constraint::Length(1), Constraint::Min(1)]).areas(area);
    let title = vec![
        Span::styled("Events ", theme.accent()),
        Span::styled(container.events.len().to_string(), theme.quiet()),
    ];
    frame.render_widget(rule(theme, title, area.width), line);
    if container.events.is_empty() {
        let text = if detail.loaded { " Nothing happened to it in the last day." } else { "" };
        return frame.render_widget(Span::styled(text, theme.quiet()), below);
    }
    let glyphs = GLYPHS[usize::from(area.width < WIDTH_LONG)];
    let width = u16::try_from(glyphs + BESIDE_GLYPHS).unwrap_or(u16::MAX);
    let halves = [Constraint::Fill(1), Constraint::Length(width)];
    let [list, last] = Layout::horizontal(halves).spacing(1).areas(below);
    let newest_first: Vec<&Event> = container.events.iter().rev().collect();
    let chosen = detail.chosen_event(&container.events);
    let rows = newest_first.iter().enumerate().map(|(at, event)| {
        let tone = if event.bad { Tone::Bad } else { Tone::Quiet };
        let row = Row::new([
            Line::styled(ago(app.now_ms, event.ts_ms), theme.quiet()).right_aligned(),
            Line::styled(event.what.clone(), theme.tone(tone)),
            Line::raw(event.details.clone()),
        ]);
        if at == chosen { row.style(theme.selected()) } else { row }
    });
    let widths = [Constraint::Length(10), Constraint::Length(8), Constraint::Fill(1)];
    let table = Table::new(rows, widths).row_highlight_style(theme.under_selected());
    let mut scroll = TableState::new().with_selected(chosen);
    frame.render_stateful_widget(table, list, &mut scroll);
    frame.render_widget(last_minute(theme, newest_first[chosen], glyphs), last);
}

/// The last minute before an event.
fn last_minute(theme: Theme, event: &Event, glyphs: usize) -> Text<'static> {
    if event.last_cpu.is_empty() && event.last_memory.is_empty() {
        return Text::default();
    }
    let quiet = theme.quiet();
    let line = |name: &str, samples: &[f64], least: f64| {
        let together = samples.len().div_ceil(glyphs).max(1);
        let peak = |samples: &[f64]| samples.iter().copied().reduce(f64::max);
        let peaks: Vec<Option<f64>> = samples.chunks(together).map(peak).collect();
        let highest = samples.iter().copied().fold(0.0, f64::max);
        Line::from(vec![
            Span::styled(format!("{name} "), quiet),
            sparkline(&peaks, least, theme.blocks()),
            Span::styled(format!(" {}%", percent(highest)), quiet),
        ])
    };
    Text::from(vec![
        Line::styled(format!("the last minute before {}", event.what), quiet),
        line("CPU", &event.last_cpu, 5.0),
        line("MEM", &event.last_memory, 100.0),
    ])
}
