//! `GET /api/last?match=PATTERN&from=MS&limit=N&where=FIELD=TEXT`: the newest record of each topic, by the
//! topics' names; with `from` of those only that had one since, with `limit` of so many only that had
//! one last: how many topics that leaves out is told (`left_out`). With `where` those records only whose
//! payload says so: of alerts that ring, however long, `state=firing`.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use aklight_common::record::Record;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;

use super::shown::{Listing, put_record};
use super::{Api, Asked, Patterns, parameters};
use crate::admin::problem::Problem;
use crate::fetch::newest::{newest, show};

/// Topics whose records are held at once: they are read by their places and shown by their names.
const TOGETHER: usize = 1000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    r#match: Patterns,
    from: Option<u64>,
    limit: Option<usize>,
    r#where: Option<Where>,
}

/// A field of the payload, and the text that it holds.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Where {
    field: String,
    text: String,
}

impl TryFrom<String> for Where {
    type Error = &'static str;

    fn try_from(said: String) -> Result<Self, Self::Error> {
        let (field, text) = said.split_once('=').ok_or("where is a field, = and a text")?;
        Ok(Self { field: field.to_owned(), text: text.to_owned() })
    }
}

impl Where {
    fn holds_of(&self, payload: &[u8]) -> bool {
        let payload: Option<Value> = serde_json::from_slice(payload).ok();
        payload.is_some_and(|payload| payload[&self.field] == self.text.as_str())
    }
}

pub(super) async fn answer(
    State(api): State<Api>,
    asked: Asked<Question>,
) -> Result<Response, Problem> {
    let Question { r#match: Patterns(patterns), from, limit, r#where } = parameters(asked)?;
    let from_us = from.unwrap_or_default().saturating_mul(1000);
    let read = api.read(move |services| {
        let mut listing = Listing::default();
        let mut all = newest(&services.partitions, &patterns);
        all.retain(|newest| newest.time_us >= from_us);
        if let Some(limit) = limit.filter(|limit| *limit < all.len()) {
            all.sort_unstable_by_key(|newest| Reverse(newest.time_us));
            listing.leave_out(all.len() - limit);
            all.truncate(limit);
            all.sort_unstable_by(|a, b| a.topic.cmp(&b.topic));
        }
        for some in all.chunks(TOGETHER) {
            if listing.is_full() {
                listing.leave_out(some.len());
                continue;
            }
            let mut by_name = BTreeMap::new();
            let mut add = |_, _, record: &Record<'_>| {
                if r#where.as_ref().is_some_and(|wanted| !wanted.holds_of(record.payload)) {
                    return;
                }
                let mut shown = Vec::new();
                put_record(&mut shown, record);
                by_name.insert(record.topic.to_owned(), shown);
            };
            show(&services.partitions, some, &mut add)?;
            by_name.values().for_each(|shown| listing.push_shown(shown));
        }
        Ok(listing.into_answer(services.stamp.now_us() / 1000))
    });
    read.await
}
