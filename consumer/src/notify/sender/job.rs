//! One notice on its way. Pure: an answer and the time in, the next step out.
//!
//! ```text
//!  new ──▶ Send ──taken──▶ Follow ──arrived, or asked often enough──▶ delivered
//!            ▲ │ ▲ │            │ failed in passing, or outside the window with a template
//!            │ │ └─┼────────────┘
//!   not      │ │   └─refused for good, or too old──▶ dead
//!   found    │ └─nobody knows──▶ Ask ──found──▶ Follow
//!            └─────────────────────┘
//!  restored after a crash ──▶ Ask, or Follow where the carrier's id of it is known
//! ```
//!
//! Attempts are not counted: an outage ends when it ends. What may pass is tried until the message
//! is too old to be news, with pauses that double up to a limit.
//!
//! With a carrier that cannot be asked, what is drawn as Ask is another Send, under the same
//! reference. The pauses before those double without a limit, for each may be one more copy to a
//! receiver who takes messages and is slow to say so: about ten in half an hour.

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
    /// Why the last attempt failed, where the next one may not.
    pub trouble: Option<String>,
    /// Since when it is held up, should it be; `None` once that was told.
    pub held_up_ms: Option<u64>,
    /// The messages before it about the same alerts to the same recipient: an alert's end is not
    /// told before its beginning.
    pub behind: Vec<u64>,
    ends_ms: u64,
    looks_up: bool,
    backoff: ExponentialBackoff,
    backoff_in_doubt: ExponentialBackoff,
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
        let backoff = |longest| {
            let builder = ExponentialBuilder::new().with_min_delay(patience.backoff_first);
            builder.with_max_delay(longest).without_max_times().with_jitter().build()
        };
        let held_up_ms = now_ms + milliseconds(patience.fallback_after);
        Self {
            stage,
            template: false,
            due_ms: now_ms,
            trouble: None,
            held_up_ms: (!notice.fell_back).then_some(held_up_ms),
            behind: Vec::new(),
            ends_ms: now_ms + milliseconds(patience.age_max),
            looks_up,
            backoff: backoff(patience.backoff_max),
            backoff_in_doubt: backoff(patience.age_max),
            notice,
        }
    }

    /// Whether nobody is known to have it yet.
    #[must_use]
    pub fn is_untold(&self) -> bool {
        !matches!(self.stage, Stage::Follow { .. })
    }

    /// When it is due, as long as its carrier takes nothing before `allowed_ms`. Its end waits for
    /// nobody.
    #[must_use]
    pub fn due_from(&self, allowed_ms: u64) -> u64 {
        let due_ms = self.due_ms.max(allowed_ms);
        if self.is_untold() { due_ms.min(self.ends_ms) } else { due_ms }
    }

    /// Why it is given up, where it is too old to be news; `trouble` is its carrier's.
    #[must_use]
    pub fn given_up(
        &self,
        trouble: Option<&str>,
        now_ms: u64,
        patience: &Patience,
    ) -> Option<String> {
        if !self.is_untold() || now_ms < self.ends_ms {
            return None;
        }
        let age = humantime::format_duration(patience.age_max);
        let why = self.trouble.as_deref().or(trouble).unwrap_or("its turn did not come");
        Some(match self.stage {
            Stage::Ask => format!("it may have been sent, and nobody says whether: {why}"),
            _ => format!("given up after {age}: {why}"),
        })
    }

    /// Whether it speaks of an alert that `other` speaks of, to the same recipient.
    #[must_use]
    pub fn follows(&self, other: &Self) -> bool {
        let about = |alert: &crate::alerts::Alert| {
            let speaks = |a: &crate::alerts::Alert| a.rule == alert.rule && a.topic == alert.topic;
            other.notice.alerts().any(speaks)
        };
        self.notice.destination == other.notice.destination && self.notice.alerts().any(about)
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
                self.trouble = None;
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
            Err(Failure::Unknown { reason }) if self.looks_up => {
                self.stage = Stage::Ask;
                self.retry(reason, None, now_ms)
            }
            Err(Failure::Unknown { reason }) => {
                self.stage = Stage::Send;
                let wait = self.backoff_in_doubt.next();
                self.retry(reason, wait, now_ms)
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

    /// Again after a pause, of `at_least` so long.
    fn retry(&mut self, reason: String, at_least: Option<Duration>, now_ms: u64) -> Step {
        let wait = self.backoff.next().max(at_least).unwrap_or_default();
        self.due_ms = now_ms + milliseconds(wait);
        self.trouble = Some(reason);
        Step::Again
    }
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::{Alert, Destination};

    /// How often a message is sent where every attempt fails so.
    fn attempts(failure: &Failure) -> usize {
        let patience = Patience::default();
        let notice = Notice::new(1, Destination::Webhook, Alert::example());
        let mut job = Job::new(notice, false, false, 0, &patience);
        let mut sent = 0;
        while job.given_up(None, job.due_from(0), &patience).is_none() {
            sent += 1;
            job.sent(Err(failure.clone()), false, job.due_ms, &patience);
        }
        sent
    }

    #[test]
    fn an_outage_is_asked_about_each_minute_and_a_doubt_copied_seldom() {
        let reason = "why".to_owned();
        let outage = Failure::Passing { reason: reason.clone(), after: None, outage: true };
        let tries = attempts(&outage);
        assert!((33..=65).contains(&tries), "{tries}");
        let copies = attempts(&Failure::Unknown { reason });
        assert!((8..=12).contains(&copies), "{copies}");
    }
}
