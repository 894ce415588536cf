//! A chart over time: one or two curves, axes with round numbers, gaps where nothing was measured.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Borders, Chart, Dataset, GraphType};

use super::theme::Theme;
use crate::top::figures;
use crate::top::series::Series;

/// What is less than that stays low, so that idling does not look like work.
const PERCENT_LEAST: f64 = 5.0;
const BYTES_LEAST: f64 = 1024.0;

/// What the numbers of a chart are.
#[derive(Debug, Clone, Copy)]
pub enum Scale {
    /// Of one CPU, or of all memory.
    Percent,
    /// A second.
    Bytes,
}

impl Scale {
    /// As it stands beside the axis.
    fn figure(self, value: f64) -> String {
        match self {
            Self::Percent => format!("{:>5}", format!("{}%", figures::whole(value))),
            Self::Bytes => format!("{:>5}", figures::bytes(value)),
        }
    }

    /// The top of the axis: what is there has room below it, and it reads well.
    fn top(self, highest: f64) -> f64 {
        match self {
            Self::Percent => round_up(highest.max(PERCENT_LEAST)),
            Self::Bytes => {
                let highest = highest.max(BYTES_LEAST);
                let unit = 1024_f64.powf(highest.log(1024.0).floor());
                unit * round_up(highest / unit)
            }
        }
    }
}

/// What is drawn.
pub struct Picture<'a> {
    /// What stands above it.
    pub title: Vec<Span<'a>>,
    /// The curves.
    pub curves: Vec<(&'a Series, Style)>,
    /// What its numbers are.
    pub scale: Scale,
    /// The top is at most here, where there is such a thing as all.
    pub most: Option<f64>,
    /// How far back it goes.
    pub span_ms: u64,
    /// So far apart two samples are still of one curve.
    pub gap_ms: u64,
    /// How the time on the left is written.
    pub from: String,
}

/// Draws it.
pub fn draw(theme: Theme, picture: Picture<'_>, now_ms: u64, frame: &mut Frame<'_>, area: Rect) {
    let from_ms = now_ms.saturating_sub(picture.span_ms);
    let pieces: Vec<(Vec<(f64, f64)>, Style)> = picture
        .curves
        .iter()
        .flat_map(|(series, style)| {
            let pieces = pieces(series, from_ms, now_ms, picture.gap_ms);
            pieces.into_iter().map(|piece| (piece, *style))
        })
        .collect();
    let highest = pieces.iter().flat_map(|(points, _)| points).map(|(_, y)| *y).fold(0.0, f64::max);
    let top = picture.scale.top(highest);
    // Percent of all is never more than all, but for a sample that caught a moment's more.
    let top = picture.most.filter(|most| highest <= *most).map_or(top, |most| top.min(most));
    let datasets = pieces
        .iter()
        .map(|(points, style)| {
            Dataset::default()
                .marker(Marker::Braille)
                .graph_type(GraphType::Line)
                .style(*style)
                .data(points)
        })
        .collect();
    let quiet = theme.quiet();
    let label = |value: f64| Span::styled(picture.scale.figure(value), quiet);
    let x = Axis::default()
        .bounds([0.0, picture.span_ms as f64])
        .style(theme.track())
        .labels([Span::styled(picture.from.clone(), quiet), Span::styled("now", quiet)]);
    let y = Axis::default().bounds([0.0, top]).style(theme.track()).labels([
        label(0.0),
        label(top / 2.0),
        label(top),
    ]);
    let block = Block::new()
        .borders(Borders::TOP)
        .border_style(theme.track())
        .title(Line::from(picture.title));
    let chart = Chart::new(datasets).block(block).x_axis(x).y_axis(y).legend_position(None);
    frame.render_widget(chart, area);
}

/// The samples from a time on, as points, parted where there is a gap. A piece of one sample is a
/// short line, or it would not be seen.
fn pieces(series: &Series, from_ms: u64, now_ms: u64, gap_ms: u64) -> Vec<Vec<(f64, f64)>> {
    let mut pieces: Vec<Vec<(f64, f64)>> = Vec::new();
    let mut before = None;
    for (ts, value) in series.iter().filter(|(ts, _)| (from_ms..=now_ms).contains(ts)) {
        let point = ((ts - from_ms) as f64, value);
        match pieces.last_mut() {
            Some(piece) if before.is_some_and(|before| ts - before <= gap_ms) => piece.push(point),
            _ => pieces.push(vec![point]),
        }
        before = Some(ts);
    }
    for piece in &mut pieces {
        if let [(x, y)] = piece[..] {
            piece.push((x + 1.0, y));
        }
    }
    pieces
}

/// The next number that reads well, and whose half does.
fn round_up(value: f64) -> f64 {
    let unit = 10_f64.powf(value.max(f64::MIN_POSITIVE).log10().floor());
    let steps = [1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0];
    steps.iter().map(|step| step * unit).find(|round| *round >= value).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_with_round_numbers() {
        let round = [0.35, 1.0, 13.0, 55.0, 61.0, 4_100.0].map(round_up);
        assert_eq!(round, [0.4, 1.0, 15.0, 60.0, 80.0, 6_000.0]);
        let bytes = [0.0, 1_500.0, 700_000.0, 5e6].map(|value| Scale::Bytes.top(value) / 1024.0);
        assert_eq!(bytes, [1.0, 1.5, 800.0, 6.0 * 1024.0]);
    }

    #[test]
    fn a_curve_breaks_where_nothing_was_measured() {
        let mut series = Series::default();
        for ts in [500, 1_000, 2_000, 9_000] {
            series.insert(ts, 1.0);
        }
        let found = pieces(&series, 1_000, 10_000, 1_500);
        assert_eq!(found, [vec![(0.0, 1.0), (1000.0, 1.0)], vec![(8000.0, 1.0), (8001.0, 1.0)]]);
    }
}
