//! A bar for each system: its median, with a line from its least to its most.

use super::number::shown;
use super::results::Results;
use super::svg::{Anchor, INK, OWN, OWN_PALE, PEER, Picture};
use crate::rows::Row;
use crate::stats::Spread;
use crate::work::Unit;

const WIDTH: f64 = 720.0;
/// Where bars begin: right of the systems' names.
const LEFT: f64 = 160.0;
/// Room right of the longest bar for its number.
const RIGHT: f64 = 130.0;
const BAR: f64 = 16.0;
const STEP: f64 = 24.0;
const HEAD: f64 = 34.0;
const GAP: f64 = 14.0;

/// Figures of a row that are drawn, at most; the others are in the table.
const FIGURES_MAX: usize = 6;

/// The chart of a row; `None` when it has nothing to draw.
pub fn draw(row: &Row, results: &Results<'_>) -> Option<String> {
    let mut groups = Vec::new();
    let measures = results.measures(row.key).into_iter().filter(|(_, unit)| unit.is_drawn());
    for (measure, unit) in measures.take(FIGURES_MAX) {
        let bars = row
            .systems
            .iter()
            .filter_map(|system| Some((*system, results.spread(row.key, system, measure)?)));
        groups.push((measure, unit, bars.collect::<Vec<_>>()));
    }
    if groups.is_empty() {
        return None;
    }
    let height: f64 = groups.iter().map(|group| HEAD + STEP * len(group.2.len()) + GAP).sum();
    let mut picture = Picture::new(WIDTH, height);
    let mut top = 0.0;
    for (measure, unit, bars) in groups {
        let better = if unit.more_is_better() { "more is better" } else { "less is better" };
        let title = format!("{}: {measure}, {} ({better})", row.title, unit.sign());
        picture.text(LEFT, top + 20.0, 14.0, Anchor::Start, &title);
        top += HEAD;
        group(&mut picture, top, &bars, unit);
        top += STEP * len(bars.len()) + GAP;
    }
    Some(picture.finish())
}

fn group(picture: &mut Picture, top: f64, bars: &[(&str, Spread)], unit: Unit) {
    let most = bars.iter().map(|(_, spread)| spread.max).fold(f64::MIN_POSITIVE, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / most;
    for (at, (system, spread)) in bars.iter().enumerate() {
        let y = top + STEP * len(at);
        let middle = y + BAR / 2.0;
        picture.text(LEFT - 8.0, middle + 4.5, 13.0, Anchor::End, system);
        picture.bar(LEFT, y, spread.median * scale, BAR, colour(system));
        let (least, most) = (LEFT + spread.min * scale, LEFT + spread.max * scale);
        picture.line(&[(least, middle), (most, middle)], 1.5, INK);
        let number = format!("{} {}", shown(spread.median), unit.sign());
        picture.text(most.max(LEFT) + 8.0, middle + 4.5, 13.0, Anchor::Start, &number);
    }
}

fn colour(system: &str) -> &'static str {
    match system {
        "aklight" => OWN,
        _ if system.starts_with("aklight") => OWN_PALE,
        _ => PEER,
    }
}

fn len(count: usize) -> f64 {
    crate::work::float(count as u64)
}
