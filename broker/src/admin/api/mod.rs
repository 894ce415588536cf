//! The records over HTTP, as JSON: what the page works with, and whoever wants it in a script.
//!
//! - `GET /api/last`: the newest record of each topic (`last`)
//! - `GET /api/history`: values over a stretch of time, thinned out (`history`)
//! - `GET /api/records`: records of a stretch of time, the newest first (`records`)
//! - `GET /api/live`: records as they are committed, as server-sent events (`live`)
//! - `POST /api/alerts/actions`: acknowledge, mute and unmute (`actions`)
//!
//! `match` takes patterns, several with `|` between them, which no pattern can hold. Reading happens
//! on threads of its own, few at once: a question may take a tenth of a second of a CPU, and the
//! broker's own work goes first.

mod actions;
mod history;
mod last;
mod live;
mod records;
mod series;
mod shown;

use std::sync::Arc;

use aklight_common::Pattern;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::guard::BODY_BYTES_MAX;
use super::problem::Problem;
use super::{Started, parts};
use crate::services::Services;

/// Questions that read the log at once: with more, people who reload a page would slow down those
/// who store records.
const QUESTIONS_MAX: usize = 2;

/// Live streams at once: a part of the HTTP connections, so that streams never take them all.
const STREAMS_MAX: usize = 32;

/// Most patterns of one question: each costs a walk through the tree of topics.
const PATTERNS_MAX: usize = 16;

/// Bytes of an answer's records: some thousand topics with samples of usual size.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// What the answers are made from.
#[derive(Clone)]
struct Api {
    started: Started,
    questions: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

/// A query's parameters as they came.
type Asked<T> = Result<Query<T>, QueryRejection>;

pub(super) fn routes(started: Started) -> Router {
    let (questions, streams) = (Semaphore::new(QUESTIONS_MAX), Semaphore::new(STREAMS_MAX));
    let api = Api { started, questions: Arc::new(questions), streams: Arc::new(streams) };
    Router::new()
        .route("/api/last", get(last::answer))
        .route("/api/history", get(history::answer))
        .route("/api/records", get(records::answer))
        .route("/api/live", get(live::answer))
        .route("/api/alerts/actions", post(actions::answer))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(api)
}

impl Api {
    fn services(&self) -> Result<Arc<Services>, Problem> {
        parts(&self.started).cloned()
    }

    /// Answers with JSON that is read together on a thread of its own.
    async fn read<F>(&self, read: F) -> Result<Response, Problem>
    where
        F: FnOnce(&Services) -> Result<Vec<u8>, Problem> + Send + 'static,
    {
        let services = self.services()?;
        let turn = self.questions.clone().acquire_owned().await;
        let reading = tokio::task::spawn_blocking(move || {
            // Held until it is done, even when nobody waits for the answer any more.
            let _turn = turn;
            read(&services)
        });
        let bytes = reading.await.map_err(|_| Problem::passing("shutting down"))??;
        let headers =
            [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
        Ok((headers, bytes).into_response())
    }
}

/// The parameters, or what is wrong with them.
fn parameters<T>(asked: Asked<T>) -> Result<T, Problem> {
    asked.map(|Query(asked)| asked).map_err(|rejection| Problem::nonsense(rejection.body_text()))
}

/// What is asked for.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
struct Patterns(Vec<Pattern>);

impl TryFrom<String> for Patterns {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let patterns = text.split('|').map(|pattern| {
            Pattern::new(pattern).map_err(|error| format!("'{pattern}' is no pattern: {error}"))
        });
        let patterns: Vec<_> = patterns.take(PATTERNS_MAX + 1).collect::<Result<_, _>>()?;
        if patterns.len() > PATTERNS_MAX {
            return Err(format!("at most {PATTERNS_MAX} patterns at once"));
        }
        Ok(Self(patterns))
    }
}

impl Patterns {
    fn matches(&self, topic: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(topic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_with_bars_between() {
        let read = |text: &str| Patterns::try_from(text.to_owned());
        let both = read("metrics/+/cpu|alerts/#").expect("two patterns");
        assert!(both.matches("metrics/web/cpu") && both.matches("alerts/x/y"));
        assert!(!both.matches("metrics/web/memory"));
        for wrong in ["", "a||b", "a#", &["a"; PATTERNS_MAX + 1].join("|")] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
