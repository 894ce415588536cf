//! What other brokers say to a group of this one.
//!
//! The envelope was checked: the message is for this broker, this cluster and this group. What
//! does not decode is refused.

use aklight_common::RaftIndex;
use aklight_log::Log;
use bytes::{Bytes, BytesMut};
use futures_util::future::ready;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use openraft::raft::AppendEntriesRequest;

use super::group::Group;
use super::transport::{Answers, Kind, MESSAGE_BYTES_MAX, PeerError};
use super::types::{Snapshot, Types, Vote};
use super::wire;

impl Group {
    /// Answers one message.
    ///
    /// # Errors
    /// When it makes no sense, or the group has stopped.
    pub async fn handle(&self, kind: Kind, body: Bytes) -> Result<Bytes, PeerError> {
        match kind {
            Kind::Append | Kind::Heartbeat => {
                let request = wire::decode_append(body).map_err(refused)?;
                let prev = request.prev_log_id;
                let last = request.entries.last().map(|entry| entry.log_id).or(prev);
                let answer = self.raft.append_entries(request).await.map_err(refused)?;
                Ok(wire::encode_append_answer(&answer.into_stream_result(prev, last)))
            }
            Kind::Vote => {
                let request = wire::decode_vote_request(body).map_err(refused)?;
                let answer = self.raft.vote(request).await.map_err(refused)?;
                Ok(wire::encode_vote_answer(&answer))
            }
            Kind::PreVote => {
                let request = wire::decode_vote_request(body).map_err(refused)?;
                let answer = self.raft.pre_vote(request).await.map_err(refused)?;
                Ok(wire::encode_vote_answer(&answer))
            }
            Kind::TransferLeader => {
                let request = wire::decode_transfer(body).map_err(refused)?;
                let answer = self.raft.handle_transfer_leader(request).await.map_err(refused)?;
                answer.map_err(refused)?;
                Ok(Bytes::new())
            }
            Kind::Command => self.answer_command(body).await,
            Kind::Barrier => self.answer_barrier().await,
            other => Err(PeerError::Refused(format!("a group has no answer to {other:?}"))),
        }
    }

    /// Answers a stream of messages.
    #[must_use]
    pub fn handle_stream(&self, kind: Kind, bodies: BoxStream<'static, Bytes>) -> Answers {
        match kind {
            Kind::Append => self.take_entries(bodies),
            Kind::Snapshot => self.take_snapshot(bodies),
            other => {
                let text = format!("a group takes no stream of {other:?}");
                stream::iter([Err(PeerError::Refused(text))]).boxed()
            }
        }
    }

    fn take_entries(&self, bodies: BoxStream<'static, Bytes>) -> Answers {
        // A message that does not decode ends the stream: its sender sees that and begins anew.
        let log = self.log.clone();
        let requests = bodies.scan((), move |(), body| {
            // Entries that the disk has no room for are not taken: the stream ends, the leader tries
            // again after a while, and nothing is broken once there is room. An append that failed
            // would take the copy out until a restart.
            if let Err(full) = log.check_room(body.len() as u64) {
                tracing::warn!(%full, "a leader's entries are not taken");
                return ready(None);
            }
            let decoded = wire::decode_append(body);
            ready(
                decoded.inspect_err(|error| tracing::warn!(%error, "a leader sends nonsense")).ok(),
            )
        });
        let requests: BoxStream<'static, AppendEntriesRequest<Types>> = requests.boxed();
        self.raft
            .stream_append(requests)
            .map(|answer| match answer {
                Ok(answer) => Ok(wire::encode_append_answer(&answer)),
                Err(fatal) => Err(refused(fatal)),
            })
            .boxed()
    }

    /// A snapshot comes as a head and pieces. Each is answered, the last with the vote.
    fn take_snapshot(&self, bodies: BoxStream<'static, Bytes>) -> Answers {
        let group = self.clone();
        stream::unfold(Some((bodies, Incoming::Nothing)), move |state| {
            let group = group.clone();
            async move {
                let (mut bodies, incoming) = state?;
                let body = bodies.next().await?;
                let taken = match incoming.take(body) {
                    Ok(Incoming::Whole(vote, snapshot)) => {
                        let installed = group.raft.install_full_snapshot(vote, snapshot).await;
                        let answer = installed.map(|answer| wire::encode_vote(&answer.vote));
                        return Some((answer.map_err(refused), None));
                    }
                    taken => taken,
                };
                Some(match taken {
                    Ok(incoming) => (Ok(Bytes::new()), Some((bodies, incoming))),
                    Err(error) => (Err(error), None),
                })
            }
        })
        .boxed()
    }

    /// Entries of the log from one index up to another (exclusive), no more than one message holds:
    /// what mends a damaged copy of another broker. Only what is committed is told.
    ///
    /// # Errors
    /// When they are not there.
    pub fn committed_entries(&self, from: u64, to: u64) -> Result<Bytes, PeerError> {
        let committed = self.applied().map_or(0, |applied| applied.0 + 1);
        committed_entries(&self.log, committed, from, to)
    }
}

/// Entries of a log as another broker is sent them, of those before `committed`.
///
/// # Errors
/// When they are not there.
pub fn committed_entries(
    log: &Log,
    committed: u64,
    from: u64,
    to: u64,
) -> Result<Bytes, PeerError> {
    let to = to.min(committed);
    let batches = if from < to {
        log.read_indexes(RaftIndex(from), RaftIndex(to), ENTRIES_BYTES_MAX).map_err(refused)?
    } else {
        Vec::new()
    };
    wire::encode_entries(&batches).map_err(refused)
}

/// Bytes of entries in one answer to a broker that mends its copy.
const ENTRIES_BYTES_MAX: usize = 4 << 20;

enum Incoming {
    Nothing,
    Some(Box<(wire::SnapshotHead, BytesMut)>),
    Whole(Vote, Snapshot),
}

impl Incoming {
    fn take(self, body: Bytes) -> Result<Self, PeerError> {
        let refuse = |text: &str| Err(PeerError::Refused(text.to_owned()));
        let taken = match self {
            Self::Nothing => {
                let head = wire::decode_snapshot_head(body).map_err(refused)?;
                if head.bytes > MESSAGE_BYTES_MAX * 16 {
                    return refuse(&format!("a snapshot of {} bytes", head.bytes));
                }
                Box::new((head, BytesMut::new()))
            }
            Self::Some(mut taken) => {
                if taken.1.len() + body.len() > taken.0.bytes {
                    return refuse("a snapshot is longer than it says");
                }
                taken.1.extend_from_slice(&body);
                taken
            }
            Self::Whole(..) => return refuse("the snapshot has ended"),
        };
        if taken.1.len() < taken.0.bytes {
            return Ok(Self::Some(taken));
        }
        let (head, bytes) = *taken;
        if !head.announces(&bytes) {
            return refuse("a snapshot was damaged on its way");
        }
        Ok(Self::Whole(head.vote, Snapshot { meta: head.meta, snapshot: bytes.freeze() }))
    }
}

fn refused(error: impl std::fmt::Display) -> PeerError {
    PeerError::Refused(error.to_string())
}
