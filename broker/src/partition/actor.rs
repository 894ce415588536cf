//! The one owner of a partition's order: takes batches from the mailbox, and proposes them where
//! this broker leads the partition, or passes them on to the one that does.
//!
//! ```text
//! mailbox ─▶ queue ─▶ way ─┬─ leading:   proposals to the group
//!              ▲           └─ following: a stream to the leader
//!              └── what was refused before it was stored, in its old place
//! ```
//!
//! Order is kept through every change of the leader: there is one way at a time, a new one begins
//! only when all that went the old one is settled, and what comes back goes to the front of the
//! queue. While nobody leads, batches wait in the queue until their time is up.
//!
//! What another broker has passed on goes no further: it is sent back when this broker no longer
//! leads in the term in which the other one was made welcome.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::following::Following;
use super::leading::{Leading, Sequencer, nobody_leads};
use super::machine::Learnt;
use super::parcel::{Parcel, Waiting};
use super::placed::ProduceError;
use super::streams::Streams;
use super::{MAILBOX_BATCHES_MAX, RoutedBatch};
use crate::replication::{GroupId, Peers, Role};

/// Most bytes joined into one parcel: large enough that its costs vanish, small enough that a
/// reader of one record does not read far.
const JOINED_BYTES_MAX: usize = 256 << 10;

/// A parcel of at least this size goes as it is: joining would only copy it. Where many send little more
/// than a half of this each, and each sync is waited for, they are stored half as fast alone.
const ALONE_BYTES: usize = 64 << 10;

/// Pause before the same leader is tried again: one that hands over, or has lost touch with the
/// majority, refuses at once, and does so for as long as an election takes.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// The owner of a partition's order.
pub struct Actor {
    pub(super) group: GroupId,
    pub(super) sequencer: Arc<dyn Sequencer>,
    pub(super) learnt: Arc<Learnt>,
    pub(super) streams: Arc<Streams>,
    pub(super) peers: Arc<Peers>,
    pub(super) roles: watch::Receiver<Role>,
    pub(super) mailbox: mpsc::Receiver<RoutedBatch>,
    pub(super) stop: CancellationToken,
    pub(super) state: State,
}

/// What an actor keeps.
pub(super) struct State {
    queue: VecDeque<Parcel>,
    way: Way,
    /// What this broker is to the group, as it was looked at last.
    role: Role,
    /// The way that ended last, and until when it is not tried again.
    tired: Option<(Role, Instant)>,
    /// The mailbox is closed and empty.
    is_closed: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            way: Way::Nowhere,
            role: Role::Nobody,
            tired: None,
            is_closed: false,
        }
    }
}

/// Where batches go.
#[derive(Default)]
enum Way {
    #[default]
    Nowhere,
    Leading(Leading),
    Following(Following),
}

impl Actor {
    /// Lets records in until it is told to stop and everyone is answered.
    pub async fn run(mut self) {
        loop {
            self.tell_late();
            self.steer();
            self.send().await;
            if self.is_done() {
                return;
            }
            self.wait().await;
        }
    }

    /// Waits until there is something to do.
    async fn wait(&mut self) {
        let due = self.due();
        let State { queue, way, is_closed, .. } = &mut self.state;
        let has_room = !*is_closed && queue.len() < MAILBOX_BATCHES_MAX;
        tokio::select! {
            biased;
            () = way.next() => {}
            Ok(()) = self.roles.changed() => {}
            batch = self.mailbox.recv(), if has_room => match batch {
                Some(batch) => self.take_in(batch.into()),
                None => *is_closed = true,
            },
            // Nothing new from here on; what is in the mailbox was taken in and gets its answer.
            () = self.stop.cancelled(), if !self.mailbox.is_closed() => self.mailbox.close(),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
    }

    /// When something is due that no message brings.
    fn due(&self) -> Option<Instant> {
        let way = match &self.state.way {
            Way::Nowhere => {
                self.state.tired.map(|(_, until)| until).filter(|until| *until > Instant::now())
            }
            Way::Leading(leading) => leading.deadline(),
            Way::Following(following) => following.deadline(),
        };
        // Those behind the first came later, or were put there because their time is not up.
        self.state.queue.front().and_then(Parcel::deadline).into_iter().chain(way).min()
    }

    /// Tells those whose time is up.
    fn tell_late(&mut self) {
        let now = Instant::now();
        match &mut self.state.way {
            Way::Nowhere => {}
            Way::Leading(leading) => leading.tell_late(now),
            Way::Following(following) => following.tell_late(now),
        }
        while let Some(first) = self.state.queue.front()
            && first.deadline().is_none_or(|deadline| deadline <= now)
        {
            let Some(first) = self.state.queue.pop_front() else { break };
            let error = |_: &Waiting| nobody_leads(&*self.sequencer);
            if let Some(left) = first.keep(|waiting| waiting.deadline > now, error) {
                self.state.queue.push_front(left);
            }
        }
    }

    /// Leaves a way that leads nowhere any more, and takes the one that the role tells of.
    fn steer(&mut self) {
        let (role, now) = (*self.roles.borrow_and_update(), Instant::now());
        let ended = match &mut self.state.way {
            Way::Nowhere => false,
            Way::Leading(leading) => {
                if role != Role::Leads(leading.term()) {
                    leading.leave();
                }
                leading.has_ended()
            }
            Way::Following(following) => {
                following.leads(role == Role::Follows(following.leader()), now);
                following.has_ended()
            }
        };
        if ended {
            self.leave(now);
        }
        if std::mem::replace(&mut self.state.role, role) != role {
            self.send_back();
        }
        let is_tired = self.state.tired.is_some_and(|(of, until)| of == role && now < until);
        if matches!(self.state.way, Way::Nowhere) && !is_tired {
            self.state.way = match role {
                Role::Leads(term) => {
                    Way::Leading(Leading::new(term, self.sequencer.clone(), self.learnt.clone()))
                }
                Role::Follows(leader) => {
                    Way::Following(Following::new(&self.peers, self.group, leader, now))
                }
                Role::Nobody => Way::Nowhere,
            };
        }
    }

    /// Takes back what was refused: to the front, where it was.
    fn leave(&mut self, now: Instant) {
        let (role, refused) = match std::mem::take(&mut self.state.way) {
            Way::Nowhere => return,
            Way::Leading(leading) => (Role::Leads(leading.term()), leading.into_refused()),
            Way::Following(following) => {
                (Role::Follows(following.leader()), following.into_refused())
            }
        };
        self.state.tired = Some((role, now + RETRY_PAUSE));
        for parcel in refused.into_iter().rev() {
            let own = parcel.keep(|waiting| waiting.from.is_none(), |other| self.turn_away(other));
            if let Some(own) = own {
                self.state.queue.push_front(own);
            }
        }
    }

    /// Puts a parcel behind those that wait, unless it is another broker's and comes too late.
    fn take_in(&mut self, parcel: Parcel) {
        let role = self.state.role;
        let kept = parcel.keep(|w| self.may_come_in(w, role), |other| self.turn_away(other));
        self.state.queue.extend(kept);
    }

    /// Sends back what others have passed on and can no longer be taken in.
    fn send_back(&mut self) {
        for parcel in std::mem::take(&mut self.state.queue) {
            self.take_in(parcel);
        }
    }

    fn may_come_in(&self, waiting: &Waiting, role: Role) -> bool {
        waiting
            .from
            .is_none_or(|stream| role == Role::Leads(stream.term) && self.streams.is_open(stream))
    }

    /// Why another broker's records are sent back; nothing comes in behind them on their stream.
    fn turn_away(&self, waiting: &Waiting) -> ProduceError {
        if let Some(stream) = waiting.from {
            self.streams.end(stream);
        }
        ProduceError::NotLeader
    }

    /// Sends what waits, as long as the way has room.
    async fn send(&mut self) {
        while self.state.way.has_room() {
            let Some(parcel) = self.gather() else { return };
            match &mut self.state.way {
                Way::Nowhere => return,
                Way::Leading(leading) => leading.send(parcel).await,
                Way::Following(following) => following.send(parcel, Instant::now()),
            }
        }
    }

    /// Joins what waits, as long as it is small.
    fn gather(&mut self) -> Option<Parcel> {
        let (mut parcels, mut bytes) = (Vec::new(), 0);
        while let Some(next) = self.take() {
            let is_large = next.len() >= ALONE_BYTES;
            if !parcels.is_empty() && (is_large || bytes + next.len() > JOINED_BYTES_MAX) {
                self.state.queue.push_front(next);
                break;
            }
            bytes += next.len();
            parcels.push(next);
            if is_large {
                break;
            }
        }
        Parcel::join(parcels)
    }

    /// The next parcel that may go.
    fn take(&mut self) -> Option<Parcel> {
        let role = match &self.state.way {
            Way::Leading(leading) => Role::Leads(leading.term()),
            _ => Role::Nobody,
        };
        loop {
            let next = self.state.queue.pop_front();
            let next = next.or_else(|| self.mailbox.try_recv().ok().map(Parcel::from))?;
            let kept = next.keep(|w| self.may_come_in(w, role), |other| self.turn_away(other));
            if kept.is_some() {
                return kept;
            }
        }
    }

    /// Whether it was told to stop and owes nobody anything.
    fn is_done(&mut self) -> bool {
        if !self.state.is_closed {
            return false;
        }
        match &self.state.way {
            Way::Nowhere => {
                let ending = ProduceError::NotStored("the broker is shutting down".to_owned());
                self.state.queue.drain(..).for_each(|parcel| parcel.refuse(&ending));
                true
            }
            way => self.state.queue.is_empty() && way.owes_nothing(),
        }
    }
}

impl Way {
    /// Waits until something on its way is settled.
    async fn next(&mut self) {
        match self {
            Self::Nowhere => std::future::pending().await,
            Self::Leading(leading) => leading.next().await,
            Self::Following(following) => following.next().await,
        }
    }

    fn has_room(&self) -> bool {
        match self {
            Self::Nowhere => false,
            Self::Leading(leading) => leading.has_room(),
            Self::Following(following) => following.has_room(),
        }
    }

    fn owes_nothing(&self) -> bool {
        match self {
            Self::Nowhere => true,
            Self::Leading(leading) => leading.is_settled() || leading.is_answered(),
            Self::Following(following) => following.is_settled() || following.is_answered(),
        }
    }
}
