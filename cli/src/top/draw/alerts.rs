//! Alerts: what fires, what may soon, and what is over since a day; one of them in full.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
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
    let header = ["STATE", "SEVERITY", "RULE", "ABOUT", "VALUE / LIMIT", "SINCE", ""];
    let heading = Row::new(header.map(|name| Span::styled(name, theme.quiet())));
    let widths = [9, 9, 18, 0, 15, 7, 22].map(|width| match width {
        0 => Constraint::Fill(1),
        width => Constraint::Length(width),
    });
    let rows: Vec<Row<'_>> = alerts.iter().map(|(_, alert)| row(app, theme, alert)).collect();
    let table =
        Table::new(rows, widths).header(heading).row_highlight_style(theme.selected());
    frame.render_stateful_widget(table, list, &mut scroll);
    let [line, below] = Layout::vertical([Constraint::Length(1), Constraint::Min(1)]).areas(text);
    let (_, alert) = alerts[chosen];
    let title = vec![Span::styled(fit(&alert.about(), usize::from(area.width) - 8), theme.accent())];
    frame.render_widget(rule(theme, title, area.width), line);
    frame.render_widget(Paragraph::new(alert.text.clone()).wrap(Wrap { trim: true }), below);
    app.scroll = scroll;
}

fn row(app: &App, theme: Theme, alert: &Alert) -> Row<'static> {
    let (glyph, tone) = match (alert.state.as_str(), alert.severity.as_str()) {
        ("firing", "info") => ("●", Tone::Warn),
        ("firing", _) => ("●", Tone::Bad),
        ("pending", _) => ("◐", Tone::Warn),
        _ => ("○", Tone::Quiet),
    };
    let over = alert.is_over();
    let quiet = theme.quiet();
    let note = if alert.muted_until_ms > app.now_ms {
        format!("muted for {}", duration(alert.muted_until_ms - app.now_ms))
    } else if alert.acknowledged_by.is_empty() {
        String::new()
    } else {
        format!("seen by {}", alert.acknowledged_by)
    };
    let since = if over { alert.ts_ms } else { alert.since_ms };
    let line = Row::new([
        Line::styled(format!("{glyph} {}", alert.state), theme.tone(tone)),
        Line::styled(alert.severity.clone(), if over { quiet } else { theme.tone(tone) }),
        Line::raw(fit(&alert.rule, 18)),
        Line::raw(alert.about()),
        Line::raw(alert.value.clone()),
        Line::styled(duration(app.now_ms.saturating_sub(since)), quiet).right_aligned(),
        Line::styled(note, quiet),
    ]);
    if over { line.style(quiet) } else { line }
}
