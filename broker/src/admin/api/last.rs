//! `GET /api/last?match=PATTERN`: the newest record of each topic, by the topics' names.

use aklight_common::record::Record;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use super::shown::Listing;
use super::{Api, Asked, Patterns, parameters};
use crate::admin::problem::Problem;
use crate::fetch::newest::newest;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    r#match: Patterns,
}

pub(super) async fn answer(
    State(api): State<Api>,
    asked: Asked<Question>,
) -> Result<Response, Problem> {
    let Patterns(patterns) = parameters(asked)?.r#match;
    let read = api.read(move |services| {
        let mut listing = Listing::default();
        for newest in newest(&services.partitions, &patterns) {
            let mut add = |_, _, record: &Record<'_>| listing.push(record);
            newest.show(&services.partitions, &mut add)?;
        }
        Ok(listing.into_answer(services.stamp.now_us() / 1000))
    });
    read.await
}
