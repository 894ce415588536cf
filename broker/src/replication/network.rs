//! openraft's network over [`Peers`]: each call is one envelope, each replication one stream.
//!
//! A peer that takes entries and then says nothing is not waited for: after [`ANSWER_WAIT`] the
//! stream counts as broken and openraft begins another, so that a connection that died without a
//! word costs no more than an election does.
//!
//! An answer says how far a follower's log matches, not which message it is for, and openraft takes
//! it for every message on its way that goes no further, one without entries that was sent later
//! too. The later one would count as heard by a follower that may have turned to another leader
//! meanwhile, and a barrier would pass at a leader that leads no more. So an answer that could be
//! taken so is left out: the later message's own says as much ([`watched`]).

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use aklight_common::BrokerId;
use bytes::Bytes;
use futures_util::future::{BoxFuture, ready};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, stream};
use openraft::OptionalSend;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use parking_lot::Mutex;
use tokio::time::timeout;

use super::peers::Peers;
use super::transport::{Answers, GroupId, Kind, PeerError};
use super::types::{LogId, Snapshot, Types, Vote};
use super::wire;

/// Longest silence of a follower that has entries to answer for: far above the slowest sync of a
/// healthy disk, and no longer than a few elections.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// Longest wait for the answer to one message. openraft would wait no longer than a heartbeat's
/// interval, which a machine under load does not keep; what comes late is still worth having.
const CALL_WAIT: Duration = Duration::from_millis(500);

/// Bytes of one piece of a snapshot.
const SNAPSHOT_PIECE_BYTES: usize = 1 << 20;

/// Reaches one group's copies on other brokers.
pub(super) struct Network {
    pub(super) peers: Arc<Peers>,
    pub(super) group: GroupId,
}

/// Reaches one copy.
pub(super) struct Client {
    peers: Arc<Peers>,
    group: GroupId,
    target: BrokerId,
    /// What its AppendEntries are: entries and heartbeats take different connections.
    appends: Kind,
}

impl Network {
    fn client(&self, target: u64, appends: Kind) -> Client {
        let (peers, group) = (self.peers.clone(), self.group);
        Client { peers, group, target: BrokerId(target), appends }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: u64, _node: &openraft::BasicNode) -> Client {
        self.client(target, Kind::Append)
    }

    async fn new_heartbeat_client(&mut self, target: u64, _node: &openraft::BasicNode) -> Client {
        self.client(target, Kind::Heartbeat)
    }
}

impl Client {
    async fn call(&self, kind: Kind, body: Bytes) -> Result<Bytes, RPCError<Types>> {
        self.peers.call(self.target, self.group, kind, body, CALL_WAIT).await.map_err(unreachable)
    }
}

impl RaftNetworkV2<Types> for Client {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let body = wire::encode_append(rpc).map_err(unreachable)?;
        let answer = self.call(self.appends, body).await?;
        Ok(match wire::decode_append_answer(answer).map_err(unreachable)? {
            Ok(matching) => AppendEntriesResponse::PartialSuccess(matching),
            Err(StreamAppendError::Conflict(_)) => AppendEntriesResponse::Conflict,
            Err(StreamAppendError::HigherVote(vote)) => AppendEntriesResponse::HigherVote(vote),
        })
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        if self.appends == Kind::Heartbeat {
            // One small message and its answer: a stream would cost more than it carries.
            return stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            let owed = Owed::default();
            let asking = owed.clone();
            let mut bodies = input
                // Entries of a running log always encode; were one not to, the stream ends here
                // and the follower's silence is noticed.
                .scan((), move |(), request| {
                    let last = request.entries.last().map(|entry| entry.log_id);
                    asking.lock().push_back(last.or(request.prev_log_id));
                    ready(wire::encode_append(request).ok())
                })
                .boxed()
                .peekable();
            // openraft waits before it tries an unreachable follower again, but in what it sends,
            // not before it asks for a connection: without this, a follower that is away would be
            // tried thousands of times a second.
            if Pin::new(&mut bodies).peek().await.is_none() {
                return Ok(stream::empty().boxed());
            }
            let answers = self
                .peers
                .stream(self.target, self.group, self.appends, bodies.boxed(), CALL_WAIT)
                .await
                .map_err(unreachable)?;
            Ok(watched(answers, owed).boxed())
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let answer = self.call(Kind::Vote, wire::encode_vote_request(&rpc)).await?;
        wire::decode_vote_answer(answer).map_err(unreachable)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let answer = self.call(Kind::PreVote, wire::encode_vote_request(&rpc)).await?;
        wire::decode_vote_answer(answer).map_err(unreachable)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let failed = |error: &dyn std::fmt::Display| {
            StreamingError::Unreachable(Unreachable::from_string(error))
        };
        let data = snapshot.snapshot;
        let head = wire::encode_snapshot_head(&vote, &snapshot.meta, &data)
            .map_err(|error| failed(&error))?;
        let pieces = stream::iter(
            (0..data.len())
                .step_by(SNAPSHOT_PIECE_BYTES)
                .map(move |from| data.slice(from..data.len().min(from + SNAPSHOT_PIECE_BYTES))),
        );
        let bodies = stream::iter([head]).chain(pieces).boxed();
        let sending = async {
            let mut answers = self
                .peers
                .stream(self.target, self.group, Kind::Snapshot, bodies, CALL_WAIT)
                .await
                .map_err(|error| failed(&error))?;
            let mut last = Bytes::new();
            while let Some(answer) = answers.next().await {
                last = answer.map_err(|error| failed(&error))?;
            }
            wire::decode_vote(last).map_err(|error| failed(&error))
        };
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            vote = sending => Ok(SnapshotResponse::new(vote?)),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        self.call(Kind::TransferLeader, wire::encode_transfer(&req)).await?;
        Ok(Ok(()))
    }
}

/// The messages of one stream without an answer, the oldest first: where each would bring the
/// follower's log.
type Owed = Arc<Mutex<VecDeque<Option<LogId>>>>;

/// Answers as openraft wants them; a follower that owes one for [`ANSWER_WAIT`] ends them. One that
/// could be taken for a later message's is left out: that one's own says as much, and is on its way.
fn watched(
    answers: Answers,
    owed: Owed,
) -> impl Stream<Item = Result<StreamAppendResult<Types>, RPCError<Types>>> {
    stream::unfold(Some(answers), move |state| {
        let owed = owed.clone();
        async move {
            let mut answers = state?;
            loop {
                let is_owed = !owed.lock().is_empty();
                let answer = match timeout(ANSWER_WAIT, answers.next()).await {
                    Ok(None) => return None,
                    Ok(Some(answer)) => answer.and_then(|body| {
                        wire::decode_append_answer(body)
                            .map_err(|error| PeerError::Refused(error.to_string()))
                    }),
                    Err(_) if is_owed => {
                        Err(PeerError::Unreachable("it does not answer".to_owned()))
                    }
                    Err(_) => continue,
                };
                let Ok(Ok(matching)) = &answer else {
                    return Some((answer.map_err(unreachable), None));
                };
                let mut owed = owed.lock();
                owed.pop_front();
                if owed.front().is_none_or(|later| later > matching) {
                    return Some((answer.map_err(unreachable), Some(answers)));
                }
            }
        }
    })
}

fn unreachable(error: impl std::fmt::Display) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::from_string(error))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::sync::mpsc;

    use super::super::types::log_id;
    use super::*;

    /// What openraft is told of answers that come one by one, to messages that go up to these
    /// entries of one term.
    struct Told {
        answer: mpsc::UnboundedSender<Result<Bytes, PeerError>>,
        told: BoxStream<'static, Result<StreamAppendResult<Types>, RPCError<Types>>>,
    }

    impl Told {
        fn of(sent: &[u64]) -> Self {
            let owed: Owed = Arc::default();
            owed.lock().extend(sent.iter().map(|index| Some(log_id(3, *index))));
            let (answer, answers) = mpsc::unbounded_channel();
            let answers =
                stream::unfold(answers, async |mut answers| Some((answers.recv().await?, answers)));
            Self { answer, told: watched(answers.boxed(), owed).boxed() }
        }

        fn after(&mut self, matching: u64) -> Option<u64> {
            let body = wire::encode_append_answer(&Ok(Some(log_id(3, matching))));
            self.answer.send(Ok(body)).expect("somebody listens");
            let told = self.told.next().now_or_never()?;
            let matching = told.expect("goes on").expect("no error").expect("no conflict");
            matching.map(|id| id.index)
        }
    }

    #[tokio::test]
    async fn an_answer_is_not_taken_for_a_later_message_without_entries() {
        // 661 was sent, then twice only that it is committed: until the last one is answered, nobody
        // knows whom the follower follows by then.
        let mut told = Told::of(&[660, 661, 661, 661, 662]);
        assert_eq!(told.after(660), Some(660));
        assert_eq!(told.after(661), None);
        assert_eq!(told.after(661), None);
        assert_eq!(told.after(661), Some(661));
        assert_eq!(told.after(662), Some(662));
    }
}
