//! The keys, over whatever is shown.

use ratatui::Frame;
use ratatui::layout::{Constraint, Flex, Layout, Rect};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Clear, Padding};

use super::theme::Theme;

/// Every key with what it does; a line without a key is a heading.
const KEYS: [(&str, &str); 19] = [
    ("", "Everywhere"),
    ("1 2 3  tab", "containers, alerts, cluster; the next of them"),
    ("↑ ↓  j k", "select; PgUp PgDn Home End (g G) go further"),
    ("esc  ←", "back: from a container, a filter, another page"),
    ("ctrl-z", "make place for the shell; fg goes on"),
    ("q  ctrl-c", "quit"),
    ("", "Containers"),
    ("⏎  →", "open: charts, limits, events"),
    ("/", "filter: part of a name, or a pattern with + and #"),
    ("s  S", "sort by the next column, the one before"),
    ("r", "the other way round"),
    ("n c m u", "sort by name, CPU, memory, uptime"),
    ("t  T", "in a container: charts of 5m, 1h, 6h, 24h"),
    ("", "Alerts"),
    ("a", "acknowledge: it is seen to"),
    ("m  u", "mute for an hour, unmute"),
    ("", "Signs"),
    ("▲", "an alert fires over this container"),
    ("grey", "nothing came for 10 s; after an hour it is gone"),
];

const WIDTH: u16 = 72;

/// Draws them.
pub fn draw(theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let lines: Vec<Line<'_>> = KEYS
        .iter()
        .map(|(key, text)| match *key {
            "" => Line::styled(*text, theme.accent()),
            key => Line::from(vec![
                Span::raw(format!("  {key:<12}")),
                Span::styled(*text, theme.quiet()),
            ]),
        })
        .collect();
    let height = u16::try_from(lines.len() + 2).unwrap_or(area.height);
    let [area] = Layout::horizontal([Constraint::Length(WIDTH)]).flex(Flex::Center).areas(area);
    let [area] = Layout::vertical([Constraint::Length(height)]).flex(Flex::Center).areas(area);
    let block = Block::bordered()
        .border_style(theme.track())
        .title(Span::styled(" Keys ", theme.accent()))
        .padding(Padding::horizontal(2));
    frame.render_widget(Clear, area);
    let inside = block.inner(area);
    frame.render_widget(block, area);
    frame.render_widget(Text::from(lines), inside);
}
