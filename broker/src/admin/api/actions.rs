//! `POST /api/alerts/actions`: what people do about alerts becomes a record of `actions/alerts`, which
//! consumers follow. It is stored as every record is: answered when a majority has it on disk.

use aklight_common::record::{BodyBuilder, Record};
use aklight_common::topic::check_topic;
use aklight_common::{Offset, Pattern};
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::timeout;

use super::Api;
use crate::admin::guard::{Body, read_json};
use crate::admin::problem::Problem;
use crate::partition::{Outcome, PRODUCE_WAIT, RoutedBatch};
use crate::services::{Services, permits};

const TOPIC: &str = "actions/alerts";
const KEY: &[u8] = b"alerts";

/// Who acts, when the request does not say.
const SOMEBODY: &str = "page";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Deed {
    Acknowledge,
    Mute,
    Unmute,
}

/// The body of the request and, with `ts`, the payload of the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Action {
    #[serde(skip_deserializing)]
    ts: u64,
    action: Deed,
    rule: String,
    r#match: String,
    #[serde(default = "somebody")]
    by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

fn somebody() -> String {
    SOMEBODY.to_owned()
}

impl Action {
    fn check(&self) -> Result<(), Problem> {
        if self.rule != "+"
            && (self.rule.contains('/') || check_topic(self.rule.as_bytes()).is_err())
        {
            return Err(Problem::nonsense("rule is a rule's name, or + for all"));
        }
        Pattern::new(&self.r#match)
            .map_err(|error| Problem::nonsense(format!("match is no pattern: {error}")))?;
        match (self.action, self.until) {
            (Deed::Mute, None) => {
                Err(Problem::nonsense("a mute ends: give until, in Unix milliseconds"))
            }
            (Deed::Mute, Some(until)) if until <= self.ts => {
                Err(Problem::nonsense("until has passed already"))
            }
            (Deed::Acknowledge | Deed::Unmute, Some(_)) => {
                Err(Problem::nonsense("until belongs to a mute"))
            }
            _ => Ok(()),
        }
    }

    fn told(&self) -> String {
        let deed = match self.action {
            Deed::Acknowledge => "acknowledged",
            Deed::Mute => "muted",
            Deed::Unmute => "unmuted",
        };
        let rule = if self.rule == "+" { "every rule" } else { &self.rule };
        format!("{deed}: {rule} for {}", self.r#match)
    }
}

pub(super) async fn answer(
    State(api): State<Api>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let mut action: Action = read_json(&headers, body)?;
    let services = api.services()?;
    action.ts = services.stamp.now_us() / 1000;
    action.check()?;
    let payload = serde_json::to_vec(&action).map_err(|e| Problem::nonsense(e.to_string()))?;
    store(&services, &payload).await?;
    Ok(Json(json!({ "done": action.told() })).into_response())
}

async fn store(services: &Services, payload: &[u8]) -> Result<Offset, Problem> {
    let mut body = BodyBuilder::new();
    let time_us = services.stamp.next_us(services.stamp.now_us());
    body.push(&Record { time_us, topic: TOPIC, key: KEY, payload, once: None });
    let body = body.finish();
    let permit = services.inflight.clone().acquire_many_owned(permits(body.bytes.len())).await;
    let permit = permit.map_err(|_| Problem::passing("shutting down"))?;
    let (batch, told) = RoutedBatch::new(body, 0, permit);
    let partition = services.partitions.partitioner.route(KEY);
    let partition = services.partitions.get(partition).ok_or_else(Problem::starting)?;
    let refused =
        |why: &str| Problem::passing(format!("{why}: look whether it shows, or try again"));
    if partition.take(batch).await.is_err() {
        return Err(refused("this broker is shutting down"));
    }
    // The ticket is answered a little after PRODUCE_WAIT at the latest, unless the broker ends.
    let told = timeout(2 * PRODUCE_WAIT, told).await;
    match told {
        Ok(Ok(Ok(placed))) => match placed.of(0) {
            Some(Outcome::Stored(offset)) => Ok(offset),
            _ => Err(refused("not known to be stored")),
        },
        Ok(Ok(Err(error))) => Err(refused(&error.to_string())),
        _ => Err(refused("not durable within the time limit")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str) -> Result<(), String> {
        let mut action: Action = serde_json::from_str(body).map_err(|error| error.to_string())?;
        action.ts = 1000;
        action.check().map_err(|problem| problem.text)
    }

    #[test]
    fn only_what_makes_sense_is_stored() {
        assert_eq!(
            check(r#"{"action":"acknowledge","rule":"cpu-high","match":"metrics/#"}"#),
            Ok(())
        );
        assert_eq!(check(r#"{"action":"mute","rule":"+","match":"a/b","until":1001}"#), Ok(()));
        for (wrong, said) in [
            (r#"{"action":"shout","rule":"a","match":"a"}"#, "unknown variant"),
            (r#"{"action":"mute","rule":"a","match":"a"}"#, "give until"),
            (r#"{"action":"mute","rule":"a","match":"a","until":1000}"#, "passed"),
            (r#"{"action":"unmute","rule":"a","match":"a","until":2000}"#, "belongs to a mute"),
            (r#"{"action":"unmute","rule":"a/b","match":"a"}"#, "rule is"),
            (r#"{"action":"unmute","rule":"a","match":"a#"}"#, "no pattern"),
            (r#"{"action":"unmute","rule":"a","match":"a","what":1}"#, "unknown field"),
        ] {
            let error = check(wrong).expect_err(wrong);
            assert!(error.contains(said), "{wrong}: {error}");
        }
    }
}
