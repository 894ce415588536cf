//! A line over the points of a scaling row: how a figure grows with what grows.

use super::number::shown;
use super::results::Results;
use super::svg::{Anchor, INK, OWN, Picture};
use crate::rows::Row;
use crate::work::Unit;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 60.0;
const HEAD: f64 = 48.0;
const FOOT: f64 = 30.0;

/// The charts of a row, one below the other: records a second, and processor time a record.
pub fn draw(row: &Row, results: &Results<'_>) -> String {
    let mut picture = Picture::new(WIDTH, 2.0 * HEIGHT);
    let figures = [(Unit::PerSecond, "records/s"), (Unit::Micros, "server CPU a record, µs")];
    for ((unit, what), top) in figures.into_iter().zip([0.0, HEIGHT]) {
        picture.text(LEFT, top + 20.0, 14.0, Anchor::Start, &format!("{}: {what}", row.title));
        for system in row.systems {
            one(&mut picture, top, row, system, unit, results);
        }
    }
    picture.finish()
}

fn one(
    picture: &mut Picture,
    top: f64,
    row: &Row,
    system: &str,
    unit: Unit,
    results: &Results<'_>,
) {
    let measures = results.measures(row.key).into_iter().filter(|(_, of)| *of == unit);
    let points: Vec<_> = measures
        .filter_map(|(name, _)| Some((name, results.spread(row.key, system, name)?)))
        .collect();
    let most = points.iter().map(|(_, spread)| spread.max).fold(f64::MIN_POSITIVE, f64::max);
    let steps = crate::work::float(points.len().saturating_sub(1).max(1) as u64);
    let (bottom, high) = (top + HEIGHT - FOOT, HEIGHT - HEAD - FOOT);
    picture.line(&[(LEFT, bottom), (WIDTH - RIGHT, bottom)], 1.0, INK);
    let mut line = Vec::with_capacity(points.len());
    for (at, (name, spread)) in points.iter().enumerate() {
        let x = LEFT + (WIDTH - LEFT - RIGHT) * crate::work::float(at as u64) / steps;
        let y = |value: f64| bottom - high * value / most;
        picture.line(&[(x, y(spread.min)), (x, y(spread.max))], 1.5, INK);
        picture.dot(x, y(spread.median), OWN);
        let label = name.split(", CPU").next().unwrap_or(name);
        picture.text(x, bottom + 18.0, 12.0, Anchor::Middle, label);
        picture.text(x, y(spread.max) - 8.0, 12.0, Anchor::Middle, &shown(spread.median));
        line.push((x, y(spread.median)));
    }
    picture.line(&line, 2.0, OWN);
}
