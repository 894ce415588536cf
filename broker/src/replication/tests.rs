//! openraft's own storage suite, run against the segmented log on a real disk; and a group whose
//! follower is away.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aklight_common::clock::SystemClock;
use aklight_common::{BrokerId, Offset, PartitionId, RaftIndex, Term};
use aklight_log::{BatchKind, Log, LogOptions, NewBatch, RealDisk};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, pending, ready};
use futures_util::stream::BoxStream;
use openraft::StorageError;
use openraft::storage::RaftStateMachine as _;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::vote::RaftVote as _;
use tokio::time::sleep;

use super::codec;
use super::group::{Begin, Group, GroupConfig};
use super::log_store::LogStore;
use super::peers::Peers;
use super::state_machine::{Committed, Machine, StateMachine};
use super::transport::{Answers, Envelope, GroupId, Kind, NoPeers, Peer, PeerError, PeerTransport};
use super::types::{Proposal, Types, Vote};

/// A machine without a state: the suite looks at logs, votes, memberships and snapshots.
struct Nothing;

impl Machine for Nothing {
    fn apply(&self, _entry: &Committed<'_>) -> io::Result<()> {
        Ok(())
    }

    fn lose(&self, _upto: Offset) {}

    fn checkpoint(&self) -> io::Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn restore(&self, _next_offset: Offset, _checkpoint: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

struct OnDisk;

impl StoreBuilder<Types, LogStore, StateMachine, tempfile::TempDir> for OnDisk {
    async fn build(
        &self,
    ) -> Result<(tempfile::TempDir, LogStore, StateMachine), StorageError<Types>> {
        let folder = tempfile::tempdir().expect("a folder");
        let log = empty_log(folder.path());
        let state = StateMachine::open(Arc::new(Nothing), log.clone()).expect("opens");
        Ok((folder, LogStore::new(log, state.clone()), state))
    }
}

fn empty_log(folder: &Path) -> Log {
    let folder = folder.join("partition_0.log");
    let opened =
        Log::open(RealDisk::shared(), &folder, LogOptions::default(), SystemClock::shared());
    opened.expect("an empty log opens").0
}

#[tokio::test(flavor = "multi_thread")]
async fn openrafts_storage_suite_passes_on_the_segmented_log() {
    Suite::test_all(OnDisk).await.expect("the suite passes");
}

/// Far more than there are pauses in the time given.
const TOO_OFTEN: u64 = 500;

/// Reaches nobody, at once, as a closed port does; counts how often entries were to be sent.
#[derive(Default)]
struct Refused(AtomicU64);

impl PeerTransport for Refused {
    fn call(
        &self,
        _to: &Peer,
        _message: Envelope,
        _ttl: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        ready(Err(PeerError::Unreachable("refused".to_owned()))).boxed()
    }

    fn stream(
        &self,
        _to: &Peer,
        _kind: Kind,
        _messages: BoxStream<'static, Envelope>,
        _ttl: Duration,
    ) -> BoxFuture<'static, Result<Answers, PeerError>> {
        if self.0.fetch_add(1, Ordering::SeqCst) >= TOO_OFTEN {
            // Seen enough: the test's own clock moves on only while nobody is busy.
            return pending().boxed();
        }
        ready(Err(PeerError::Unreachable("refused".to_owned()))).boxed()
    }
}

#[tokio::test]
async fn a_follower_that_is_away_is_not_tried_without_a_pause() {
    let folder = tempfile::tempdir().expect("a folder");
    let transport = Arc::new(Refused::default());
    let peers = Arc::new(Peers::new(BrokerId(1), transport.clone()));
    let away = Peer { id: BrokerId(2), address: "away:7090".to_owned() };
    peers.set_address(away.id, &away.address);
    let group = Group::start(GroupConfig {
        id: GroupId::Partition(PartitionId(0)),
        log: empty_log(folder.path()),
        machine: Arc::new(Nothing),
        peers,
        begin: alone(1),
    })
    .await
    .expect("it leads alone");
    group.add_learner(&away).await.expect("it shall have a copy");
    tokio::time::pause();
    for _ in 0..100 {
        sleep(Duration::from_millis(100)).await;
        let tried = transport.0.load(Ordering::SeqCst);
        assert!(tried < TOO_OFTEN, "tried {tried} times");
    }
    assert!(transport.0.load(Ordering::SeqCst) > 1, "it is tried again");
}

fn with(members: &[u64]) -> Begin {
    let peer = |id: &u64| Peer { id: BrokerId(*id), address: format!("broker{id}:7090") };
    Begin::With(members.iter().map(peer).collect())
}

fn alone(me: u64) -> Begin {
    with(&[me])
}

fn group_on(me: u64, log: Log, begin: Begin) -> GroupConfig {
    let peers = Arc::new(Peers::new(BrokerId(me), Arc::new(NoPeers)));
    GroupConfig { id: GroupId::Metadata, log, machine: Arc::new(Nothing), peers, begin }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_within_an_installation_leaves_no_tail_of_a_later_term() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = empty_log(&folder.path().join("a"));
    let leader = Group::start(group_on(1, log, alone(1)));
    let leader = leader.await.expect("it leads");
    for _ in 0..9 {
        let command = Proposal::command(Bytes::from_static(b"x"), 1);
        leader.write(command, Duration::from_secs(9)).await.expect("it is written");
    }
    leader.purge(leader.applied().expect("something is")).await.expect("purged");
    let snapshot = leader.state.clone().get_current_snapshot().await.expect("it can be told");
    let snapshot = snapshot.expect("there is one");

    let log = empty_log(&folder.path().join("b"));
    let never_committed = |index| NewBatch {
        index: RaftIndex(index),
        term: Term(5),
        kind: BatchKind::Command,
        records: 0,
        first_time_us: 1,
        last_time_us: 1,
        body: Bytes::from_static(b"y"),
    };
    let tail = (0..4).map(never_committed).collect();
    log.append(tail, Box::new(|written| written.expect("written"))).expect("it takes them");
    let mut copy = StateMachine::open(Arc::new(Nothing), log.clone()).expect("opens");
    copy.install_snapshot(&snapshot.meta, snapshot.snapshot).await.expect("it is installed");
    // Here it crashes; openraft would have purged the log next.
    let copy = Group::start(group_on(2, log.clone(), Begin::Join)).await.expect("it starts again");
    let stands_for = snapshot.meta.last_log_id.expect("entries");
    let purged = log.bounds().purged.map(|(term, index)| (term.0, index.0));
    assert_eq!(purged, Some((stands_for.leader_id.term, stands_for.index)));
    assert_eq!(copy.view().last, Some(RaftIndex(stands_for.index)));
    let kept = copy.state.clone().get_current_snapshot().await.expect("told").expect("kept");
    assert_eq!(kept.meta, snapshot.meta);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_founder_that_voted_and_was_sent_nothing_has_the_first_entry_all_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = empty_log(folder.path());
    let for_broker_2 = openraft::impls::leader_id_std::LeaderId { term: 1, voted_for: 2 };
    let vote = Vote::from_leader_id(for_broker_2, false);
    let (done, saved) = std::sync::mpsc::channel();
    let done = Box::new(move |result| done.send(result).expect("waited for"));
    log.save_vote(codec::encode_vote(&vote), done);
    saved.recv().expect("told").expect("saved");
    for round in 0..2 {
        let group = Group::start(group_on(3, log.clone(), with(&[1, 2, 3])));
        let group = group.await.expect("it starts");
        let view = group.view();
        assert_eq!(view.last, Some(RaftIndex(0)), "round {round}");
        assert_eq!(view.members.voters, [1, 2, 3].map(BrokerId).into(), "round {round}");
        assert!(view.term >= Term(1), "what it voted for is not forgotten");
        group.raft.shutdown().await.expect("it ends");
    }
}
