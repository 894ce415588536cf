//! `GET /api/records?match=PATTERN&from=MS&to=MS&limit=N`: records of a stretch of time, the newest
//! first.
//!
//! The log is read forwards, and asked for is its end: so it is read in pieces from the end back,
//! each four times as long as the one before, until there are enough or the stretch is through. What
//! one question may read is bounded; `"whole": false` says that the bound was met.

use aklight_common::record::Record;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use super::shown::{Listing, put_record};
use super::{Api, Asked, Patterns, parameters};
use crate::admin::problem::Problem;
use crate::fetch::span;
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
    let from = question.from.map(|ms| ms.saturating_mul(1000));
    let from = from.unwrap_or_else(|| now_us.min(to).saturating_sub(BACK_US));
    let limit = question.limit.unwrap_or(LIMIT_DEFAULT);
    let mut budgets = vec![READ_BYTES_MAX; services.partitions.len()];
    let (mut end, mut length) = (to, PIECE_US);
    // Newest first; each with its moment, which orders partitions among each other.
    let mut found: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut whole = true;
    while end > from && found.len() < limit && whole {
        let start = end.min(now_us).saturating_sub(length).max(from);
        let mut piece = Vec::new();
        for (partition, budget) in services.partitions.iter().zip(&mut budgets) {
            let mut add = |_, _, record: &Record<'_>| {
                let mut shown = Vec::new();
                put_record(&mut shown, record);
                piece.push((record.time_us, shown));
                keep_newest(&mut piece, 2 * limit, limit);
            };
            let wanted = |topic: &str| question.r#match.matches(topic);
            whole &= span::walk(partition, &wanted, start..end, budget, &mut add)?;
        }
        let missing = limit - found.len();
        keep_newest(&mut piece, missing, missing);
        piece.reverse();
        found.append(&mut piece);
        (end, length) = (start, length.saturating_mul(LONGER));
    }
    let mut listing = Listing::default();
    found.iter().for_each(|(_, shown)| listing.push_shown(shown));
    let mut answer = listing.into_answer(now_us / 1000);
    answer.pop();
    answer.extend_from_slice(format!(",\"whole\":{whole}}}").as_bytes());
    Ok(answer)
}

/// Drops the oldest once there are more than `max`, so that `kept` are left, in the order of time.
fn keep_newest(piece: &mut Vec<(u64, Vec<u8>)>, max: usize, kept: usize) {
    if piece.len() > max || max == kept {
        piece.sort_by_key(|(time_us, _)| *time_us);
        piece.drain(..piece.len().saturating_sub(kept));
    }
}
