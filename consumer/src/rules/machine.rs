//! One topic under one rule: ok → pending → firing → ok.
//!
//! ```text
//!             fire holds                  held for `for`
//!        ok ────────────▶ pending ────────────────────▶ firing ─┐ fire no more, clear not yet:
//!        ▲  fire no more ◀──┘                              │ ▲──┘ still firing (hysteresis)
//!        └─────────────────────────────── clear holds ◀────┘
//! ```
//!
//! Pure: a state, a sample or a tick, and the time in; a state and at most one [`Change`] out.
//! Where a rule has `clear_for`, firing ends only when `clear` held for so long.
//!
//! How long a threshold held is told by the samples' own times, so that a backlog read in one
//! second is judged as it would have been live. Silence is told by the consumer's clock.
//! A sample older than [`LATE_MS`] moves the state but rings no telephone; `told` remembers what
//! the telephone last heard, and the next fresh sample makes up for what it missed.
//!
//! Invariants: `sample_ms` never goes back but with the clock, and is never ahead of it (by a
//! millisecond, after a takeover); a change to firing
//! is at least `for` after the first sample of an unbroken run beyond the limit.

use serde::{Deserialize, Serialize};

use super::condition::{Growth, Measured, Seen};
use super::{Condition, Rule};
use crate::sample::Sample;

/// A sample older than this rings no telephone. Source: monitoring.md.
pub const LATE_MS: u64 = 120_000;

/// Two samples further apart than this (and than the rule's `for`) are no unbroken run: nobody
/// knows what was between. A minute is many times the usual distance of samples.
const GAP_MS_MAX: u64 = 60_000;

/// Where a topic stands under a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "phase")]
pub enum Phase {
    /// All is well.
    #[default]
    Ok,
    /// Beyond the limit, not yet for long enough.
    Pending {
        /// The time of the first sample beyond it.
        since_ms: u64,
    },
    /// In trouble.
    Firing {
        /// When the trouble began.
        since_ms: u64,
        /// When somebody was last told, by the consumer's clock.
        said_ms: u64,
    },
}

/// All that is remembered of a topic under a rule. Times are Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct State {
    /// Where it stands.
    #[serde(flatten)]
    pub phase: Phase,
    /// Whether the telephone last heard that it fires.
    pub told: bool,
    /// The newest sample's own time.
    pub sample_ms: u64,
    /// When the last sample came in.
    pub heard_ms: u64,
    /// The newest sample's number.
    pub value: f64,
    /// The time of the first sample of the run that may end the firing; 0 where there is none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub clear_since_ms: u64,
    /// Whether a reminder was withheld from the telephone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reminder_owed: bool,
    /// How the counter grew, for rules that compare growth.
    #[serde(default, skip_serializing_if = "Growth::is_empty")]
    pub growth: Growth,
}

impl State {
    /// When something was last noted, by the consumer's clock.
    #[must_use]
    pub fn noted_ms(&self) -> u64 {
        match self.phase {
            Phase::Firing { said_ms, .. } => self.heard_ms.max(said_ms),
            _ => self.heard_ms,
        }
    }

    /// The consumer's clock was set by so many milliseconds. Its own moments move with it. Those of
    /// samples do where they would lie ahead of it: all by as much, so that what lasted lasts on.
    pub fn clock_set(&mut self, by_ms: i64, now_ms: u64) {
        self.heard_ms = self.heard_ms.saturating_add_signed(by_ms);
        let ahead_ms = self.sample_ms.saturating_sub(now_ms);
        self.sample_ms -= ahead_ms;
        self.clear_since_ms = self.clear_since_ms.saturating_sub(ahead_ms);
        self.growth.set_back(ahead_ms);
        match &mut self.phase {
            Phase::Ok => {}
            Phase::Pending { since_ms } => *since_ms = since_ms.saturating_sub(ahead_ms),
            Phase::Firing { since_ms, said_ms } => {
                *since_ms = since_ms.saturating_sub(ahead_ms);
                *said_ms = said_ms.saturating_add_signed(by_ms);
            }
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands on references")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// ok → pending.
    Pending,
    /// pending → ok: it did not last.
    Lapsed,
    /// → firing.
    Fired,
    /// Still firing.
    Reminder,
    /// firing → ok.
    Resolved,
}

/// Who is to hear of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Every channel of the rule.
    Everyone,
    /// Only the channels that wake nobody.
    Quiet,
    /// Only the telephone: the others heard it when the sample was late.
    Telephone,
}

/// A change, or a reminder that nothing changed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// What happened.
    pub kind: Kind,
    /// Who is to hear of it.
    pub audience: Audience,
    /// The number that decided: the sample's, or the seconds of silence.
    pub value: f64,
    /// When the trouble began, where that is known.
    pub since_ms: Option<u64>,
    /// When it happened.
    pub at_ms: u64,
    /// Whether the sample was late.
    pub late: bool,
    /// Why, where the sample does not say it.
    pub reason: Option<&'static str>,
}

/// A sample as a rule sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading<'a> {
    /// The sample's own time.
    pub at_ms: u64,
    /// The sample's number, for people.
    pub value: f64,
    /// What the rule compares; `None` for one that looks for silence.
    pub seen: Option<Seen<'a>>,
}

impl<'a> Reading<'a> {
    /// What `rule` sees of a sample; `None` where the sample lacks the field: a container's disk
    /// has no fill level.
    #[must_use]
    pub fn of(rule: &Rule, sample: &'a Sample, now_ms: u64) -> Option<Self> {
        let at_ms = sample.at_ms.unwrap_or(now_ms);
        let (value, seen) = match &rule.condition {
            Condition::Absent { .. } => (sample.value, None),
            Condition::Measured(measured) => match measured.see(sample)? {
                Seen::Number(number) => (number, Some(Seen::Number(number))),
                word @ Seen::Word(_) => (sample.value, Some(word)),
            },
        };
        Some(Self { at_ms, value, seen })
    }
}

/// Judges a sample.
#[must_use]
pub fn on_sample(
    rule: &Rule,
    before: &State,
    reading: Reading<'_>,
    now_ms: u64,
) -> (State, Option<Change>) {
    // A clock that runs ahead at the source must not make its later samples look old.
    let at_ms = reading.at_ms.min(now_ms);
    let mut after = State { heard_ms: now_ms, ..before.clone() };
    if at_ms < before.sample_ms && matches!(rule.condition, Condition::Measured(_)) {
        // Newer samples have spoken already.
        return (after, None);
    }
    after.sample_ms = before.sample_ms.max(at_ms);
    after.value = reading.value;
    let kind = match (&rule.condition, reading.seen) {
        (Condition::Measured(measured), Some(mut seen)) => {
            if let (Some(window_ms), Seen::Number(counter)) = (measured.increase_ms, seen) {
                after.value = after.growth.take(at_ms, counter, window_ms);
                seen = Seen::Number(after.value);
            }
            let gap_ms = at_ms - before.sample_ms;
            let run = Run { at_ms, now_ms, measured, gap_ms };
            run.step(&mut after, measured.fire.holds(seen), measured.clear.holds(seen))
        }
        _ => match std::mem::take(&mut after.phase) {
            Phase::Firing { .. } => Some(Kind::Resolved),
            _ => None,
        },
    };
    after.reminder_owed &= matches!(after.phase, Phase::Firing { .. });
    let late = now_ms.saturating_sub(at_ms) > LATE_MS;
    let heard = hear(before, &mut after, kind, late);
    let change = heard.map(|(kind, audience)| Change {
        kind,
        audience,
        value: after.value,
        since_ms: since(after.phase).or_else(|| since(before.phase)),
        at_ms,
        late,
        reason: None,
    });
    (after, change)
}

/// Ends a topic's standing under a rule, because there is nothing left to judge: the change that
/// people are told of, where it was firing; that it did not last, where it was pending.
#[must_use]
pub fn end(state: &State, reason: &'static str, now_ms: u64) -> Option<Change> {
    let (kind, since_ms) = match state.phase {
        Phase::Ok => return None,
        Phase::Pending { since_ms } => (Kind::Lapsed, since_ms),
        Phase::Firing { since_ms, .. } => (Kind::Resolved, since_ms),
    };
    let loud = state.told && kind == Kind::Resolved;
    Some(Change {
        kind,
        audience: if loud { Audience::Everyone } else { Audience::Quiet },
        value: state.value,
        since_ms: Some(since_ms),
        at_ms: now_ms,
        late: false,
        reason: Some(reason),
    })
}

/// Judges that time has passed. `watching_since_ms` is when the consumer could last not have
/// heard anything: while it is cut off itself, silence means nothing.
#[must_use]
pub fn on_tick(
    rule: &Rule,
    before: &State,
    now_ms: u64,
    watching_since_ms: u64,
) -> (State, Option<Change>) {
    let silent_ms = now_ms.saturating_sub(before.heard_ms);
    let quiet = || (before.clone(), None);
    let (kind, audience, since_ms) = match (&rule.condition, before.phase) {
        (Condition::Absent { after_ms }, Phase::Ok | Phase::Pending { .. }) => {
            let unheard_ms = now_ms.saturating_sub(before.heard_ms.max(watching_since_ms));
            if unheard_ms < *after_ms {
                return quiet();
            }
            (Kind::Fired, Audience::Everyone, before.heard_ms)
        }
        // What was withheld from the telephone: no sample will come to make up for it.
        (Condition::Absent { .. }, Phase::Firing { since_ms, .. }) if !before.told => {
            (Kind::Fired, Audience::Telephone, since_ms)
        }
        (condition, Phase::Firing { since_ms, said_ms }) => {
            // A threshold whose topic is silent is not known to last: no reminder then.
            let known = matches!(condition, Condition::Absent { .. })
                || now_ms.saturating_sub(before.sample_ms) <= LATE_MS;
            let due = rule.repeat_ms.is_some_and(|repeat| now_ms.saturating_sub(said_ms) >= repeat);
            let audience = match (known, due) {
                // Who was not told yet is not reminded: the next fresh sample makes up for it.
                (true, true) if !before.told => Audience::Quiet,
                (true, true) => Audience::Everyone,
                (true, false) if before.reminder_owed => Audience::Telephone,
                _ => return quiet(),
            };
            (Kind::Reminder, audience, since_ms)
        }
        (Condition::Measured(_), _) => return quiet(),
    };
    let mut after = State { reminder_owed: false, ..before.clone() };
    let said_ms = match (kind, audience, before.phase) {
        // What makes up for one does not put off the next.
        (Kind::Reminder, Audience::Telephone, Phase::Firing { said_ms, .. }) => said_ms,
        _ => now_ms,
    };
    after.phase = Phase::Firing { since_ms, said_ms };
    after.told |= kind == Kind::Fired;
    let value = match rule.condition {
        Condition::Measured(_) => before.value,
        Condition::Absent { .. } => (silent_ms / 1000) as f64,
    };
    let change = Change {
        kind,
        audience,
        value,
        since_ms: Some(since_ms),
        at_ms: now_ms,
        late: false,
        reason: None,
    };
    (after, Some(change))
}

/// What a sample of a measured topic is judged by.
struct Run<'a> {
    at_ms: u64,
    now_ms: u64,
    measured: &'a Measured,
    gap_ms: u64,
}

impl Run<'_> {
    fn step(&self, state: &mut State, fires: bool, clears: bool) -> Option<Kind> {
        let Measured { for_ms, clear_for_ms, .. } = *self.measured;
        let firing = |since_ms| Phase::Firing { since_ms, said_ms: self.now_ms };
        let before = state.phase;
        let (phase, kind) = match before {
            Phase::Ok if fires && for_ms == 0 => (firing(self.at_ms), Some(Kind::Fired)),
            Phase::Ok if fires => (Phase::Pending { since_ms: self.at_ms }, Some(Kind::Pending)),
            Phase::Pending { .. } if !fires => (Phase::Ok, Some(Kind::Lapsed)),
            Phase::Pending { .. } if !self.unbroken(for_ms) => {
                (Phase::Pending { since_ms: self.at_ms }, None)
            }
            Phase::Pending { since_ms } if self.at_ms - since_ms >= for_ms => {
                (firing(since_ms), Some(Kind::Fired))
            }
            Phase::Firing { .. } if clears && self.is_clear_for_long(state, clear_for_ms) => {
                (Phase::Ok, Some(Kind::Resolved))
            }
            phase => (phase, None),
        };
        if !clears || kind == Some(Kind::Resolved) {
            state.clear_since_ms = 0;
        }
        state.phase = phase;
        kind
    }

    /// Notes that this sample is clear; whether all have been for long enough.
    fn is_clear_for_long(&self, state: &mut State, clear_for_ms: u64) -> bool {
        if state.clear_since_ms == 0 || !self.unbroken(clear_for_ms) {
            state.clear_since_ms = self.at_ms;
        }
        self.at_ms - state.clear_since_ms >= clear_for_ms
    }

    fn unbroken(&self, duration_ms: u64) -> bool {
        self.gap_ms <= GAP_MS_MAX.max(duration_ms)
    }
}

/// Who hears of what a sample did, and what the telephone then knows.
fn hear(
    before: &State,
    after: &mut State,
    kind: Option<Kind>,
    late: bool,
) -> Option<(Kind, Audience)> {
    let firing = matches!(after.phase, Phase::Firing { .. });
    match kind {
        Some(kind @ (Kind::Pending | Kind::Lapsed)) => Some((kind, Audience::Quiet)),
        Some(kind) if late => Some((kind, Audience::Quiet)),
        // The telephone never heard of the trouble: it need not hear of its end.
        Some(Kind::Resolved) if !before.told => Some((Kind::Resolved, Audience::Quiet)),
        Some(kind) => {
            after.told = firing;
            Some((kind, Audience::Everyone))
        }
        None if late || firing == before.told || matches!(after.phase, Phase::Pending { .. }) => {
            None
        }
        None => {
            after.told = firing;
            Some((if firing { Kind::Fired } else { Kind::Resolved }, Audience::Telephone))
        }
    }
}

const fn since(phase: Phase) -> Option<u64> {
    match phase {
        Phase::Ok => None,
        Phase::Pending { since_ms } | Phase::Firing { since_ms, .. } => Some(since_ms),
    }
}
