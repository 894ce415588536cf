//! Is it alive, is it ready, what happened lately: what health checks and people ask first.

use std::sync::Arc;

use aklight_common::BrokerId;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use serde::Serialize;

use super::{Started, starting};
use crate::events::{Event, Events};
use crate::sessions::Standing;

pub(super) fn routes(started: Started, events: Arc<Events>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/debug/events", get(recent))
        .with_state(Health { started, events })
}

#[derive(Clone)]
struct Health {
    started: Started,
    events: Arc<Events>,
}

/// An event as it is shown; `at` is RFC 3339, UTC.
#[derive(Serialize)]
struct ShownEvent {
    at: String,
    level: &'static str,
    kind: &'static str,
    text: String,
}

impl From<Event> for ShownEvent {
    fn from(event: Event) -> Self {
        let Event { at_ms, level, kind, text } = event;
        let at = i64::try_from(at_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        Self {
            at: at.map_or_else(String::new, |at| at.to_string()),
            level: level.as_str(),
            kind,
            text,
        }
    }
}

async fn ready(State(health): State<Health>) -> Response {
    let Some(services) = health.started.get() else { return starting() };
    if services.sessions.metadata().standing(services.broker, "") == Standing::Retired {
        let text =
            "this broker was removed from the cluster, and ends once no group counts on it\n";
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    let mut broken: Vec<_> = services
        .partitions
        .iter()
        .filter_map(|partition| {
            let status = partition.status();
            // One that died without a majority to elect another is remembered on.
            let is_led = status.leader.is_some_and(|leader| services.pulse.is_alive(leader));
            let why =
                status.failed.or_else(|| (!is_led).then(|| "no broker leads it".to_owned()))?;
            Some(format!("partition {}: {why}\n", partition.id))
        })
        .collect();
    // One that leads does not learn from that that nobody follows any more.
    let is_deserted = services.pulse.own().groups.iter().any(|group| {
        let alive = group.voters.iter().filter(|id| services.pulse.is_alive(BrokerId(**id)));
        !group.voters.is_empty() && 2 * alive.count() <= group.voters.len()
    });
    if is_deserted {
        broken.push("no majority of the brokers is there: records cannot be stored\n".to_owned());
    }
    if broken.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, broken.concat()).into_response()
}

async fn recent(State(health): State<Health>) -> Json<Vec<ShownEvent>> {
    Json(health.events.recent().into_iter().map(ShownEvent::from).collect())
}
