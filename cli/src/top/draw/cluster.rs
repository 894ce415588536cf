//! The cluster: brokers, partitions with their leaders and what comes in, and how far copies are
//! behind, as `aklight cluster status` tells it.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Modifier;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Row, Table};

use super::theme::Theme;
use super::{instead, rule};
use crate::output::printable;
use crate::top::app::App;
use crate::top::ask::Members;
use crate::top::rows::Tone;

/// A heading and rows.
type Texts = (Vec<String>, Vec<Vec<String>>);

/// Draws it.
pub fn draw(app: &App, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let Some((members, before)) = &app.members else {
        return instead(theme, frame, area, &["Asking a broker…".to_owned()]);
    };
    let copies = members.view.as_ref().map(crate::cluster::View::groups_table);
    let sections = [
        ("Brokers", Some(brokers(members))),
        ("Partitions", Some(partitions(members, before.as_deref()))),
        ("Copies", copies),
    ];
    let lines = |texts: &Option<Texts>| {
        let rows = texts.as_ref().map_or(1, |(_, rows)| rows.len() + 1);
        Constraint::Length(u16::try_from(rows + 2).unwrap_or(u16::MAX))
    };
    let heights = sections.each_ref().map(|(_, texts)| lines(texts));
    let areas: [Rect; 3] = Layout::vertical(heights).areas(area);
    for ((title, texts), area) in sections.into_iter().zip(areas) {
        let parts = [Constraint::Length(1), Constraint::Min(0)];
        let [line, below] = Layout::vertical(parts).areas(area);
        let title = vec![Span::styled(title, theme.accent())];
        frame.render_widget(rule(theme, title, area.width), line);
        match texts {
            Some(texts) => frame.render_widget(table(theme, texts), below),
            None => {
                let text =
                    " How far copies are behind is told over HTTP: say where with --http HOST:7070";
                frame.render_widget(Span::styled(text, theme.quiet()), below);
            }
        }
    }
}

fn brokers(members: &Members) -> Texts {
    if let Some(view) = &members.view {
        return view.brokers_table();
    }
    let header = ["BROKER", "ADDRESS", "STATE"].map(str::to_owned).to_vec();
    let row = |broker: &aklight_common::client::BrokerInfo| {
        let text = |text: &str| printable(text.as_bytes());
        vec![broker.id.to_string(), text(&broker.address), text(&broker.state)]
    };
    (header, members.info.brokers.iter().map(row).collect())
}

fn partitions(members: &Members, before: Option<&Members>) -> Texts {
    let header = ["PARTITION", "LEADER", "RECORDS KEPT", "NEXT OFFSET", "RECORDS/S"];
    let rows = members.info.partitions.iter().map(|partition| {
        let known = before.and_then(|before| {
            let seconds = members.at_ms.saturating_sub(before.at_ms) as f64 / 1000.0;
            let known = before.info.partitions.iter().find(|known| known.id == partition.id)?;
            (seconds > 0.0).then(|| {
                let more = partition.end.get().saturating_sub(known.end.get());
                format!("{:.0}", more as f64 / seconds)
            })
        });
        vec![
            partition.id.to_string(),
            partition.leader.map_or_else(|| "none".to_owned(), |id| id.to_string()),
            partition.end.get().saturating_sub(partition.start.get()).to_string(),
            partition.end.to_string(),
            known.unwrap_or_default(),
        ]
    });
    (header.map(str::to_owned).to_vec(), rows.collect())
}

fn table(theme: Theme, (header, rows): Texts) -> Table<'static> {
    let width = |n: usize| {
        let cells = rows.iter().filter_map(|row| row.get(n)).chain([&header[n]]);
        cells.map(|cell| Span::raw(cell.as_str()).width()).max().unwrap_or(0)
    };
    let widths: Vec<Constraint> = (0..header.len())
        .map(|n| Constraint::Length(u16::try_from(width(n)).unwrap_or(u16::MAX)))
        .collect();
    let heading = theme.quiet().add_modifier(Modifier::BOLD);
    let header = header.into_iter().map(|text| Cell::from(Line::styled(text, heading)));
    let lines = rows.into_iter().map(|row| {
        Row::new(row.into_iter().map(|text| {
            let style = match text.as_str() {
                "alive" | "leads" => theme.tone(Tone::Good),
                "dead" | "none" => theme.tone(Tone::Bad),
                _ => ratatui::style::Style::new(),
            };
            Cell::from(Span::styled(text, style))
        }))
    });
    Table::new(lines, widths).header(Row::new(header)).column_spacing(3)
}
