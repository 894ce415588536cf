//! Where messages of other brokers come in: every envelope is read here, and nowhere else.
//!
//! A message does something only if it is for this broker, of this cluster, of a version that is
//! understood, about a group that is here, and from nobody who was removed from it. All else is refused
//! with the reason, which shows in the sender's log.

use std::collections::BTreeMap;
use std::sync::Arc;

use aklight_common::BrokerId;
use aklight_log::Log;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, stream};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::faults::{Fault, Faults};
use super::forming::Joining;
use super::pulse::{BrokerStatus, Pulse};
use crate::partition::Partitions;
use crate::replication::{
    Answers, Envelope, Group, GroupId, Kind, PeerError, PeerHandler, WIRE_VERSION,
    committed_entries,
};
use crate::sessions::{Sessions, Standing};

/// Opens messages of other brokers. Built first, filled as the broker's parts come up.
pub struct Door {
    me: BrokerId,
    faults: Arc<Faults>,
    rooms: RwLock<Rooms>,
}

/// What messages can be about, as far as it is there.
#[derive(Default)]
struct Rooms {
    cluster: String,
    joining: Option<Arc<Joining>>,
    groups: BTreeMap<GroupId, Copy>,
    partitions: Option<Arc<Partitions>>,
    sessions: Option<Arc<Sessions>>,
    pulse: Option<Arc<Pulse>>,
}

/// This broker's copy of a group.
#[derive(Clone)]
enum Copy {
    /// It takes no part yet; others may read what is known to be committed of it.
    Resting { log: Log, committed: u64 },
    /// It takes part.
    Running(Group),
}

/// Which entries are asked for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct EntriesWanted {
    pub(super) from: u64,
    pub(super) to: u64,
}

/// Whom a group shall be led by.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct MoveLeader {
    pub(super) to: u64,
}

impl Door {
    /// A door behind which nothing is yet.
    #[must_use]
    pub fn new(me: BrokerId, faults: Arc<Faults>) -> Self {
        Self { me, faults, rooms: RwLock::default() }
    }

    /// What is broken on purpose.
    #[must_use]
    pub fn faults(&self) -> &Arc<Faults> {
        &self.faults
    }

    /// From now on messages of this cluster come in.
    pub fn set_cluster(&self, cluster: &str) {
        cluster.clone_into(&mut self.rooms.write().cluster);
    }

    /// From now on others can ask who this broker is.
    pub fn set_joining(&self, joining: Arc<Joining>) {
        self.rooms.write().joining = Some(joining);
    }

    /// A copy is open; what is before `committed` may be read by others.
    pub fn rest(&self, id: GroupId, log: Log, committed: u64) {
        self.rooms.write().groups.insert(id, Copy::Resting { log, committed });
    }

    /// A copy takes part.
    pub fn run(&self, group: Group) {
        self.rooms.write().groups.insert(group.id(), Copy::Running(group));
    }

    /// Records of other brokers find their partitions.
    pub fn set_partitions(&self, partitions: Arc<Partitions>) {
        self.rooms.write().partitions = Some(partitions);
    }

    /// The metadata is there.
    pub fn set_sessions(&self, sessions: Arc<Sessions>) {
        self.rooms.write().sessions = Some(sessions);
    }

    /// Others can ask how this broker is.
    pub fn set_pulse(&self, pulse: Arc<Pulse>) {
        self.rooms.write().pulse = Some(pulse);
    }

    /// The cluster that this broker is of; empty as long as it is of none.
    pub(super) fn cluster(&self) -> String {
        self.rooms.read().cluster.clone()
    }

    /// What this broker knows of the standing of another.
    pub(super) fn standing(&self, broker: BrokerId, incarnation: &str) -> Standing {
        let sessions = self.rooms.read().sessions.clone();
        sessions.map_or(Standing::Undecided, |sessions| {
            sessions.metadata().standing(broker, incarnation)
        })
    }

    /// Whether another broker votes in some group, as far as is known here. Without a word of the
    /// groups' leaders it may.
    pub(super) fn counts_on(&self, broker: BrokerId) -> bool {
        let pulse = self.rooms.read().pulse.clone();
        pulse.is_none_or(|pulse| pulse.counts_on(broker))
    }

    /// Who is there, for a broker that wants to join.
    pub(super) fn sessions(&self) -> Option<Arc<Sessions>> {
        self.rooms.read().sessions.clone()
    }

    /// Reads the envelope: what it is about, or why it does nothing.
    fn open(&self, message: &Envelope) -> Result<(GroupId, Kind), PeerError> {
        let refuse = |text: String| Err(PeerError::Refused(text));
        if message.to != self.me.0 {
            return refuse(format!(
                "this is broker {}, and the message is for broker {}: do two brokers' addresses (--peers) lead to one?",
                self.me, message.to
            ));
        }
        if message.version.abs_diff(WIRE_VERSION) > 1 {
            return refuse(format!(
                "broker {} speaks version {} and this one {WIRE_VERSION}: upgrade one release at a time",
                message.from, message.version
            ));
        }
        let Some(kind) = Kind::from_number(message.kind) else {
            return refuse(format!("this release knows no message of kind {}", message.kind));
        };
        let rooms = self.rooms.read();
        let id = GroupId::from_number(message.group);
        let may_be_strange = matches!(kind, Kind::Hello | Kind::Form);
        if message.cluster != rooms.cluster && !may_be_strange {
            return refuse(if rooms.cluster.is_empty() {
                format!("broker {} is of no cluster yet", self.me)
            } else {
                format!("broker {} is of cluster {}", self.me, rooms.cluster)
            });
        }
        drop(rooms);
        if !self.hears(message.from, id, kind) {
            return refuse(format!("broker {} was removed from the cluster", message.from));
        }
        if self.faults.cut_off() && kind != Kind::Fault {
            return Err(PeerError::Unreachable("broken on purpose (aklight fault)".to_owned()));
        }
        Ok((id, kind))
    }

    /// Whether a broker is heard in a group. One that was removed is, as long as its vote counts there:
    /// of two voters the other could be elected against it by nobody. And it may ask who it is, and
    /// how others are.
    fn hears(&self, from: u64, id: GroupId, kind: Kind) -> bool {
        let from = BrokerId(from);
        matches!(kind, Kind::Hello | Kind::Form | Kind::Status)
            || self.standing(from, "") != Standing::Retired
            || self.group(id).is_ok_and(|group| group.voters().contains(&from))
    }

    fn copy(&self, id: GroupId) -> Result<Copy, PeerError> {
        let copy = self.rooms.read().groups.get(&id).cloned();
        copy.ok_or_else(|| PeerError::Refused(format!("{id} is not open here yet")))
    }

    fn group(&self, id: GroupId) -> Result<Group, PeerError> {
        match self.copy(id)? {
            Copy::Running(group) => Ok(group),
            Copy::Resting { .. } => {
                Err(PeerError::Refused(format!("the copy of {id} here is being mended")))
            }
        }
    }

    fn entries(&self, id: GroupId, body: &[u8]) -> Result<Bytes, PeerError> {
        let EntriesWanted { from, to } = from_json(body)?;
        match self.copy(id)? {
            Copy::Running(group) => group.committed_entries(from, to),
            Copy::Resting { log, committed } => committed_entries(&log, committed, from, to),
        }
    }

    fn break_or_mend(&self, body: &[u8]) -> Result<Bytes, PeerError> {
        let fault: Option<Fault> = from_json(body)?;
        if !self.faults.allowed() {
            return Err(PeerError::Refused(not_allowed(self.me)));
        }
        match fault {
            Some(fault) => tracing::warn!(%fault, "broken on purpose"),
            None => tracing::warn!("mended: no fault any more"),
        }
        self.faults.set(fault);
        Ok(Bytes::new())
    }

    async fn answer(self: Arc<Self>, message: Envelope) -> Result<Bytes, PeerError> {
        let (id, kind) = self.open(&message)?;
        match kind {
            Kind::Hello | Kind::Form => {
                let joining = self.rooms.read().joining.clone();
                let joining = joining
                    .ok_or_else(|| PeerError::Refused("this broker is starting".to_owned()))?;
                joining.answer(&self, kind, BrokerId(message.from), &message.body).await
            }
            Kind::Fault => self.break_or_mend(&message.body),
            Kind::Entries => self.entries(id, &message.body),
            Kind::Status => {
                let pulse = self.rooms.read().pulse.clone();
                let pulse = pulse
                    .ok_or_else(|| PeerError::Refused("this broker is starting".to_owned()))?;
                let removed = self.standing(BrokerId(message.from), "") == Standing::Retired;
                to_json(&BrokerStatus { removed, ..pulse.own() })
            }
            Kind::MoveLeader => {
                let MoveLeader { to } = from_json(&message.body)?;
                let moved = self.group(id)?.transfer_to(BrokerId(to)).await;
                moved.map(|()| Bytes::new()).map_err(|e| PeerError::Refused(e.to_string()))
            }
            _ => self.group(id)?.handle(kind, message.body).await,
        }
    }

    fn answer_stream(
        self: &Arc<Self>,
        first: &Envelope,
        messages: BoxStream<'static, Envelope>,
    ) -> Result<Answers, PeerError> {
        let (id, kind) = self.open(first)?;
        let same = Envelope { body: Bytes::new(), ..first.clone() };
        let door = self.clone();
        // Every message of a stream is looked at: one that is about something else ends it, and so
        // does its sender's removal, once the group goes on without it.
        let bodies = messages
            .scan((), move |(), message| {
                let is_same = Envelope { body: Bytes::new(), ..message.clone() } == same;
                let is_welcome =
                    is_same && !door.faults.cut_off() && door.hears(message.from, id, kind);
                std::future::ready(is_welcome.then_some(message.body))
            })
            .boxed();
        match (kind, id) {
            (Kind::Produce, GroupId::Partition(partition)) => {
                let partitions = self.rooms.read().partitions.clone();
                let partition = partitions.as_ref().and_then(|all| all.get(partition));
                let partition = partition.ok_or_else(|| {
                    PeerError::Refused(format!("{id} does not take records here yet"))
                })?;
                Ok(partition.serve_forwarded(BrokerId(first.from), bodies))
            }
            _ => Ok(self.group(id)?.handle_stream(kind, bodies)),
        }
    }
}

/// A door that messages can be handed to.
pub struct Opened(pub Arc<Door>);

impl PeerHandler for Opened {
    fn call(&self, message: Envelope) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        self.0.clone().answer(message).boxed()
    }

    fn stream(&self, messages: BoxStream<'static, Envelope>) -> Answers {
        let door = self.0.clone();
        let answers = async move {
            let mut messages = messages.peekable();
            let first = std::pin::Pin::new(&mut messages).peek().await.cloned();
            let answers = match first {
                None => return stream::empty().boxed(),
                Some(first) => door.answer_stream(&first, messages.boxed()),
            };
            answers.unwrap_or_else(|error| stream::iter([Err(error)]).boxed())
        };
        answers.flatten_stream().boxed()
    }
}

/// What a broker says that is not to be broken.
#[must_use]
pub fn not_allowed(broker: BrokerId) -> String {
    format!("broker {broker} is not to be broken on purpose: start it with --allow-faults")
}

pub(super) fn to_json(value: &impl Serialize) -> Result<Bytes, PeerError> {
    let bytes = serde_json::to_vec(value).map_err(|e| PeerError::Refused(e.to_string()))?;
    Ok(bytes.into())
}

pub(super) fn from_json<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T, PeerError> {
    serde_json::from_slice(bytes)
        .map_err(|error| PeerError::Refused(format!("a message does not decode: {error}")))
}
