//! One notice on its way. Pure: an answer and the time in, the next step out.
//!
//! ```text
//!  new ──▶ Send ──taken──▶ Follow ──arrived, or asked often enough──▶ delivered
//!            ▲ │ ▲ │            │ failed in passing, or outside the window with a template
//!            │ │ └─┼────────────┘
//!   not      │ │   └─refused for good, or too often──▶ dead
//!   found    │ └─nobody knows──▶ Ask ──found──▶ Follow
//!            └─────────────────────┘
//!  restored after a crash ──▶ Ask, or Follow where the carrier's id of it is known
//! ```
//!
//! With a carrier that cannot be asked, what is drawn as Ask is another Send, under the same
//! reference.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use super::Patience;
use crate::alerts::Notice;
use crate::notify::carrier::{Failure, Found};

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Hand it to the carrier.
    Send,
    /// Ask whether the carrier has it.
    Ask,
    /// Ask what became of it.
    Follow {
        /// The carrier's id of it.
        sid: String,
        /// How often it was asked after already.
        asked: usize,
    },
}

/// What a job comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// To be worked on again when it is due.
    Again,
    /// It is done, as far as can be known.
    Delivered {
        /// Whether it is known to have arrived.
        arrived: bool,
    },
    /// It will not be tried again by itself.
    Dead {
        /// Why.
        reason: String,
    },
}

/// A notice and how far it is.
#[derive(Debug)]
pub struct Job {
    /// The notice.
    pub notice: Notice,
    /// What to do next.
    pub stage: Stage,
    /// Whether it goes as a template.
    pub template: bool,
    /// Not before this moment, in milliseconds of a clock that never goes back.
    pub due_ms: u64,
    born_ms: u64,
    looks_up: bool,
    backoff: ExponentialBackoff,
}

impl Job {
    /// A job for `notice`, which may have been sent before where `maybe_sent`; `looks_up` where
    /// the carrier can be asked.
    #[must_use]
    pub fn new(
        notice: Notice,
        maybe_sent: bool,
        looks_up: bool,
        now_ms: u64,
        patience: &Patience,
    ) -> Self {
        let stage = match &notice.sid {
            Some(sid) => Stage::Follow { sid: sid.clone(), asked: 0 },
            None if maybe_sent && looks_up => Stage::Ask,
            None => Stage::Send,
        };
        let backoff = ExponentialBuilder::new()
            .with_min_delay(patience.backoff_first)
            .with_max_delay(patience.backoff_max)
            .with_max_times(patience.attempts_max.saturating_sub(1))
            .with_jitter()
            .build();
        let (due_ms, born_ms) = (now_ms, now_ms);
        Self { notice, stage, template: false, due_ms, born_ms, looks_up, backoff }
    }

    /// Whether it is too old to be news, and may be given up: what Twilio has, or may have, is
    /// asked after all the same.
    #[must_use]
    pub fn is_stale(&self, now_ms: u64, patience: &Patience) -> bool {
        let age = Duration::from_millis(now_ms.saturating_sub(self.born_ms));
        self.stage == Stage::Send && age > patience.age_max
    }

    /// After the carrier was handed the message.
    pub fn sent(
        &mut self,
        answer: Result<Found, Failure>,
        has_template: bool,
        now_ms: u64,
        patience: &Patience,
    ) -> Step {
        match answer {
            Ok(Found { arrived: true, .. }) => Step::Delivered { arrived: true },
            Ok(Found { sid: None, .. }) => Step::Delivered { arrived: false },
            Ok(Found { sid: Some(sid), .. }) => {
                self.stage = Stage::Follow { sid, asked: 0 };
                self.follow_later(now_ms, patience)
            }
            Err(Failure::OutsideWindow { .. }) if has_template && !self.template => {
                self.template = true;
                self.stage = Stage::Send;
                self.due_ms = now_ms;
                Step::Again
            }
            Err(Failure::OutsideWindow { reason }) => Step::Dead {
                reason: format!(
                    "{reason} (the recipient has not written to this number for 24 hours: set TWILIO_CONTENT_SID to an approved template, or let the recipient write once)"
                ),
            },
            Err(Failure::Permanent { reason }) => Step::Dead { reason },
            Err(Failure::Unknown { reason }) => {
                self.stage = if self.looks_up { Stage::Ask } else { Stage::Send };
                self.retry(reason, None, now_ms)
            }
            Err(Failure::Passing { reason, after, .. }) => {
                self.stage = Stage::Send;
                self.retry(reason, after, now_ms)
            }
        }
    }

    /// After the carrier was asked whether it has the message.
    pub fn looked_up(
        &mut self,
        answer: Result<Option<Result<Found, Failure>>, Failure>,
        has_template: bool,
        now_ms: u64,
        patience: &Patience,
    ) -> Step {
        match answer {
            Ok(Some(found)) => self.sent(found, has_template, now_ms, patience),
            Ok(None) => {
                self.stage = Stage::Send;
                self.due_ms = now_ms;
                Step::Again
            }
            Err(Failure::Passing { reason, after, .. }) => self.retry(reason, after, now_ms),
            Err(Failure::Unknown { reason }) => self.retry(reason, None, now_ms),
            Err(Failure::OutsideWindow { reason } | Failure::Permanent { reason }) => Step::Dead {
                reason: format!("it may have been sent, and nobody says whether: {reason}"),
            },
        }
    }

    /// After the carrier was asked what became of the message.
    pub fn followed(
        &mut self,
        answer: Result<Result<Found, Failure>, Failure>,
        has_template: bool,
        now_ms: u64,
        patience: &Patience,
    ) -> Step {
        match answer {
            Ok(Err(failure)) => self.sent(Err(failure), has_template, now_ms, patience),
            Ok(Ok(Found { arrived: true, .. })) => Step::Delivered { arrived: true },
            // Not yet, or no answer: ask again, but not for ever.
            Ok(Ok(_)) | Err(Failure::Passing { .. } | Failure::Unknown { .. }) => {
                if let Stage::Follow { asked, .. } = &mut self.stage {
                    *asked += 1;
                }
                self.follow_later(now_ms, patience)
            }
            // It was taken, and nobody tells more.
            Err(Failure::OutsideWindow { .. } | Failure::Permanent { .. }) => {
                Step::Delivered { arrived: false }
            }
        }
    }

    fn follow_later(&mut self, now_ms: u64, patience: &Patience) -> Step {
        let Stage::Follow { asked, .. } = &self.stage else { return Step::Again };
        match patience.follow_up.get(*asked) {
            Some(wait) => {
                self.due_ms = now_ms + milliseconds(*wait);
                Step::Again
            }
            None => Step::Delivered { arrived: false },
        }
    }

    fn retry(&mut self, reason: String, after: Option<Duration>, now_ms: u64) -> Step {
        match self.backoff.next() {
            Some(wait) => {
                self.due_ms = now_ms + milliseconds(wait.max(after.unwrap_or_default()));
                Step::Again
            }
            None => Step::Dead { reason: format!("given up after several attempts: {reason}") },
        }
    }
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
