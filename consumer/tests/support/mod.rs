//! A broker of one partition, scripted by the test, and the consumer as a process before it.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(dead_code, reason = "each test takes what it needs")]

pub mod twilio;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aklight_common::wire::{self, ErrorCode, ProducerMode, Reply};
use aklight_common::{BrokerId, Offset, PartitionId, Pattern};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longer than anything here takes on a busy machine.
pub const LONG: Duration = Duration::from_secs(30);

pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("soon enough")
}

/// Waits for a condition; the text says what was waited for.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {LONG:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[derive(Default)]
pub struct Log {
    /// Topic and payload of each record; its place is its offset.
    pub records: Vec<(String, String)>,
    /// The next offset that each consumer has not acknowledged.
    pub acknowledged: HashMap<String, u64>,
    /// Have no leader: ends are what this broker happens to know.
    pub leaderless: bool,
    /// How often it was asked where the log ends.
    pub asked_for_ends: usize,
    /// How often a consumer registered.
    pub registrations: usize,
    /// Whose turn it was: a partition of their own, so that tests can count the other records.
    pub turns: Vec<(String, String)>,
    /// Where the partition of the other records begins: what was before is kept no more.
    pub start: u64,
    /// How often a producer of turns registered.
    pub turn_takers: usize,
    /// How many records of alerts are still refused in passing.
    pub busy: usize,
    /// Turns are refused: the token does not allow them, say.
    pub refuses_turns: bool,
    highest: HashMap<String, u64>,
    once: HashMap<(String, u64), (u64, PartitionId)>,
}

/// Where turns are: where the key `consumers/c1` leads to.
const TURNS: PartitionId = PartitionId(1);
/// How far below its producer's highest a sequence may be, as in PROTOCOL.md.
const SEQUENCE_WINDOW: u64 = 8_192;

impl Log {
    fn is_busy(&mut self) -> bool {
        let busy = self.busy > 0;
        self.busy = self.busy.saturating_sub(1);
        busy
    }

    /// The records of a partition.
    fn records_of(&self, partition: PartitionId) -> &[(String, String)] {
        if partition == TURNS { &self.turns } else { &self.records }
    }
}

/// The broker. It lives as long as the test.
#[derive(Clone)]
pub struct FakeBroker {
    pub address: SocketAddr,
    shared: Arc<(Mutex<Log>, Condvar)>,
}

impl FakeBroker {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let broker =
            Self { address: listener.local_addr().expect("an address"), shared: Arc::default() };
        let accepting = broker.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let broker = accepting.clone();
                std::thread::spawn(move || Connection::new(broker, &stream).serve(stream));
            }
        });
        broker
    }

    /// One that is not there any more.
    pub fn gone() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        Self { address: listener.local_addr().expect("an address"), shared: Arc::default() }
    }

    pub fn log(&self) -> MutexGuard<'_, Log> {
        self.shared.0.lock().expect("a lock")
    }

    pub fn append(&self, topic: &str, payload: &str) -> u64 {
        let mut log = self.log();
        log.records.push((topic.to_owned(), payload.to_owned()));
        self.shared.1.notify_all();
        log.records.len() as u64 - 1
    }

    /// A sample of a producer's CPU.
    pub fn sample(&self, producer: &str, ts: u64, value: f64) -> u64 {
        let payload = format!("{{\"ts\":{ts},\"value\":{value},\"unit\":\"percent\"}}");
        self.append(&format!("metrics/docker/{producer}/cpu"), &payload)
    }

    /// The states that were recorded under `alerts/{rule}/…`, in order.
    pub fn announced(&self, rule: &str) -> Vec<String> {
        let prefix = format!("alerts/{rule}/");
        let state = |payload: &str| {
            let json: serde_json::Value = serde_json::from_str(payload).expect("JSON");
            json["state"].as_str().expect("a state").to_owned()
        };
        let log = self.log();
        let of_rule = log.records.iter().filter(|(topic, _)| topic.starts_with(&prefix));
        of_rule.map(|(_, payload)| state(payload)).collect()
    }
}

struct Connection {
    broker: FakeBroker,
    out: Arc<Mutex<TcpStream>>,
    consumer: String,
    producer: String,
    cumulative: bool,
    position: u64,
    patterns: Arc<Mutex<Vec<Pattern>>>,
}

impl Connection {
    fn new(broker: FakeBroker, stream: &TcpStream) -> Self {
        let out = Arc::new(Mutex::new(stream.try_clone().expect("a handle")));
        Self {
            broker,
            out,
            consumer: String::new(),
            producer: String::new(),
            cumulative: false,
            position: 0,
            patterns: Arc::default(),
        }
    }

    fn serve(mut self, stream: TcpStream) {
        for line in BufReader::new(stream).split(b'\n') {
            let Ok(line) = line else { return };
            let command = wire::Command::decode(&line).expect("the client speaks the protocol");
            if self.answer(&command).is_none() {
                return;
            }
        }
    }

    fn say(&self, reply: &Reply<'_>) -> Option<()> {
        let mut line = Vec::new();
        reply.encode(&mut line);
        self.out.lock().expect("a lock").write_all(&line).ok()
    }

    fn answer(&mut self, command: &wire::Command<'_>) -> Option<()> {
        match command {
            wire::Command::RegisterConsumer { id, .. } => {
                self.consumer = (*id).to_owned();
                let mut log = self.broker.log();
                log.registrations += 1;
                let end = log.records.len() as u64;
                self.position = *log.acknowledged.entry(self.consumer.clone()).or_insert(end);
                drop(log);
                self.say(&Reply::OkPositions(vec![(PartitionId(0), Offset(self.position))]))
            }
            wire::Command::Subscribe { pattern } => {
                self.say(&Reply::Ok)?;
                let mut patterns = self.patterns.lock().expect("a lock");
                patterns.push(Pattern::new(pattern).expect("checked"));
                if patterns.len() == 1 {
                    self.push_records();
                }
                Some(())
            }
            wire::Command::Ack { offset, .. } => {
                let mut log = self.broker.log();
                assert!(offset.0 < log.records.len() as u64, "acknowledged what is not there");
                let kept = log.acknowledged.entry(self.consumer.clone()).or_default();
                *kept = (*kept).max(offset.0 + 1);
                Some(())
            }
            wire::Command::RegisterProducer { id, mode } => {
                self.producer = (*id).to_owned();
                self.cumulative = *mode == ProducerMode::Cumulative;
                self.broker.log().turn_takers += usize::from(id.contains(".turns."));
                self.say(&Reply::Ok)
            }
            wire::Command::ProduceOnce { sequence, topic, payload, .. } => {
                let key = (self.producer.clone(), *sequence);
                if topic.starts_with("consumers/") && self.broker.log().refuses_turns {
                    return self.say(&Reply::Err(ErrorCode::Forbidden.with("not yours")));
                }
                if topic.starts_with("alerts/") && self.broker.log().is_busy() {
                    return self.say(&Reply::Err(ErrorCode::Busy.with("later")));
                }
                let highest = {
                    let mut log = self.broker.log();
                    let highest = log.highest.entry(self.producer.clone()).or_default();
                    *highest = (*highest).max(*sequence);
                    *highest
                };
                if sequence + SEQUENCE_WINDOW < highest {
                    return self.say(&Reply::Err(ErrorCode::BadSequence.with("too old")));
                }
                let text = std::str::from_utf8(payload).expect("text");
                let known = self.broker.log().once.get(&key).copied();
                let (offset, partition) = known.unwrap_or_else(|| {
                    let stored = if topic.starts_with("consumers/") {
                        let mut log = self.broker.log();
                        log.turns.push(((*topic).to_owned(), text.to_owned()));
                        (log.turns.len() as u64 - 1, TURNS)
                    } else {
                        (self.broker.append(topic, text), PartitionId(0))
                    };
                    self.broker.log().once.insert(key, stored);
                    stored
                });
                let offset = Offset(offset);
                match self.cumulative {
                    true => self.say(&Reply::Acks(1)),
                    false => self.say(&Reply::Ack { topic, offset, partition }),
                }
            }
            wire::Command::Cluster => {
                let address = self.broker.address.to_string();
                let id = BrokerId(1);
                let (start, end, turns_end, leader) = {
                    let mut log = self.broker.log();
                    log.asked_for_ends += 1;
                    let ends = (log.records.len() as u64, log.turns.len() as u64);
                    let leader = (!log.leaderless).then_some(id);
                    (Offset(log.start), Offset(ends.0.max(log.start)), Offset(ends.1), leader)
                };
                self.say(&Reply::Broker { id, address: &address, state: "alive" })?;
                self.say(&Reply::Partition { id: PartitionId(0), leader, start, end })?;
                let start = Offset(0);
                self.say(&Reply::Partition { id: TURNS, leader, start, end: turns_end })?;
                self.say(&Reply::End { count: 3, next: None })
            }
            wire::Command::Last { pattern } => {
                let pattern = Pattern::new(pattern).expect("checked");
                let mut newest = std::collections::BTreeMap::new();
                let log = self.broker.log();
                for partition in [PartitionId(0), TURNS] {
                    for (n, (topic, payload)) in log.records_of(partition).iter().enumerate() {
                        if pattern.matches(topic) {
                            newest.insert(topic.clone(), (partition, n as u64, payload.clone()));
                        }
                    }
                }
                drop(log);
                for (topic, (partition, offset, payload)) in &newest {
                    self.say_record(topic, Offset(*offset), *partition, payload)?;
                }
                self.say(&Reply::End { count: newest.len() as u64, next: None })
            }
            wire::Command::Fetch { pattern, offset, partition, max, .. } => {
                let pattern = Pattern::new(pattern).expect("checked");
                let partition = partition.unwrap_or(PartitionId(0));
                let records = self.broker.log().records_of(partition).to_vec();
                let matching =
                    records.iter().enumerate().skip(usize::try_from(offset.0).expect("small"));
                let found: Vec<_> = matching
                    .filter(|(_, (topic, _))| pattern.matches(topic))
                    .take(usize::try_from(*max).expect("small"))
                    .collect();
                for (n, (topic, payload)) in &found {
                    self.say_record(topic, Offset(*n as u64), partition, payload)?;
                }
                let next = vec![(partition, Offset(records.len() as u64))];
                self.say(&Reply::End { count: found.len() as u64, next: Some(next) })
            }
            wire::Command::Ping { token } => self.say(&Reply::Pong(token)),
            wire::Command::Quit => {
                self.say(&Reply::Bye);
                None
            }
            other => panic!("this fake broker does not know {other:?}"),
        }
    }

    fn say_record(
        &self,
        topic: &str,
        offset: Offset,
        partition: PartitionId,
        payload: &str,
    ) -> Option<()> {
        let (key, payload) = (b"k"[..].into(), payload.as_bytes().into());
        self.say(&Reply::Message { topic, offset, partition, key, payload })
    }

    fn push_records(&self) {
        let (broker, out, patterns) =
            (self.broker.clone(), Arc::clone(&self.out), Arc::clone(&self.patterns));
        let mut next = usize::try_from(self.position).expect("small");
        std::thread::spawn(move || {
            loop {
                let mut lines = Vec::new();
                {
                    let (log, changed) = &*broker.shared;
                    let log = changed
                        .wait_while(log.lock().expect("a lock"), |log| log.records.len() <= next)
                        .expect("a lock");
                    for (topic, payload) in &log.records[next..] {
                        let matches = |pattern: &Pattern| pattern.matches(topic);
                        if patterns.lock().expect("a lock").iter().any(matches) {
                            let (offset, partition) = (Offset(next as u64), PartitionId(0));
                            let (key, payload) = (b"k"[..].into(), payload.as_bytes().into());
                            Reply::Message { topic, offset, partition, key, payload }
                                .encode(&mut lines);
                        }
                        next += 1;
                    }
                }
                if out.lock().expect("a lock").write_all(&lines).is_err() {
                    return;
                }
            }
        });
    }
}

/// A running consumer, whose lines are gathered.
pub struct Consumer {
    child: Child,
    out: Arc<Mutex<Vec<String>>>,
    err: Arc<Mutex<Vec<String>>>,
}

impl Consumer {
    pub fn start(broker: &FakeBroker, folder: &Path, args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_aklight-consumer"))
            .env_clear()
            .envs(env.iter().copied())
            .args(["--brokers", &broker.address.to_string(), "--id", "c1"])
            .args(["--offsets-dir", folder.to_str().expect("text")])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let out = gather(child.stdout.take().expect("piped"));
        let err = gather(child.stderr.take().expect("piped"));
        Self { child, out, err }
    }

    pub fn lines(&self) -> Vec<String> {
        self.out.lock().expect("a lock").clone()
    }

    pub fn log(&self) -> String {
        self.err.lock().expect("a lock").join("\n")
    }

    pub fn count(&self, mark: &str) -> usize {
        self.lines().iter().filter(|line| line.contains(mark)).count()
    }

    pub async fn until_line(&self, mark: &str) {
        until(&format!("a line with '{mark}' in {:#?}\n{}", self.lines(), self.log()), || {
            self.count(mark) > 0
        })
        .await;
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        kill(pid, signal).expect("signalled");
    }

    /// Waits for its end; gives back the exit status and all its lines.
    pub fn ended(mut self) -> (ExitStatus, Vec<String>, String) {
        let status = self.child.wait().expect("waited for");
        // The readers hold the other ends until they have seen the end of the streams.
        let deadline = Instant::now() + LONG;
        while Arc::strong_count(&self.out) > 1 || Arc::strong_count(&self.err) > 1 {
            assert!(Instant::now() < deadline, "the streams stay open");
            std::thread::sleep(Duration::from_millis(5));
        }
        (status, self.lines(), self.log())
    }

    /// kill -9. Gives back what it printed.
    pub fn killed(self) -> Vec<String> {
        self.signal(Signal::SIGKILL);
        self.ended().1
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // A failed test leaves nothing running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn gather(stream: impl std::io::Read + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let gathered = Arc::clone(&lines);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            gathered.lock().expect("a lock").push(line);
        }
    });
    lines
}
