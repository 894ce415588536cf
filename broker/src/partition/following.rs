//! A partition's batches where another broker leads it: passed on to it, and answered by it.
//!
//! ```text
//! hello ──▶ leader        what was sent is answered in its order; several are on their way
//!       ◀── welcome       not the leader: that batch and all behind it are not stored
//! batch ──▶               the stream breaks: whether what was on its way is stored is not known
//!       ◀── placed
//! ```
//!
//! One of these is one stream. It ends when it breaks, when the leader sends something back, or
//! when another broker leads: then what is on its way has [`LEAVE_WAIT`] to be answered, because a
//! leader that has just handed over still answers, and one that has died never does. Nothing goes
//! elsewhere before. What is in doubt is never sent again: that is the client's decision, and its
//! PRODUCE_ONCE makes it safe.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use aklight_common::BrokerId;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::leading::in_doubt;
use super::parcel::Parcel;
use super::passing::{Batch, Message, Said};
use super::placed::ProduceError;
use crate::replication::{Answers, GroupId, Kind, PeerError, Peers};

/// Batches on their way to a leader at once: enough to fill a line of some milliseconds while the
/// leader syncs.
const BATCHES_MAX: usize = 16;

/// Bytes on their way to a leader at once; one batch always fits. A gigabit line carries as much in
/// 30 ms, longer than a leader takes to answer.
const BYTES_MAX: usize = 4 << 20;

/// Longest wait for a leader to say that it takes batches. A broker in the same network answers
/// within milliseconds; one that does not is asked again, and may have changed its mind.
const WELCOME_WAIT: Duration = Duration::from_secs(1);

/// How long a leader that leads no more may still answer for what is on its way.
const LEAVE_WAIT: Duration = Duration::from_millis(500);

/// A leader that does not answer for so long is asked over a new stream: it answers for each batch
/// within half of that, if only to say that it does not know.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// A parcel on its way.
struct Flight {
    parcel: Parcel,
    sent: Instant,
}

enum Stage {
    Connecting(BoxFuture<'static, Result<Answers, PeerError>>),
    Greeting(Answers),
    Open(Answers),
    Ended,
}

/// A stream to the leader of a partition.
pub(super) struct Following {
    leader: BrokerId,
    stage: Stage,
    bodies: mpsc::Sender<Bytes>,
    begun: Instant,
    flights: VecDeque<Flight>,
    bytes: usize,
    /// What the leader sent back.
    refused: Vec<Parcel>,
    /// When it ends, since the leader leads no more.
    leave_at: Option<Instant>,
}

impl Following {
    pub(super) fn new(peers: &Arc<Peers>, group: GroupId, leader: BrokerId, now: Instant) -> Self {
        // The hello and all that may be on its way fit: sending never waits.
        let (bodies, mut queued) = mpsc::channel(BATCHES_MAX + 1);
        let hello = bodies.try_send(Message::Hello.encode());
        debug_assert!(hello.is_ok(), "an empty channel takes it");
        let peers = peers.clone();
        let connect = async move {
            let bodies = stream::poll_fn(move |cx| queued.poll_recv(cx)).boxed();
            peers.stream(leader, group, Kind::Produce, bodies, WELCOME_WAIT).await
        };
        Self {
            leader,
            stage: Stage::Connecting(Box::pin(connect)),
            bodies,
            begun: now,
            flights: VecDeque::new(),
            bytes: 0,
            refused: Vec::new(),
            leave_at: None,
        }
    }

    pub(super) const fn leader(&self) -> BrokerId {
        self.leader
    }

    pub(super) fn has_room(&self) -> bool {
        matches!(self.stage, Stage::Open(_))
            && self.leave_at.is_none()
            && self.flights.len() < BATCHES_MAX
            && (self.bytes < BYTES_MAX || self.flights.is_empty())
    }

    /// Whether nothing is on its way.
    pub(super) fn is_settled(&self) -> bool {
        self.flights.is_empty()
    }

    /// Whether nobody waits for what is on its way.
    pub(super) fn is_answered(&self) -> bool {
        self.flights.iter().all(|flight| flight.parcel.is_answered()) && self.refused.is_empty()
    }

    /// Whether it has ended, and nothing is on its way any more.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Ended)
    }

    /// What was sent back and may go elsewhere, once it has ended.
    pub(super) fn into_refused(self) -> Vec<Parcel> {
        self.refused
    }

    /// Learns whether the broker still leads, as far as this one knows.
    pub(super) fn leads(&mut self, leads: bool, now: Instant) {
        if leads {
            self.leave_at = None;
        } else if self.flights.is_empty() {
            self.end("");
        } else {
            self.leave_at.get_or_insert(now + LEAVE_WAIT);
        }
    }

    /// Passes a parcel on.
    pub(super) fn send(&mut self, parcel: Parcel, now: Instant) {
        let batch = Batch { body: parcel.body.clone(), once: parcel.once };
        self.bytes += parcel.len();
        if self.bodies.try_send(Message::Batch(batch).encode()).is_err() {
            // The other end of the channel went with the stream; it did not take this one.
            self.refused.push(parcel);
            return self.end("the stream to the leader broke");
        }
        self.flights.push_back(Flight { parcel, sent: now });
    }

    /// Waits for the next answer, and tells those who wait for it. Losing the wait loses nothing.
    pub(super) async fn next(&mut self) {
        let answer = match &mut self.stage {
            Stage::Connecting(connecting) => match connecting.await {
                Ok(answers) => return self.stage = Stage::Greeting(answers),
                Err(error) => Some(Err(error)),
            },
            Stage::Greeting(answers) | Stage::Open(answers) => answers.next().await,
            Stage::Ended => return std::future::pending().await,
        };
        let said = match answer {
            Some(Ok(answer)) => Said::decode(answer).map_err(|error| error.to_string()),
            Some(Err(error)) => Err(format!("broker {}, which leads, {error}", self.leader)),
            None => Err("the stream to the leader broke".to_owned()),
        };
        match said {
            Ok(said) => self.take(said),
            Err(why) => self.end(&why),
        }
    }

    fn take(&mut self, said: Said) {
        match (said, std::mem::replace(&mut self.stage, Stage::Ended)) {
            (Said::Welcome, Stage::Greeting(answers)) => self.stage = Stage::Open(answers),
            (Said::Batch(result), Stage::Open(answers)) => {
                let Some(Flight { parcel, .. }) = self.flights.pop_front() else { return };
                self.bytes -= parcel.len();
                match result {
                    Err(ProduceError::NotLeader) => {
                        self.refused.push(parcel);
                        let behind = self.flights.drain(..).map(|flight| flight.parcel);
                        self.refused.extend(behind);
                        return;
                    }
                    Err(error) => parcel.refuse(&error),
                    Ok(placed) => parcel.placed(&placed),
                }
                self.stage = Stage::Open(answers);
            }
            // It does not lead, or says what makes no sense here: nothing is taken from it.
            _ => self.end("the leader's answer makes no sense"),
        }
    }

    /// Ends the stream; what is on its way is in doubt.
    fn end(&mut self, why: &str) {
        self.stage = Stage::Ended;
        for flight in self.flights.drain(..) {
            flight.parcel.refuse(&in_doubt(why));
        }
    }

    /// When something is due that no answer brings.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let flights = self.flights.iter().filter_map(|flight| flight.parcel.deadline());
        let silent = self.flights.front().map(|flight| flight.sent + SILENCE_MAX);
        let welcome = (!matches!(self.stage, Stage::Open(_) | Stage::Ended))
            .then_some(self.begun + WELCOME_WAIT);
        flights.chain(silent).chain(welcome).chain(self.leave_at).min()
    }

    /// Tells those whose time is up, and ends when the leader says nothing.
    pub(super) fn tell_late(&mut self, now: Instant) {
        let doubt = in_doubt("the leader of the partition does not answer within the time limit");
        for flight in &mut self.flights {
            flight.parcel.tell_late(now, &doubt);
        }
        let is_open = matches!(self.stage, Stage::Open(_));
        if !is_open && self.begun + WELCOME_WAIT <= now
            || self.flights.front().is_some_and(|flight| flight.sent + SILENCE_MAX <= now)
            || self.leave_at.is_some_and(|leave_at| leave_at <= now)
        {
            self.end("the leader of the partition does not answer");
        }
    }
}
