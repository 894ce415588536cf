//! Alerts: what fires, what may soon, and what is over since a day; one of them in full.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Modifier;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Row, Table, Wrap};

use super::bars::fit;
use super::theme::Theme;
use super::{instead, rule};
use crate::top::alert::Alert;
use crate::top::app::App;
use crate::top::figures::duration;
use crate::top::rows::Tone;

/// How many lines the selected alert has, with the line above it.
const TEXT_LINES: u16 = 4;

/// The longest name of a rule that has room.
const RULE_WIDTH_MAX: usize = 24;

/// Draws them.
pub fn draw(app: &mut App, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let parts = [Constraint::Length(1), Constraint::Min(1), Constraint::Length(TEXT_LINES)];
    let [line, list, text] = Layout::vertical(parts).areas(area);
    let mut scroll = app.scroll;
    let alerts = app.alerts();
    let count = |state: &str| alerts.iter().filter(|(_, alert)| alert.state == state).count();
    let title = vec![
        Span::styled("Alerts ", theme.accent()),
        Span::styled(
            format!("{} firing · {} pending", count("firing"), count("pending")),
            theme.quiet(),
        ),
    ];
    frame.render_widget(rule(theme, title, area.width), line);
    if alerts.is_empty() {
        let lines = if app.loaded {
            ["No alert in the last day.", "", "aklight consumer   judges what is measured by rules"]
        } else {
            ["Reading what is stored…", "", ""]
        };
        return instead(theme, frame, list, &lines.map(str::to_owned));
    }
    let chosen = app.selected_alert.as_ref();
    let chosen = alerts.iter().position(|(topic, _)| Some(*topic) == chosen).unwrap_or(0);
    scroll.select(Some(chosen));
    let longest = |text: &dyn Fn(&Alert) -> String, least: usize, most: usize| {
        let widths = alerts.iter().map(|(_, alert)| Span::raw(text(alert)).width());
        let width = widths.max().unwrap_or(0).clamp(least, most);
        Constraint::Length(u16::try_from(width).unwrap_or(u16::MAX))
    };
    let widths = [
        Constraint::Length(9),
        Constraint::Length(8),
        longest(&|alert| alert.rule.clone(), 12, RULE_WIDTH_MAX),
        longest(&Alert::about, 20, 40),
        longest(&|alert| alert.value.clone(), 10, 24),
        Constraint::Length(6),
        Constraint::Fill(1),
    ];
    let header = ["STATE", "SEVERITY", "RULE", "ABOUT", "VALUE", " SINCE", "TEXT"];
    let heading = theme.quiet().add_modifier(Modifier::BOLD);
    let heading = Row::new(header.map(|name| Span::styled(name, heading)));
    let rows = alerts.iter().enumerate().map(|(at, (_, alert))| {
        let row = row(app, theme, alert);
        if at == chosen { row.style(theme.selected()) } else { row }
    });
    let rows: Vec<Row<'_>> = rows.collect();
    let table =
        Table::new(rows, widths).header(heading).row_highlight_style(theme.under_selected());
    frame.render_stateful_widget(table, list, &mut scroll);
    let [line, below] = Layout::vertical([Constraint::Length(1), Constraint::Min(1)]).areas(text);
    let (_, alert) = alerts[chosen];
    let mut title =
        vec![Span::styled(fit(&alert.about(), usize::from(area.width) / 2), theme.accent())];
    if !alert.acknowledged_by.is_empty() {
        let text = format!(" · acknowledged by {}", alert.acknowledged_by);
        title.push(Span::styled(text, theme.quiet()));
    }
    if let Some(ms) = alert.muted_ms(app.now_ms) {
        let text = format!(" · muted for {}", duration(ms));
        title.push(Span::styled(text, theme.tone(Tone::Warn)));
    }
    frame.render_widget(rule(theme, title, area.width), line);
    frame.render_widget(
        Paragraph::new(alert.happened().to_owned()).wrap(Wrap { trim: true }),
        below,
    );
    app.scroll = scroll;
}

fn row(app: &App, theme: Theme, alert: &Alert) -> Row<'static> {
    let muted = alert.muted_ms(app.now_ms).is_some();
    let seen = !alert.acknowledged_by.is_empty();
    let (glyph, word, tone) = match (alert.state.as_str(), alert.severity.as_str()) {
        ("firing" | "pending", _) if muted => ("●", "muted", Tone::Quiet),
        ("firing", _) if seen => ("●", "seen", Tone::Warn),
        ("firing", "info") => ("●", "firing", Tone::Warn),
        ("firing", _) => ("●", "firing", Tone::Bad),
        ("pending", _) => ("◐", "pending", Tone::Warn),
        _ => ("○", alert.state.as_str(), Tone::Quiet),
    };
    let over = alert.is_over();
    let quiet = theme.quiet();
    let since = if over { alert.ts_ms } else { alert.since_ms };
    let row = Row::new([
        Line::styled(format!("{glyph} {word}"), theme.tone(tone)),
        Line::styled(alert.severity.clone(), theme.tone(tone)),
        Line::raw(fit(&alert.rule, RULE_WIDTH_MAX)),
        Line::raw(alert.about()),
        Line::raw(alert.value.clone()),
        Line::styled(duration(app.now_ms.saturating_sub(since)), quiet).right_aligned(),
        Line::styled(alert.happened().to_owned(), quiet),
    ]);
    if over { row.style(quiet) } else { row }
}
