//! The one task of a channel that talks to its carrier.
//!
//! ```text
//! engine ──notice──▶ bounded queue ──▶ Sender ──(rate limit, circuit breaker)──▶ carrier
//!    ▲                                   │  jobs: send, ask first, follow up
//!    └── Accepted, HeldUp, Delivered, Dead ◀─┘
//! ```
//!
//! Each notice is a [`job`]: a small machine that says what to do after each answer. The task
//! works on one job at a time, the earliest due first, and is never waited for by the consuming.
//! Messages about one alert to one recipient go in their order.
//!
//! What a carrier in trouble does not take for a while is reported as held up, so that another
//! channel tells it; it is tried on until it is too old to be news.
//!
//! Limits: 256 jobs at once, the rest waits in the queue in front; so many messages a
//! minute as are set; nothing at all while the circuit breaker is open. The order of checks is
//! age, breaker, rate limit, and the timeout of the single request.

pub mod breaker;
pub mod job;
pub mod patience;

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::time::Duration;

use aklight_common::clock::SharedClock;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::mpsc;
use tracing::{info, warn};

use self::breaker::Breaker;
use self::job::{Job, Stage, Step, milliseconds};
pub use self::patience::Patience;
use super::carrier::{Carrier, Failure, Letter};
use crate::alerts::Notice;
use crate::alerts::memory::NOTICES_MAX;

/// Most jobs at once: as many as the memory keeps notices.
const JOBS_MAX: usize = NOTICES_MAX;

/// Messages that may go out at once before the rate limit spaces them.
const BURST: u32 = 5;

/// A notice to be sent.
#[derive(Debug)]
pub struct Order {
    /// The notice.
    pub notice: Notice,
    /// Whether an earlier run may have sent it already.
    pub maybe_sent: bool,
}

/// What became of a notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The carrier has it, and can be asked what became of it.
    Accepted {
        /// Which.
        id: u64,
        /// The carrier's name for it.
        sid: String,
    },
    /// It does not get through for now, and is tried on.
    HeldUp {
        /// Which.
        id: u64,
        /// Why.
        reason: String,
    },
    /// It is done, as far as can be known.
    Delivered {
        /// Which.
        id: u64,
        /// Whether it is known to have arrived, and not only to have been taken.
        arrived: bool,
    },
    /// It is given up.
    Dead {
        /// Which.
        id: u64,
        /// Why.
        reason: String,
    },
}

/// Works off orders.
pub struct Sender {
    consumer: String,
    carrier: Carrier,
    patience: Patience,
    clock: SharedClock,
    limiter: DefaultDirectRateLimiter,
    breaker: Breaker,
    jobs: Vec<Job>,
    /// Nothing is sent before this moment: the rate limit, or the carrier's wish.
    paused_until_ms: u64,
    /// Why the carrier takes nothing at this time.
    trouble: Option<String>,
    /// Recipients to whom only templates pass, as logs show them; no more than there are.
    outside_window: HashSet<String>,
}

impl Sender {
    /// For the consumer of that name, whose name is part of each message's reference.
    #[must_use]
    pub fn new(consumer: &str, carrier: Carrier, patience: Patience, clock: SharedClock) -> Self {
        let per_minute = NonZeroU32::new(carrier.per_minute()).unwrap_or(NonZeroU32::MIN);
        let burst = NonZeroU32::new(BURST).unwrap_or(NonZeroU32::MIN);
        Self {
            consumer: consumer.to_owned(),
            limiter: RateLimiter::direct(Quota::per_minute(per_minute).allow_burst(burst)),
            breaker: Breaker::new(
                patience.breaker_failures,
                patience.breaker_open,
                patience.breaker_open_max,
            ),
            carrier,
            patience,
            clock,
            jobs: Vec::new(),
            paused_until_ms: 0,
            trouble: None,
            outside_window: HashSet::new(),
        }
    }

    /// Works until `orders` ends and every job is done, or nobody listens to `events` any more.
    pub async fn run(mut self, mut orders: mpsc::Receiver<Order>, events: mpsc::Sender<Event>) {
        let mut ended = false;
        loop {
            while !ended && self.jobs.len() < JOBS_MAX {
                match orders.try_recv() {
                    Ok(order) => self.take(order),
                    Err(mpsc::error::TryRecvError::Empty) => break,
                    Err(mpsc::error::TryRecvError::Disconnected) => ended = true,
                }
            }
            if ended && self.jobs.is_empty() {
                return;
            }
            let now_ms = self.clock.monotonic_ms();
            if self.report_held_up(now_ms, &events).await.is_err() {
                return;
            }
            let next = self.next_due(now_ms);
            if let Some((at, due_ms)) = next
                && due_ms <= now_ms
            {
                let job = self.jobs.remove(at);
                if self.work(job, &events).await.is_err() {
                    return;
                }
                continue;
            }
            let held_up = self.jobs.iter().filter_map(|job| job.held_up_ms);
            let wakes =
                held_up.filter(|at_ms| *at_ms > now_ms).chain(next.map(|(_, due_ms)| due_ms));
            let wait = wakes.min().map(|at_ms| Duration::from_millis(at_ms - now_ms));
            let has_room = !ended && self.jobs.len() < JOBS_MAX;
            tokio::select! {
                order = orders.recv(), if has_room => match order {
                    Some(order) => self.take(order),
                    None => ended = true,
                },
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
                () = events.closed() => return,
            }
        }
    }

    fn take(&mut self, Order { notice, maybe_sent }: Order) {
        let now_ms = self.clock.monotonic_ms();
        let looks_up = self.carrier.looks_up();
        let mut job = Job::new(notice, maybe_sent, looks_up, now_ms, &self.patience);
        let before = self.jobs.iter().filter(|other| other.is_untold() && job.follows(other));
        job.behind = before.map(|other| other.notice.id).collect();
        self.jobs.push(job);
    }

    /// The messages before a job that nobody has yet.
    fn before<'a>(&'a self, job: &'a Job) -> impl Iterator<Item = &'a Job> {
        let untold = self.jobs.iter().filter(|other| other.is_untold());
        untold.filter(|other| job.behind.contains(&other.notice.id))
    }

    /// Says of each message that is held up, once, that it is.
    async fn report_held_up(
        &mut self,
        now_ms: u64,
        events: &mpsc::Sender<Event>,
    ) -> Result<(), Gone> {
        for at in 0..self.jobs.len() {
            let job = &self.jobs[at];
            let waits = job.is_untold() && job.held_up_ms.is_some_and(|at_ms| at_ms <= now_ms);
            let trouble = || {
                let mut of_jobs = std::iter::once(job).chain(self.before(job));
                of_jobs.find_map(|job| job.trouble.as_ref()).or(self.trouble.as_ref()).cloned()
            };
            if let Some(reason) = waits.then(trouble).flatten() {
                self.jobs[at].held_up_ms = None;
                tell(events, Event::HeldUp { id: self.jobs[at].notice.id, reason }).await?;
            }
        }
        Ok(())
    }

    /// The place of the job that is due first, and when that is.
    fn next_due(&self, now_ms: u64) -> Option<(usize, u64)> {
        let allowed_ms = self.breaker.allowed_from(now_ms);
        let dues =
            self.jobs.iter().enumerate().filter(|(_, job)| self.before(job).next().is_none());
        let dues = dues.map(|(at, job)| {
            let paused_ms = if job.stage == Stage::Send { self.paused_until_ms } else { 0 };
            (job.due_from(allowed_ms.max(paused_ms)), job.notice.id, at)
        });
        dues.min().map(|(due_ms, _, at)| (at, due_ms))
    }

    /// One request for one job. An error when nobody listens any more.
    async fn work(&mut self, mut job: Job, events: &mpsc::Sender<Event>) -> Result<(), Gone> {
        let now_ms = self.clock.monotonic_ms();
        let id = job.notice.id;
        if let Some(reason) = job.given_up(self.trouble.as_deref(), now_ms, &self.patience) {
            return tell(events, Event::Dead { id, reason }).await;
        }
        if job.stage == Stage::Send
            && let Err(not_yet) = self.limiter.check()
        {
            let wait = not_yet.wait_time_from(DefaultClock::default().now());
            self.paused_until_ms = now_ms + milliseconds(wait) + 1;
            self.jobs.push(job);
            return Ok(());
        }
        let step = self.request(&mut job).await;
        let sid = match &job.stage {
            Stage::Follow { sid, .. } if job.notice.sid.as_ref() != Some(sid) => Some(sid.clone()),
            _ => None,
        };
        match step {
            Step::Again => {
                if let Some(sid) = sid {
                    job.notice.sid = Some(sid.clone());
                    tell(events, Event::Accepted { id, sid }).await?;
                }
                self.jobs.push(job);
                Ok(())
            }
            Step::Delivered { arrived } => tell(events, Event::Delivered { id, arrived }).await,
            Step::Dead { reason } => tell(events, Event::Dead { id, reason }).await,
        }
    }

    async fn request(&mut self, job: &mut Job) -> Step {
        let notice = job.notice.clone();
        let to = notice.destination.shown();
        let reference = notice.reference(&self.consumer);
        let letter = Letter { notice: &notice, consumer: &self.consumer, reference: &reference };
        let has_template = self.carrier.has_template();
        job.template |= has_template && self.outside_window.contains(&to);
        let patience = &self.patience;
        let (step, failure) = match job.stage.clone() {
            Stage::Send => {
                let answer = self.carrier.send(letter, job.template).await;
                let failure = answer.as_ref().err().cloned();
                (job.sent(answer, has_template, self.clock.monotonic_ms(), patience), failure)
            }
            Stage::Ask => {
                let answer = self.carrier.find(letter).await;
                let failure = answer.as_ref().err().cloned();
                (job.looked_up(answer, has_template, self.clock.monotonic_ms(), patience), failure)
            }
            Stage::Follow { sid, .. } => {
                let answer = self.carrier.status(&sid).await;
                let failure = match &answer {
                    Ok(fate) => fate.as_ref().err().cloned(),
                    Err(failure) => Some(failure.clone()),
                };
                (job.followed(answer, has_template, self.clock.monotonic_ms(), patience), failure)
            }
        };
        if job.template {
            self.outside_window.insert(to.clone());
        }
        self.note(&to, failure.as_ref(), &step);
        step
    }

    /// Keeps breaker, trouble and log up to date.
    fn note(&mut self, to: &str, failure: Option<&Failure>, step: &Step) {
        let now_ms = self.clock.monotonic_ms();
        let outage = matches!(
            failure,
            Some(Failure::Unknown { .. } | Failure::Passing { outage: true, .. })
        );
        let passes = matches!(failure, Some(Failure::Unknown { .. } | Failure::Passing { .. }));
        self.trouble = failure.filter(|_| passes).map(ToString::to_string);
        if let Some(failure) = failure {
            let again = *step == Step::Again;
            let channel = self.carrier.channel().as_str();
            warn!(channel, to, reason = %failure, again, "a message did not go through");
        }
        if let Some(Failure::Passing { after: Some(after), .. }) = failure {
            self.paused_until_ms = now_ms + milliseconds(*after);
        }
        if !outage {
            if self.breaker.success() {
                info!("{} answers again", self.carrier.name());
            }
        } else if let Some(open) = self.breaker.failure(now_ms) {
            warn!(
                seconds = open.as_secs_f64(),
                "{} fails again and again: leaving it alone for a while",
                self.carrier.name()
            );
        }
    }
}

/// Nobody listens any more.
struct Gone;

async fn tell(events: &mpsc::Sender<Event>, event: Event) -> Result<(), Gone> {
    events.send(event).await.map_err(|_| Gone)
}
