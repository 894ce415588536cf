//! `GET /api/live?match=PATTERN`: records as they are committed, as server-sent events.
//!
//! ```text
//! event: hello      {"now": …}           the stream has begun: what is committed from here on comes
//! event: records    [{"topic": …}, …]    some records, in the order of their partitions
//! event: alive      {"now": …}           nothing came for a while
//! event: gap        {"error": …}         something could not be read here: ask for the state anew
//! event: cut        {"error": …}         the stream ends, and why
//! ```
//!
//! A stream holds a place in the log and no records: a browser that reads slowly falls behind there,
//! and one that is too far behind is told so and cut off; it can ask for the state and begin anew.
//! One that reads nothing at all is cut off by its connection (see `limited`).

use std::sync::Arc;
use std::time::Duration;

use aklight_common::record::Record;
use axum::extract::{ConnectInfo, State};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{sleep, timeout};

use super::shown::Listing;
use super::{Api, Asked, Patterns, STREAMS_MAX, parameters};
use crate::admin::limited::Lease;
use crate::admin::problem::Problem;
use crate::fetch::live::Live;
use crate::services::Services;

/// Pause between two reads: what comes within it goes out together.
const PAUSE: Duration = Duration::from_millis(250);

/// Silence after which a stream says that it is alive, so that a page notices a broker that is gone.
const ALIVE_EVERY: Duration = Duration::from_secs(5);

/// Records that a stream may be behind: two minutes of a house with fifty containers, which a page
/// reads sooner from the state than from the stream.
const BEHIND_MAX: u64 = 50_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    r#match: Patterns,
}

pub(super) async fn answer(
    State(api): State<Api>,
    ConnectInfo(lease): ConnectInfo<Lease>,
    asked: Asked<Question>,
) -> Result<Response, Problem> {
    let Patterns(patterns) = parameters(asked)?.r#match;
    let services = api.services()?;
    let place = api.streams.clone().try_acquire_owned().map_err(|_| {
        Problem::passing(format!("{STREAMS_MAX} streams are open already: try again later"))
    })?;
    lease.extend();
    let commits = services.partitions.commits.clone();
    let mut live = Live::default();
    for pattern in patterns {
        live.subscribe(pattern, services.partitions.ends());
    }
    let step = Step::Hello;
    let streaming = Streaming { services, live, commits, step, _place: place };
    let events = stream::unfold(streaming, |mut streaming| async {
        let event = streaming.next().await?;
        Some((Ok::<_, std::convert::Infallible>(event), streaming))
    });
    Ok(Sse::new(events).into_response())
}

/// What is due next.
enum Step {
    Hello,
    /// More is to be read at once.
    Read,
    Wait,
    End,
}

struct Streaming {
    services: Arc<Services>,
    live: Live,
    commits: watch::Receiver<u64>,
    step: Step,
    _place: OwnedSemaphorePermit,
}

impl Streaming {
    /// The next event; none when the stream is over.
    async fn next(&mut self) -> Option<Event> {
        loop {
            match std::mem::replace(&mut self.step, Step::Wait) {
                Step::Hello => {
                    self.step = Step::Read;
                    return Some(self.tell("hello"));
                }
                Step::End => return None,
                Step::Read => {}
                Step::Wait => {
                    let stopping = self.services.stopping.clone();
                    tokio::select! {
                        () = stopping.cancelled() => return self.cut("this broker is ending"),
                        changed = timeout(ALIVE_EVERY, self.commits.changed()) => match changed {
                            Ok(Ok(())) => sleep(PAUSE).await,
                            Ok(Err(_)) => return None,
                            Err(_) => return Some(self.tell("alive")),
                        },
                    }
                }
            }
            if let Some(event) = self.read() {
                return Some(event);
            }
        }
    }

    fn read(&mut self) -> Option<Event> {
        self.commits.borrow_and_update();
        let behind = self.live.behind(&self.services.partitions);
        if behind > BEHIND_MAX {
            return self.cut(&format!("{behind} records behind: you read too slowly"));
        }
        let mut listing = Listing::default();
        let mut add = |_, _, record: &Record<'_>| listing.push(record);
        let pushed = match self.live.push(&self.services.partitions, &mut add) {
            Ok(pushed) => pushed,
            Err(error) => return Some(said("gap", &error.text)),
        };
        if pushed.more {
            self.step = Step::Read;
        }
        if let Some(gap) = pushed.gaps.first() {
            return Some(said("gap", &gap.text));
        }
        if listing.is_empty() {
            return None;
        }
        // What is shown is UTF-8 without line breaks.
        let list = String::from_utf8_lossy(&listing.into_list()).into_owned();
        Some(Event::default().event("records").data(list))
    }

    fn cut(&mut self, why: &str) -> Option<Event> {
        self.step = Step::End;
        Some(said("cut", why))
    }

    fn tell(&self, event: &str) -> Event {
        let now = json!({ "now": self.services.stamp.now_us() / 1000 });
        Event::default().event(event).data(now.to_string())
    }
}

fn said(event: &str, error: &str) -> Event {
    Event::default().event(event).data(json!({ "error": error }).to_string())
}
