//! The screen: state in, cells out. Pure but for how far tables are scrolled, which is kept.
//!
//! One line on top (pages, how many run, the connection), one at the bottom (keys, what is typed,
//! what was last said), and a page between them, each in a file of its own.

mod alerts;
mod bars;
mod charts;
mod cluster;
mod detail;
mod help;
mod hosts;
mod list;
mod theme;

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::Paragraph;

use super::app::{App, Link, PAGES, Page};
use super::figures;
use super::rows::{self, Tone};

pub use theme::Theme;

/// The smallest screen on which everything has its place.
const COLUMNS_MIN: u16 = 80;
const LINES_MIN: u16 = 24;

/// From this width on, how many run has room.
const WIDTH_RUNNING: u16 = 100;

/// Draws all of it.
pub fn draw(app: &mut App, theme: Theme, frame: &mut Frame<'_>) {
    let area = frame.area();
    if area.width < COLUMNS_MIN || area.height < LINES_MIN {
        return too_small(frame);
    }
    let rows = [Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)];
    let [top, page, bottom] = Layout::vertical(rows).areas(area);
    header(app, theme, frame, top);
    match (app.page, app.detail.is_some()) {
        (Page::Containers, true) => detail::draw(app, theme, frame, page),
        (Page::Containers, false) => list::draw(app, theme, frame, page),
        (Page::Alerts, _) => alerts::draw(app, theme, frame, page),
        (Page::Cluster, _) => cluster::draw(app, theme, frame, page),
    }
    footer(app, theme, frame, bottom);
    if app.help {
        help::draw(theme, frame, page);
    }
}

fn too_small(frame: &mut Frame<'_>) {
    let area = frame.area();
    let text = format!(
        "aklight top needs {COLUMNS_MIN} columns and {LINES_MIN} lines.\nThis terminal has {} and {}.\n\nq ends",
        area.width, area.height
    );
    frame.render_widget(Paragraph::new(text).wrap(ratatui::widgets::Wrap { trim: true }), area);
}

fn header(app: &App, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let firing = app.model.alerts.values().filter(|alert| alert.is_firing()).count();
    let mut left = vec![Span::styled(" aklight ", theme.accent())];
    for (page, name) in PAGES.iter().zip(["1 Containers", "2 Alerts", "3 Cluster"]) {
        let style = if *page == app.page { theme.selected() } else { theme.quiet() };
        left.push(Span::styled(format!(" {name} "), style));
        if *page == Page::Alerts && firing > 0 {
            left.push(Span::styled(format!("▲{firing} "), style.patch(theme.tone(Tone::Bad))));
        }
    }
    left.extend(counts(app, theme, area.width));
    let right = link(app, theme, usize::from(area.width) / 2);
    let right_width = u16::try_from(right.width()).unwrap_or(area.width);
    let halves = [Constraint::Min(1), Constraint::Length(right_width)];
    let [at_left, at_right] = Layout::horizontal(halves).areas(area);
    frame.render_widget(Line::from(left), at_left);
    frame.render_widget(right, at_right);
}

/// How many are not as they should be, and how many run, where there is room for it.
fn counts(app: &App, theme: Theme, width: u16) -> Vec<Span<'static>> {
    let (mut running, mut bad) = (0, 0);
    for (_, container) in app.model.shown(app.now_ms) {
        let silent = container.usage.silent_ms(app.now_ms).is_some();
        running += usize::from(container.is_running() && !silent);
        bad += usize::from(rows::status(container, app.now_ms).1 == Tone::Bad);
    }
    let mut spans = Vec::new();
    if bad > 0 {
        spans.push(Span::styled(format!("  {bad} not well"), theme.tone(Tone::Warn)));
    }
    if running > 0 && width >= WIDTH_RUNNING {
        spans.push(Span::styled(format!("  {running} running"), theme.quiet()));
    }
    spans
}

fn link(app: &App, theme: Theme, width_max: usize) -> Line<'static> {
    let (text, tone) = match &app.link {
        Link::Connecting => ("○ connecting".to_owned(), Tone::Warn),
        Link::Connected(broker) => (format!("● {broker}"), Tone::Good),
        Link::Lost(reason, again_ms) => {
            let seconds = again_ms.saturating_sub(app.now_ms).div_ceil(1000);
            let again = match seconds {
                0 => "trying again".to_owned(),
                seconds => format!("trying again in {seconds}s"),
            };
            (format!("○ lost, {again}: {reason}"), Tone::Bad)
        }
    };
    let text = format!("  {}", bars::fit(&text, width_max));
    Line::from(Span::styled(text, theme.tone(tone))).alignment(Alignment::Right)
}

fn footer(app: &App, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    if app.typing {
        let text = format!(" / {}", app.filter.text());
        let typed = Line::raw(text.clone());
        let cursor = u16::try_from(typed.width()).unwrap_or(area.width).min(area.width - 1);
        let hint = match app.filter.mistake() {
            Some(mistake) => Span::styled(format!("   {mistake}"), theme.tone(Tone::Warn)),
            None => {
                let hint = "   part of a name, image or state; or a pattern: metrics/docker/+/db/#";
                Span::styled(hint, theme.quiet())
            }
        };
        frame.render_widget(Line::from(vec![Span::styled(text, theme.accent()), hint]), area);
        frame.set_cursor_position((area.x + cursor, area.y));
        return;
    }
    if let Some(notice) = &app.notice {
        let tone = if notice.bad { Tone::Bad } else { Tone::Good };
        let text = bars::fit(&format!(" {}", notice.text), usize::from(area.width));
        frame.render_widget(Span::styled(text, theme.tone(tone)), area);
        return;
    }
    let keys: &[(&str, &str)] = match (app.page, app.detail.is_some()) {
        (Page::Containers, false) => {
            &[("↑↓", "select"), ("⏎", "open"), ("/", "filter"), ("s", "sort"), ("r", "reverse")]
        }
        (Page::Containers, true) => &[("t", "longer"), ("↑↓", "event"), ("esc", "back")],
        (Page::Alerts, _) => {
            &[("↑↓", "select"), ("a", "acknowledge"), ("m", "mute 1h"), ("u", "unmute")]
        }
        (Page::Cluster, _) => &[],
    };
    let always = [("tab", "next page"), ("?", "help"), ("q", "quit")];
    let mut spans = Vec::new();
    for (key, word) in keys.iter().chain(&always) {
        spans.push(Span::styled(format!(" {key}"), theme.accent()));
        spans.push(Span::styled(format!(" {word} "), theme.quiet()));
    }
    frame.render_widget(Line::from(spans), area);
}

/// A line across, with what comes below it.
fn rule(theme: Theme, title: Vec<Span<'static>>, width: u16) -> Line<'static> {
    let mut spans = vec![Span::styled("─ ", theme.track())];
    spans.extend(title);
    spans.push(Span::raw(" "));
    let taken: usize = spans.iter().map(Span::width).sum();
    spans.push(Span::styled("─".repeat(usize::from(width).saturating_sub(taken)), theme.track()));
    Line::from(spans)
}

/// A text in the middle of where a table would be.
fn instead(theme: Theme, frame: &mut Frame<'_>, area: Rect, lines: &[String]) {
    let lines: Vec<Line<'_>> =
        lines.iter().map(|line| Line::styled(line.clone(), theme.quiet())).collect();
    let height = u16::try_from(lines.len()).unwrap_or(area.height).min(area.height);
    let top = area.y + (area.height - height) / 3;
    let area = Rect { y: top, height, ..area };
    let text = Text::from(lines);
    let width = u16::try_from(text.width()).unwrap_or(area.width).min(area.width);
    let area = Rect { x: area.x + (area.width - width) / 2, width, ..area };
    frame.render_widget(text, area);
}

/// How long ago something was.
fn ago(now_ms: u64, then_ms: u64) -> String {
    format!("{} ago", figures::duration(now_ms.saturating_sub(then_ms)))
}
