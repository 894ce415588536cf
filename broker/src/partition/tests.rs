//! Actors of three brokers on one replicated log that is made up here: leaders come and go, streams
//! break and fall silent, and what is promised to clients is held against the log.
//!
//! The log does what Raft does as far as a partition can tell: entries of a leader are committed in
//! order; at an election some of those that are not committed are lost; an old leader that does not
//! know yet appends what will never be committed; and one whose lease has run out refuses for a
//! while. Time is tokio's, paused; everything else is drawn from the seed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aklight_common::clock::ManualClock;
use aklight_common::record::{BodyBuilder, Once, Record, Records};
use aklight_common::{RaftIndex, Term};
use aklight_log::{BatchKind, NoRoom};
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{Notify, Semaphore};
use tokio::time::sleep;

use super::leading::{Sequencer, Settled};
use super::*;
use crate::replication::{
    Applied, Committed, Envelope, GroupId, Kind, Machine, Peer, PeerError, PeerTransport, Proposal,
    ProposeError, Role,
};
use crate::stamp::Stamp;

const BROKERS: u64 = 3;
const BATCHES: u64 = 60;

/// How many worlds one run of the test sees.
const SEEDS: u64 = 100;

type Dice = Arc<Mutex<StdRng>>;

fn pause(dice: &Dice, ms_max: u64) -> tokio::time::Sleep {
    sleep(Duration::from_micros(dice.lock().random_range(0..ms_max * 1000)))
}

/// Between two batches: often hardly at all.
async fn breathe(dice: &Dice) {
    let ms_max = if dice.lock().random_bool(0.8) { 15 } else { 1_000 };
    pause(dice, ms_max).await;
}

/// The replicated log.
struct Raft {
    dice: Dice,
    state: Mutex<RaftState>,
    machines: Vec<Arc<RecordMachine>>,
    roles: Vec<watch::Sender<Role>>,
}

#[derive(Default)]
struct RaftState {
    term: u64,
    leader: u64,
    entries: Vec<Proposal>,
    told: Vec<Option<oneshot::Sender<Result<Applied, ProposeError>>>>,
    committed: usize,
    end: u64,
    no_lease_until: Option<Instant>,
}

struct Member {
    raft: Arc<Raft>,
    me: u64,
}

impl Sequencer for Member {
    fn check_room(&self, _: usize) -> Result<(), NoRoom> {
        Ok(())
    }

    fn failure(&self) -> Option<String> {
        None
    }

    fn propose(
        &self,
        proposal: Proposal,
        term: Term,
    ) -> BoxFuture<'_, Result<Settled, ProposeError>> {
        Box::pin(async move {
            let raft = &self.raft;
            let mut state = raft.state.lock();
            let (tell, told) = oneshot::channel();
            if state.no_lease_until.is_some_and(|until| Instant::now() < until) {
                let _ = tell.send(Err(ProposeError::NoLeader));
            } else if (state.leader, state.term) == (self.me, term.0) {
                state.entries.push(proposal);
                state.told.push(Some(tell));
            } else {
                // It does not know yet; nobody else ever sees the entry.
                let dice = raft.dice.clone();
                let knows = *raft.roles[self.me as usize].borrow() != Role::Leads(term);
                tokio::spawn(async move {
                    if knows {
                        return tell.send(Err(ProposeError::NoLeader));
                    }
                    pause(&dice, 900).await;
                    tell.send(Err(ProposeError::Unknown("discarded".to_owned())))
                });
            }
            let settled: Settled = Box::pin(async move {
                told.await.unwrap_or_else(|_| Err(ProposeError::Stopped("ended".to_owned())))
            });
            Ok(settled)
        })
    }
}

impl Raft {
    /// Commits the next entries, on all brokers.
    fn commit(&self, most: usize) {
        let mut state = self.state.lock();
        for _ in 0..most {
            let at = state.committed;
            let Some(proposal) = state.entries.get(at).cloned() else { return };
            let base_offset = Offset(state.end);
            let entry = Committed {
                index: RaftIndex(at as u64),
                term: Term(state.term),
                kind: BatchKind::Records,
                base_offset,
                records: proposal.records,
                first_time_us: proposal.first_time_us,
                body: &proposal.body,
            };
            for machine in &self.machines {
                machine.apply(&entry).expect("it makes sense");
            }
            state.end += u64::from(proposal.records);
            state.committed += 1;
            if let Some(tell) = state.told[at].take() {
                let _ = tell.send(Ok(Applied { base_offset }));
            }
        }
    }

    /// Nobody leads.
    fn rest(&self) {
        let mut state = self.state.lock();
        state.term += 1;
        state.leader = BROKERS;
        for roles in &self.roles {
            roles.send_replace(Role::Nobody);
        }
    }

    /// Another leader, or the same one again. Brokers learn of it one after the other.
    async fn elect(self: &Arc<Self>) {
        let (leader, lost) = {
            let mut state = self.state.lock();
            let mut dice = self.dice.lock();
            let kept = dice.random_range(state.committed..=state.entries.len());
            state.entries.truncate(kept);
            state.term += 1;
            state.leader = dice.random_range(0..BROKERS);
            state.no_lease_until = None;
            (state.leader, state.told.split_off(kept))
        };
        let others = (0..).zip(&self.roles).filter(|(broker, _)| *broker != leader);
        for (_, roles) in others {
            let (this, roles, term) = (self.clone(), roles.clone(), self.state.lock().term);
            tokio::spawn(async move {
                pause(&this.dice, 300).await;
                this.tell(&roles, term, Role::Nobody);
                pause(&this.dice, 1_000).await;
                this.tell(&roles, term, Role::Follows(BrokerId(leader)));
            });
        }
        for tell in lost.into_iter().flatten() {
            pause(&self.dice, 100).await;
            let _ = tell.send(Err(ProposeError::Unknown("discarded".to_owned())));
        }
        let (roles, term) = (&self.roles[leader as usize], self.state.lock().term);
        self.tell(roles, term, Role::Nobody);
        pause(&self.dice, 300).await;
        self.commit(usize::MAX);
        self.tell(roles, term, Role::Leads(Term(term)));
    }

    /// Tells a broker of a term, unless there is a newer one.
    fn tell(&self, roles: &watch::Sender<Role>, term: u64, role: Role) {
        if self.state.lock().term == term {
            roles.send_replace(role);
        }
    }
}

/// A network whose streams are late, break, and fall silent.
struct Network {
    dice: Dice,
    entrances: Arc<Mutex<Vec<Entrance>>>,
    /// Of a thousand messages so many break their stream, and as many are held up.
    faulty: Arc<AtomicU32>,
}

impl Network {
    fn faults(&self) -> bool {
        self.dice.lock().random_range(0..1000) < self.faulty.load(Ordering::Relaxed)
    }

    /// Carries what is said: late, and even when who said it has given up meanwhile.
    async fn carry(
        self: Arc<Self>,
        mut messages: BoxStream<'static, Envelope>,
        arrive: mpsc::UnboundedSender<Bytes>,
        breaks: Arc<Notify>,
    ) {
        while let Some(message) = messages.next().await {
            let is_late = self.faults();
            if is_late && self.dice.lock().random_bool(0.5) {
                breaks.notify_one();
            }
            pause(&self.dice, if is_late { 4_000 } else { 5 }).await;
            if arrive.send(message.body).is_err() {
                return;
            }
        }
    }

    /// Carries the answers until the stream breaks; the one who answers does not notice.
    async fn carry_back(
        self: Arc<Self>,
        mut answers: Answers,
        arrive: mpsc::UnboundedSender<Result<Bytes, PeerError>>,
        breaks: Arc<Notify>,
    ) {
        loop {
            let answer = tokio::select! {
                biased;
                () = breaks.notified() => break,
                answer = answers.next() => answer,
            };
            pause(&self.dice, 5).await;
            let Some(answer) = answer else { return };
            if self.faults() || arrive.send(answer).is_err() {
                break;
            }
        }
        let _ = arrive.send(Err(PeerError::Unreachable("it broke".to_owned())));
        while answers.next().await.is_some() {}
    }
}

fn received<T: Send + 'static>(received: mpsc::UnboundedReceiver<T>) -> BoxStream<'static, T> {
    stream::unfold(received, |mut received| async { Some((received.recv().await?, received)) })
        .boxed()
}

struct Wire(Arc<Network>);

impl PeerTransport for Wire {
    fn call(
        &self,
        _: &Peer,
        _: Envelope,
        _: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        Box::pin(async { Err(PeerError::Refused("no calls here".to_owned())) })
    }

    fn stream(
        &self,
        to: &Peer,
        _: Kind,
        mut messages: BoxStream<'static, Envelope>,
        _: Duration,
    ) -> BoxFuture<'static, Result<Answers, PeerError>> {
        let network = self.0.clone();
        let entrance = network.entrances.lock()[to.id.0 as usize].clone();
        Box::pin(async move {
            pause(&network.dice, 20).await;
            let Some(first) = messages.next().await else {
                return Err(PeerError::Unreachable("nothing is said".to_owned()));
            };
            let from = BrokerId(first.from);
            let (arrive, bodies) = mpsc::unbounded_channel();
            let messages = stream::iter([first]).chain(messages).boxed();
            let breaks = Arc::new(Notify::new());
            tokio::spawn(network.clone().carry(messages, arrive, breaks.clone()));
            let answers = entrance.serve(from, received(bodies));
            let (arrive, answered) = mpsc::unbounded_channel();
            tokio::spawn(network.carry_back(answers, arrive, breaks));
            Ok(received(answered))
        })
    }
}

/// What a client was told of a batch.
struct Told {
    client: String,
    numbers: Vec<u64>,
    once: bool,
    result: Result<Placed, ProduceError>,
    waited: Duration,
}

struct Broker {
    mailbox: mpsc::Sender<RoutedBatch>,
    memory: Arc<Semaphore>,
    stamp: Arc<Stamp>,
}

const MEMORY: usize = 1 << 20;

impl Broker {
    /// Hands in one batch, and waits for what becomes of it.
    async fn produce(
        &self,
        client: &str,
        numbers: Vec<u64>,
        once: bool,
    ) -> impl Future<Output = Told> + Send + use<> {
        let mut builder = BodyBuilder::new();
        for number in &numbers {
            let of = Once { producer: client, sequence: *number };
            let payload = format!("{client} {number}");
            builder.push(&Record {
                time_us: self.stamp.next_us(self.stamp.now_us()),
                topic: "t",
                key: b"k",
                payload: payload.as_bytes(),
                once: once.then_some(of),
            });
        }
        let records = if once { numbers.len() as u32 } else { 0 };
        let permit = self.memory.clone().acquire_many_owned(10).await.expect("it is open");
        let (batch, told) = RoutedBatch::new(builder.finish(), records, permit);
        let begun = Instant::now();
        assert!(self.mailbox.send(batch).await.is_ok(), "the actor runs");
        let client = client.to_owned();
        async move {
            let result = told.await.expect("everyone is answered");
            Told { client, numbers, once, result, waited: begun.elapsed() }
        }
    }
}

struct World {
    dice: Dice,
    raft: Arc<Raft>,
    brokers: Vec<Arc<Broker>>,
    actors: Vec<tokio::task::JoinHandle<()>>,
    stop: CancellationToken,
    faulty: Arc<AtomicU32>,
}

impl World {
    fn new(seed: u64) -> Self {
        let dice: Dice = Arc::new(Mutex::new(StdRng::seed_from_u64(seed)));
        let group = GroupId::Partition(PartitionId(0));
        let commits = Arc::new(watch::channel(0).0);
        // Clocks that differ by minutes.
        let clocks = (0..BROKERS).map(|n| ManualClock::at(1_000_000_000 - n * 100_000_000));
        let stamps: Vec<_> = clocks.map(|clock| Arc::new(Stamp::new(clock))).collect();
        let machines =
            stamps.iter().map(|stamp| RecordMachine::new(stamp.clone(), commits.clone()));
        let machines: Vec<_> = machines.map(Arc::new).collect();
        let roles: Vec<_> = (0..BROKERS).map(|_| watch::channel(Role::Nobody).0).collect();
        let raft = Arc::new(Raft {
            dice: dice.clone(),
            state: Mutex::default(),
            machines: machines.clone(),
            roles: roles.clone(),
        });
        let entrances = Arc::new(Mutex::new(Vec::new()));
        let faulty = Arc::new(AtomicU32::new(30));
        let network = Arc::new(Network {
            dice: dice.clone(),
            entrances: entrances.clone(),
            faulty: faulty.clone(),
        });
        let stop = CancellationToken::new();
        let (mut brokers, mut actors) = (Vec::new(), Vec::new());
        for (me, stamp) in (0..BROKERS).zip(stamps) {
            let peers = Peers::new(BrokerId(me), Arc::new(Wire(network.clone())));
            (0..BROKERS).for_each(|id| peers.set_address(BrokerId(id), "somewhere"));
            let (mailbox, received) = mpsc::channel(MAILBOX_BATCHES_MAX);
            let (streams, role) = (Arc::new(Streams::default()), &roles[me as usize]);
            entrances.lock().push(Entrance::new(
                mailbox.clone(),
                role.subscribe(),
                streams.clone(),
            ));
            let actor = Actor {
                group,
                sequencer: Arc::new(Member { raft: raft.clone(), me }),
                learnt: machines[me as usize].learnt.clone(),
                streams,
                peers: Arc::new(peers),
                roles: role.subscribe(),
                mailbox: received,
                stop: stop.clone(),
                state: actor::State::default(),
            };
            actors.push(tokio::spawn(actor.run()));
            let memory = Arc::new(Semaphore::new(MEMORY));
            brokers.push(Arc::new(Broker { mailbox, memory, stamp }));
        }
        Self { dice, raft, brokers, actors, stop, faulty }
    }

    /// One connection: batches behind each other, without waiting for answers.
    fn connection(&self, client: usize) -> tokio::task::JoinHandle<Vec<Told>> {
        let (dice, broker) = (self.dice.clone(), self.brokers[client % self.brokers.len()].clone());
        tokio::spawn(async move {
            let (mut waiting, mut next) = (Vec::new(), 1);
            for _ in 0..BATCHES {
                let count = dice.lock().random_range(1..5);
                let numbers = (next..next + count).collect();
                next += count;
                waiting.push(tokio::spawn(
                    broker.produce(&format!("c{client}"), numbers, false).await,
                ));
                pause(&dice, 250).await;
            }
            finish(waiting).await
        })
    }

    /// A producer of PRODUCE_ONCE that repeats itself, on any broker.
    fn producer(&self, client: usize) -> tokio::task::JoinHandle<Vec<Told>> {
        let (dice, brokers) = (self.dice.clone(), self.brokers.clone());
        tokio::spawn(async move {
            let (mut waiting, mut next) = (Vec::new(), 1);
            for _ in 0..BATCHES {
                let (broker, from, count) = {
                    let mut dice = dice.lock();
                    let from = next - dice.random_range(0..next.min(12));
                    (dice.random_range(0..brokers.len()), from, dice.random_range(1..8))
                };
                let numbers: Vec<_> = (from..from + count).collect();
                next = next.max(from + count);
                let told = brokers[broker].produce(&format!("p{client}"), numbers, true).await;
                waiting.push(tokio::spawn(told));
                breathe(&dice).await;
            }
            finish(waiting).await
        })
    }

    /// Elections and lost leases, until it is aborted.
    fn unrest(&self) -> tokio::task::JoinHandle<()> {
        let (dice, raft) = (self.dice.clone(), self.raft.clone());
        tokio::spawn(async move {
            loop {
                raft.elect().await;
                for _ in 0..4 {
                    pause(&dice, 1_000).await;
                    let max = if dice.lock().random_bool(0.7) { 30 } else { 400 };
                    let until = Duration::from_millis(dice.lock().random_range(0..max));
                    raft.state.lock().no_lease_until = Some(Instant::now() + until);
                }
                if dice.lock().random_bool(0.2) {
                    raft.rest();
                    pause(&dice, 12_000).await;
                }
            }
        })
    }

    fn commits(&self) -> tokio::task::JoinHandle<()> {
        let (dice, raft) = (self.dice.clone(), self.raft.clone());
        tokio::spawn(async move {
            loop {
                let ms_max = if dice.lock().random_bool(0.8) { 10 } else { 100 };
                pause(&dice, ms_max).await;
                let most = dice.lock().random_range(1..4);
                raft.commit(most);
            }
        })
    }

    /// The records in the log: who, which number, when.
    fn log(&self) -> Vec<(String, u64, u64)> {
        let state = self.raft.state.lock();
        let committed = state.entries.iter().take(state.committed);
        let records = committed.flat_map(|entry| {
            Records::new(&entry.body, entry.first_time_us).map(|record| {
                let record = record.expect("decodes");
                let payload = String::from_utf8_lossy(record.payload).into_owned();
                let (client, number) = payload.split_once(' ').expect("two words");
                (client.to_owned(), number.parse().expect("a number"), record.time_us)
            })
        });
        records.collect()
    }
}

async fn finish(waiting: Vec<tokio::task::JoinHandle<Told>>) -> Vec<Told> {
    let mut all = Vec::new();
    for told in waiting {
        all.push(told.await.expect("it ends"));
    }
    all
}

/// What was told, counted.
#[derive(Debug, Default)]
struct Seen {
    stored: usize,
    repeats: usize,
    not_stored: usize,
    unknown: usize,
}

/// Holds what clients were told against the log.
fn check(told: &[Told], log: &[(String, u64, u64)], seen: &mut Seen) -> Vec<String> {
    let mut wrong = Vec::new();
    for pair in log.windows(2) {
        if pair[0].2 >= pair[1].2 {
            wrong.push(format!("times do not rise: {pair:?}"));
        }
    }
    let mut last: HashMap<&str, u64> = HashMap::new();
    let mut copies: BTreeMap<(&str, u64), usize> = BTreeMap::new();
    for (client, number, _) in log {
        *copies.entry((client, *number)).or_default() += 1;
        if client.starts_with('c')
            && let Some(before) = last.insert(client, *number).filter(|before| before > number)
        {
            wrong.push(format!("{client}: {number} is stored behind {before}"));
        }
    }
    wrong
        .extend(copies.iter().filter(|(_, n)| **n > 1).map(|(of, n)| format!("{of:?}: {n} times")));
    for Told { client, numbers, once, result, waited } in told {
        if *waited > PRODUCE_WAIT + Duration::from_millis(1) {
            wrong.push(format!("{client} {numbers:?} was told after {waited:?}: {result:?}"));
        }
        match result {
            Ok(placed) => {
                seen.stored += 1;
                seen.repeats += usize::from(matches!(placed, Placed::Each(_)));
                for (nth, number) in (0..).zip(numbers) {
                    let Some(Outcome::Stored(offset)) = placed.of(nth) else {
                        wrong.push(format!("{client} {number}: {:?}", placed.of(nth)));
                        continue;
                    };
                    let found = log.get(offset.0 as usize).map(|(c, n, _)| (c.as_str(), *n));
                    if found != Some((client, *number)) {
                        wrong.push(format!("{client} {number} at {offset}: there is {found:?}"));
                    }
                }
            }
            Err(ProduceError::NotStored(_)) => {
                seen.not_stored += 1;
                let stored =
                    numbers.iter().filter(|n| copies.contains_key(&(client.as_str(), **n)));
                if !once && stored.count() > 0 {
                    wrong
                        .push(format!("{client} {numbers:?} is stored, and it was said not to be"));
                }
            }
            Err(ProduceError::Unknown(_)) => seen.unknown += 1,
            Err(error) => wrong.push(format!("{client} {numbers:?}: {error}")),
        }
    }
    wrong
}

async fn run(seed: u64, seen: &mut Seen) -> Vec<String> {
    let world = World::new(seed);
    let (unrest, commits) = (world.unrest(), world.commits());
    let clients: Vec<_> = (0..6)
        .map(|client| if client < 4 { world.connection(client) } else { world.producer(client) })
        .collect();
    let mut told = Vec::new();
    for client in clients {
        told.extend(client.await.expect("it ends"));
    }
    unrest.abort();
    world.faulty.store(0, Ordering::Relaxed);
    // Whatever is still on its way arrives, or never does.
    sleep(Duration::from_secs(30)).await;
    world.raft.elect().await;
    sleep(Duration::from_secs(10)).await;
    for (at, broker) in world.brokers.iter().enumerate() {
        let last = broker.produce(&format!("c-last{at}"), vec![1], false).await.await;
        assert!(last.result.is_ok(), "seed {seed}: broker {at}, in peace: {:?}", last.result);
        told.push(last);
    }
    world.stop.cancel();
    let log = world.log();
    let World { actors, brokers, .. } = world;
    for actor in actors {
        actor.await.expect("it ends");
    }
    commits.abort();
    for broker in brokers {
        assert_eq!(broker.memory.available_permits(), MEMORY, "seed {seed}: memory is given back");
    }
    check(&told, &log, seen)
}

#[test]
fn whoever_leads_and_whatever_breaks_order_and_answers_are_true() {
    let mut seen = Seen::default();
    for seed in 0..SEEDS {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let wrong = runtime.block_on(run(seed, &mut seen));
        assert!(wrong.is_empty(), "seed {seed}:\n  {}", wrong.join("\n  "));
    }
    eprintln!("{seen:?}");
    let Seen { stored, repeats, not_stored, unknown } = seen;
    assert!(stored > 1_000 && repeats > 100 && not_stored > 0 && unknown > 10, "what is tested");
}
