//! A small broker in memory, on a real socket, that misbehaves as a test asks it to.
//!
//! It speaks the protocol honestly (it stores, tells repeats by their sequence, pushes, lists)
//! but for the [`Plan`] of each connection: dropping it at a chosen command before or after its
//! answer, refusing chosen sequences, falling silent, cutting its lines at every byte.

#![allow(dead_code, reason = "each test file uses the part that it needs")]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use aklight_common::wire::{Command, ErrorCode, Reply};
use aklight_common::{BrokerId, Offset, PartitionId, Pattern};

pub const PARTITIONS: u32 = 2;

/// How one connection misbehaves.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Hang up once so many records were taken in on this connection…
    pub drop_after: Option<usize>,
    /// …and leave the last of them, stored, without its answer.
    pub swallow_last_answer: bool,
    /// …or leave it half its answer.
    pub halve_last_answer: bool,
    /// Answer these sequences so, once each.
    pub refuse: Vec<(u64, ErrorCode)>,
    /// Hang up at the first ACK, without having heard it.
    pub lose_ack: bool,
    /// Never answer anything.
    pub silent: bool,
    /// Answer for no record.
    pub silent_for_records: bool,
    /// Have no leader: `unavailable` for whatever needs one, but take producers' registrations.
    pub leaderless: bool,
    /// Write so many bytes at a time.
    pub chunk: Option<usize>,
}

#[derive(Debug, Clone)]
pub struct Kept {
    pub topic: String,
    pub key: Vec<u8>,
    pub payload: Vec<u8>,
    /// The sequence of PRODUCE_ONCE; 0 without.
    pub sequence: u64,
}

#[derive(Default)]
pub struct Inner {
    pub partitions: Vec<Vec<Kept>>,
    once: HashMap<(String, u64), (u32, u64)>,
    /// Next unacknowledged offset of each persistent consumer and partition.
    pub positions: HashMap<String, BTreeMap<u32, u64>>,
    /// (connection, sequence) in the order of arrival.
    pub seen: Vec<(usize, u64)>,
    /// Lines as they came, without PRODUCE_ONCE.
    pub lines: Vec<String>,
    pub plans: VecDeque<Plan>,
    pub connections: usize,
    /// Hang up on whoever comes.
    pub closed: bool,
    /// From now on every connection is `leaderless`.
    pub cut_off: bool,
    sessions: Vec<Session>,
}

struct Session {
    connection: usize,
    patterns: Vec<Pattern>,
    writer: TcpStream,
    chunk: Option<usize>,
}

pub struct FakeBroker {
    pub address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
    stopped: Arc<AtomicBool>,
}

impl FakeBroker {
    pub fn start(plans: Vec<Plan>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let inner = Inner {
            partitions: vec![Vec::new(); PARTITIONS as usize],
            plans: plans.into(),
            ..Inner::default()
        };
        let inner = Arc::new(Mutex::new(inner));
        let stopped = Arc::new(AtomicBool::new(false));
        let (shared, stop) = (Arc::clone(&inner), Arc::clone(&stopped));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let stream = stream.expect("a connection");
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(&stream, &shared));
            }
        });
        Self { address, inner, stopped }
    }

    pub fn name(&self) -> String {
        self.address.to_string()
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no test thread panicked")
    }

    /// Stores a record in a partition and pushes it to whoever subscribed.
    pub fn append(&self, topic: &str, payload: &str, partition: u32) -> u64 {
        let kept = Kept {
            topic: topic.to_owned(),
            key: Vec::new(),
            payload: payload.as_bytes().to_vec(),
            sequence: 0,
        };
        self.lock().append(kept, partition)
    }

    /// Hangs up on everyone; with `closed`, on everyone who comes later, too.
    pub fn hang_up(&self, closed: bool) {
        let mut inner = self.lock();
        inner.closed = closed;
        for session in inner.sessions.drain(..) {
            let _ = session.writer.shutdown(Shutdown::Both);
        }
    }

    /// Stops taking connections: the port refuses from now on.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        self.hang_up(true);
        eventually("the port is closed", || TcpStream::connect(self.address).is_err());
    }

    /// All that is stored: payloads by partition.
    pub fn payloads(&self) -> Vec<Vec<String>> {
        let text = |kept: &Kept| String::from_utf8(kept.payload.clone()).expect("text");
        self.lock().partitions.iter().map(|p| p.iter().map(text).collect()).collect()
    }
}

impl Drop for FakeBroker {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Ok(mut inner) = self.inner.lock() {
            for session in inner.sessions.drain(..) {
                let _ = session.writer.shutdown(Shutdown::Both);
            }
        }
    }
}

impl Inner {
    fn append(&mut self, kept: Kept, partition: u32) -> u64 {
        let offset = self.partitions[partition as usize].len() as u64;
        let line = message(&kept, offset, partition);
        for session in &self.sessions {
            if session.patterns.iter().any(|p| p.matches(&kept.topic)) {
                write(&session.writer, &line, session.chunk);
            }
        }
        self.partitions[partition as usize].push(kept);
        offset
    }

    fn produce(&mut self, id: &str, sequence: u64, kept: Kept) -> (u32, u64) {
        let turn = if sequence == 0 { 0 } else { (sequence % u64::from(PARTITIONS)) as u32 };
        if sequence == 0 {
            return (turn, self.append(kept, turn));
        }
        if let Some(place) = self.once.get(&(id.to_owned(), sequence)) {
            return *place;
        }
        let offset = self.append(kept, turn);
        self.once.insert((id.to_owned(), sequence), (turn, offset));
        (turn, offset)
    }

    fn ends(&self) -> Vec<(PartitionId, Offset)> {
        let end = |(n, p): (usize, &Vec<Kept>)| (PartitionId(n as u32), Offset(p.len() as u64));
        self.partitions.iter().enumerate().map(end).collect()
    }

    fn listing(&self, pattern: &str, from: u64, partition: Option<u32>, max: u64) -> Vec<u8> {
        let pattern = Pattern::new(pattern).expect("a pattern");
        let (mut out, mut count, mut next) = (Vec::new(), 0, Vec::new());
        for (number, records) in self.partitions.iter().enumerate() {
            let number = number as u32;
            if partition.is_some_and(|asked| asked != number) {
                continue;
            }
            let mut at = from;
            for (offset, kept) in records.iter().enumerate().skip(from as usize) {
                if count == max {
                    break;
                }
                at = offset as u64 + 1;
                if pattern.matches(&kept.topic) {
                    out.extend(message(kept, offset as u64, number));
                    count += 1;
                }
            }
            next.push((PartitionId(number), Offset(at)));
        }
        Reply::End { count, next: Some(next) }.encode(&mut out);
        out
    }
}

fn message(kept: &Kept, offset: u64, partition: u32) -> Vec<u8> {
    encode(&Reply::Message {
        topic: &kept.topic,
        offset: Offset(offset),
        partition: PartitionId(partition),
        key: kept.key.as_slice().into(),
        payload: kept.payload.as_slice().into(),
    })
}

fn encode(reply: &Reply<'_>) -> Vec<u8> {
    let mut line = Vec::new();
    reply.encode(&mut line);
    line
}

fn write(mut stream: &TcpStream, bytes: &[u8], chunk: Option<usize>) {
    for part in bytes.chunks(chunk.unwrap_or(usize::MAX)) {
        // Whoever hung up does not want to know.
        let _ = stream.write_all(part);
    }
}

struct Peer {
    connection: usize,
    plan: Plan,
    taken: usize,
    producer: String,
    consumer: Option<(String, bool)>,
}

fn serve(stream: &TcpStream, shared: &Mutex<Inner>) {
    stream.set_nodelay(true).expect("nodelay");
    let mut peer = {
        let mut inner = shared.lock().expect("lock");
        if inner.closed {
            return;
        }
        let plan = inner.plans.pop_front().unwrap_or_default();
        inner.connections += 1;
        let connection = inner.connections;
        let writer = stream.try_clone().expect("a writer");
        let chunk = plan.chunk;
        inner.sessions.push(Session { connection, patterns: Vec::new(), writer, chunk });
        Peer { connection, plan, taken: 0, producer: String::new(), consumer: None }
    };
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        if !matches!(reader.read_until(b'\n', &mut line), Ok(read) if read > 0) {
            break;
        }
        line.pop();
        if peer.plan.silent {
            continue;
        }
        // One lock from reading to writing keeps pushes out of listings and answers in order.
        let mut inner = shared.lock().expect("lock");
        if !inner.sessions.iter().any(|s| s.connection == peer.connection) {
            return;
        }
        let (answer, goes_on) = answer(&line, &mut peer, &mut inner);
        write(stream, &answer, peer.plan.chunk);
        if !goes_on {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
    let mut inner = shared.lock().expect("lock");
    inner.sessions.retain(|s| s.connection != peer.connection);
}

/// The answer, and whether the connection goes on.
fn answer(line: &[u8], peer: &mut Peer, inner: &mut Inner) -> (Vec<u8>, bool) {
    let command = match Command::decode(line) {
        Ok(command) => command,
        Err(error) => return (encode(&Reply::Err(error)), true),
    };
    if !matches!(command, Command::ProduceOnce { .. }) {
        inner.lines.push(String::from_utf8_lossy(line).into_owned());
    }
    let needs_leader =
        !matches!(command, Command::RegisterProducer { .. } | Command::Ping { .. } | Command::Quit);
    let is_leaderless = inner.cut_off || peer.plan.leaderless;
    if command == Command::Cluster {
        return (cluster(inner, (!is_leaderless).then_some(BrokerId(1))), true);
    }
    if is_leaderless && needs_leader {
        if let Command::ProduceOnce { sequence, .. } = command {
            inner.seen.push((peer.connection, sequence));
        }
        return (encode(&Reply::Err(ErrorCode::Unavailable.with("no leader"))), true);
    }
    let reply = match command {
        Command::RegisterProducer { id, .. } => {
            peer.producer = id.to_owned();
            Reply::Ok
        }
        Command::ProduceOnce { sequence, topic, key, payload } => {
            let kept = Kept {
                topic: topic.to_owned(),
                key: key.into_owned(),
                payload: payload.into_owned(),
                sequence,
            };
            return produce(sequence, kept, peer, inner);
        }
        Command::Produce { topic, key, payload } => {
            let (key, payload) = (key.into_owned(), payload.into_owned());
            let kept = Kept { topic: topic.to_owned(), key, payload, sequence: 0 };
            let (partition, offset) = inner.produce("", 0, kept);
            Reply::Ack { topic, offset: Offset(offset), partition: PartitionId(partition) }
        }
        Command::RegisterConsumer { id, persistent } => {
            peer.consumer = Some((id.to_owned(), persistent));
            let ends = inner.ends();
            if !persistent {
                return (encode(&Reply::OkPositions(ends)), true);
            }
            let first = || ends.iter().map(|(p, o)| (p.0, o.0)).collect();
            let positions = inner.positions.entry(id.to_owned()).or_insert_with(first);
            let positions = positions.iter().map(|(p, o)| (PartitionId(*p), Offset(*o))).collect();
            Reply::OkPositions(positions)
        }
        Command::Subscribe { pattern } => return (subscribe(pattern, peer, inner), true),
        Command::Ack { .. } if peer.plan.lose_ack => return (Vec::new(), false),
        Command::Ack { offset, partition, .. } => {
            if partition.0 >= PARTITIONS {
                Reply::Err(ErrorCode::BadNumber.with("there is no such partition"))
            } else {
                if let Some((id, true)) = &peer.consumer {
                    let positions = inner.positions.get_mut(id).expect("registered");
                    let position = positions.entry(partition.0).or_default();
                    *position = (*position).max(offset.0 + 1);
                }
                return (Vec::new(), true);
            }
        }
        Command::Fetch { pattern, offset, partition, max, .. } => {
            return (inner.listing(pattern, offset.0, partition.map(|p| p.0), max), true);
        }
        Command::Cluster => unreachable!("answered above"),
        Command::Topics { .. } => {
            let mut out = encode(&Reply::Topic { name: "metrics/a", records: 3 });
            Reply::End { count: 1, next: None }.encode(&mut out);
            return (out, true);
        }
        Command::Last { .. } => {
            let kept = inner.partitions[0].last().expect("a record");
            let mut out = message(kept, inner.partitions[0].len() as u64 - 1, 0);
            Reply::End { count: 1, next: None }.encode(&mut out);
            return (out, true);
        }
        Command::Ping { token } => return (encode(&Reply::Pong(token)), true),
        Command::Quit => return (encode(&Reply::Bye), false),
        other => panic!("the fake does not know {other:?}"),
    };
    (encode(&reply), true)
}

fn produce(sequence: u64, kept: Kept, peer: &mut Peer, inner: &mut Inner) -> (Vec<u8>, bool) {
    inner.seen.push((peer.connection, sequence));
    if peer.plan.silent_for_records {
        return (Vec::new(), true);
    }
    if let Some(at) = peer.plan.refuse.iter().position(|(s, _)| *s == sequence) {
        let (_, code) = peer.plan.refuse.remove(at);
        return (encode(&Reply::Err(code.with("as the plan says"))), true);
    }
    let topic = kept.topic.clone();
    let producer = peer.producer.clone();
    assert!(!producer.is_empty(), "a producer registers before it sends");
    let (partition, offset) = inner.produce(&producer, sequence, kept);
    peer.taken += 1;
    let last = peer.plan.drop_after.is_some_and(|after| peer.taken >= after);
    if last && peer.plan.swallow_last_answer {
        return (Vec::new(), false);
    }
    let (offset, partition) = (Offset(offset), PartitionId(partition));
    let mut answer = encode(&Reply::Ack { topic: &topic, offset, partition });
    if last && peer.plan.halve_last_answer {
        answer.truncate(answer.len() / 2);
    }
    (answer, !last)
}

fn subscribe(pattern: &str, peer: &Peer, inner: &mut Inner) -> Vec<u8> {
    let pattern = Pattern::new(pattern).expect("a pattern");
    let mut out = encode(&Reply::Ok);
    if let Some((id, true)) = &peer.consumer {
        for (partition, from) in &inner.positions[id] {
            let records = inner.partitions[*partition as usize].iter().enumerate();
            for (offset, kept) in records.skip(*from as usize) {
                if pattern.matches(&kept.topic) {
                    out.extend(message(kept, offset as u64, *partition));
                }
            }
        }
    }
    let session = inner.sessions.iter_mut().find(|s| s.connection == peer.connection);
    session.expect("its session").patterns.push(pattern);
    out
}

/// As a broker that is cut off does, it answers, and names no leader.
fn cluster(inner: &Inner, leader: Option<BrokerId>) -> Vec<u8> {
    let (id, address, state) = (BrokerId(1), "127.0.0.1:7000", "alive");
    let mut out = encode(&Reply::Broker { id, address, state });
    for (partition, end) in inner.ends() {
        let start = Offset(0);
        Reply::Partition { id: partition, leader, start, end }.encode(&mut out);
    }
    Reply::End { count: 1 + u64::from(PARTITIONS), next: None }.encode(&mut out);
    out
}

/// Waits for a condition, for at most ten seconds.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "not within ten seconds: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}
