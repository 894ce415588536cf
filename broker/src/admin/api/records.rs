//! `GET /api/records?match=PATTERN&from=MS&to=MS&limit=N&before=PLACE`: records of a stretch of time,
//! the newest first. Where there may be older ones, `"next"` is the place of the last one shown: give
//! it as `before` to go on from there.
//!
//! The log is read forwards, and asked for is its end: so it is read in pieces from the end back,
//! each four times as long as the one before, until there are enough or the stretch is through. What
//! one question may read is bounded; `"whole": false` says that the bound was met. The piece in which
//! it was met is left to the next question, as its end is missing; unless it is the first one.

use aklight_common::record::Record;
use aklight_common::{Offset, PartitionId};
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use super::shown::{Listing, put_record};
use super::{Api, Asked, Patterns, parameters};
use crate::admin::problem::Problem;
use crate::fetch::span::{self, Names};
use crate::services::Services;

/// Records that an answer holds at the most, and without a word about it.
const LIMIT_MAX: usize = 1000;
const LIMIT_DEFAULT: usize = 100;

/// The newest piece that is read, in microseconds, and how much longer each one before it is.
const PIECE_US: u64 = 5 * 1_000_000;
const LONGER: u64 = 4;

/// Without `from` as far back as a day.
const BACK_US: u64 = 24 * 3600 * 1_000_000;

/// Bytes of the log that one question may read in each partition: about a quarter of a second.
const READ_BYTES_MAX: usize = 64 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    r#match: Patterns,
    from: Option<u64>,
    to: Option<u64>,
    limit: Option<usize>,
    before: Option<Place>,
}

/// Where a record is among all: its moment, then its partition and offset, as many come in at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
struct Place {
    time_us: u64,
    partition: u32,
    offset: u64,
}

impl TryFrom<String> for Place {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let read = |text: &str| {
            let mut numbers = text.split('-').map(|number| number.parse::<u64>().ok());
            let time_us = numbers.next()??;
            let partition = u32::try_from(numbers.next()??).ok()?;
            let offset = numbers.next()??;
            numbers.next().is_none().then_some(Self { time_us, partition, offset })
        };
        read(&text).ok_or("before is a place that an answer gave as next")
    }
}

pub(super) async fn answer(
    State(api): State<Api>,
    asked: Asked<Question>,
) -> Result<Response, Problem> {
    let question = parameters(asked)?;
    if !question.limit.is_none_or(|limit| (1..=LIMIT_MAX).contains(&limit)) {
        return Err(Problem::nonsense(format!("limit is a number from 1 to {LIMIT_MAX}")));
    }
    api.read(move |services| read(services, &question)).await
}

fn read(services: &Services, question: &Question) -> Result<Vec<u8>, Problem> {
    let now_us = services.stamp.now_us();
    let to = question.to.map_or(u64::MAX, |ms| ms.saturating_mul(1000));
    let before = question.before;
    let to = before.map_or(to, |before| to.min(before.time_us.saturating_add(1)));
    let from = question.from.map(|ms| ms.saturating_mul(1000));
    let from = from.unwrap_or_else(|| now_us.min(to).saturating_sub(BACK_US));
    let limit = question.limit.unwrap_or(LIMIT_DEFAULT);
    let mut budgets = vec![READ_BYTES_MAX; services.partitions.len()];
    let patterns = &question.r#match.0;
    let names = |partition| (partition, Names::of(partition, patterns, from, &|_| true));
    let wanted: Vec<_> = services.partitions.iter().map(names).collect();
    let (mut end, mut length) = (to, PIECE_US);
    // Newest first; each with its moment, which orders partitions among each other.
    let mut found: Vec<(Place, Vec<u8>)> = Vec::new();
    let mut whole = true;
    while end > from && found.len() < limit && whole {
        let start = end.min(now_us).saturating_sub(length).max(from);
        let mut piece = Vec::new();
        for ((partition, names), budget) in wanted.iter().zip(&mut budgets) {
            let mut add = |PartitionId(partition), Offset(offset), record: &Record<'_>| {
                let place = Place { time_us: record.time_us, partition, offset };
                if before.is_some_and(|before| place >= before) {
                    return;
                }
                let mut shown = Vec::new();
                put_record(&mut shown, record);
                piece.push((place, shown));
                keep_newest(&mut piece, 2 * limit, limit);
            };
            whole &= span::walk(partition, names, start..end, budget, &mut add)?;
        }
        if !whole && !found.is_empty() {
            break;
        }
        let missing = limit - found.len();
        keep_newest(&mut piece, missing, missing);
        piece.reverse();
        found.append(&mut piece);
        (end, length) = (start, length.saturating_mul(LONGER));
    }
    let mut listing = Listing::default();
    found.iter().for_each(|(_, shown)| listing.push_shown(shown));
    let shown = found.len() - listing.left_out;
    let mut answer = listing.into_answer(now_us / 1000);
    answer.pop();
    let is_more = !whole || found.len() == limit || shown < found.len();
    let last = found[..shown].last().filter(|_| is_more);
    let next = last.map_or("null".to_owned(), |(place, _)| {
        format!("\"{}-{}-{}\"", place.time_us, place.partition, place.offset)
    });
    answer.extend_from_slice(format!(",\"whole\":{whole},\"next\":{next}}}").as_bytes());
    Ok(answer)
}

/// Drops the oldest once there are more than `max`, so that `kept` are left, in the order of time.
fn keep_newest(piece: &mut Vec<(Place, Vec<u8>)>, max: usize, kept: usize) {
    if piece.len() > max || max == kept {
        piece.sort_unstable_by_key(|(place, _)| *place);
        piece.drain(..piece.len().saturating_sub(kept));
    }
}
