//! A broker in memory: takes registrations and PRODUCE_ONCE, tells repeats, and can be stopped
//! and started on its port with what it stored, or told to answer nothing.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use aklight_common::limits::{LINE_BYTES_MAX, SEQUENCE_WINDOW};
use aklight_common::wire::{Command, Line, LineCutter};

/// A record as it was stored.
#[derive(Debug, Clone)]
pub struct Stored {
    pub sequence: u64,
    pub topic: String,
    pub key: String,
    pub sample: serde_json::Value,
}

impl Stored {
    pub fn ts(&self) -> u64 {
        self.sample["ts"].as_u64().expect("a time")
    }

    pub fn is_late(&self) -> bool {
        self.sample["late"] == true
    }
}

#[derive(Default)]
struct Memory {
    records: Vec<Stored>,
    offsets: HashMap<u64, usize>,
    highest: u64,
    repeats: usize,
    below_window: usize,
    connections: Vec<TcpStream>,
}

struct Shared {
    memory: Mutex<Memory>,
    /// Records stored from which on nothing is answered.
    silent_from: AtomicUsize,
    stopping: AtomicBool,
}

impl Shared {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("no test thread panicked")
    }
}

pub struct FakeBroker {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl FakeBroker {
    pub fn start() -> Self {
        let shared = Arc::new(Shared {
            memory: Mutex::default(),
            silent_from: AtomicUsize::new(usize::MAX),
            stopping: AtomicBool::new(false),
        });
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut broker = Self { address, shared, accepting: None };
        broker.accept_on(listener);
        broker
    }

    fn accept_on(&mut self, listener: TcpListener) {
        let shared = self.shared.clone();
        self.accepting = Some(std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stopping.load(Ordering::SeqCst) {
                    return;
                }
                let stream = stream.expect("a connection");
                shared.memory().connections.push(stream.try_clone().expect("a clone"));
                let shared = shared.clone();
                std::thread::spawn(move || serve(stream, &shared));
            }
        }));
    }

    /// Ends all connections and listens no more.
    pub fn stop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            accepting.join().expect("accepted");
        }
        for connection in self.shared.memory().connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Listens again, with what was stored before.
    pub fn restart(&mut self) {
        self.shared.stopping.store(false, Ordering::SeqCst);
        self.fall_silent_after(usize::MAX);
        self.accept_on(TcpListener::bind(self.address).expect("the same port"));
    }

    /// Stores from now on, and answers nothing.
    pub fn fall_silent(&self) {
        self.fall_silent_after(0);
    }

    /// Stores everything, and answers nothing once it has stored so many records.
    pub fn fall_silent_after(&self, records: usize) {
        self.shared.silent_from.store(records, Ordering::SeqCst);
    }

    /// How many records are stored.
    pub fn count(&self) -> usize {
        self.shared.memory().records.len()
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub fn records(&self) -> Vec<Stored> {
        self.shared.memory().records.clone()
    }

    /// The samples of one of the producer's own metrics.
    pub fn records_of(&self, metric: &str) -> Vec<Stored> {
        self.records_in(&format!("metrics/docker/p1/{metric}"))
    }

    /// The records of a topic.
    pub fn records_in(&self, topic: &str) -> Vec<Stored> {
        self.records().into_iter().filter(|record| record.topic == topic).collect()
    }

    /// How many records came that were stored before.
    pub fn repeats(&self) -> usize {
        self.shared.memory().repeats
    }

    /// How many sequences came that a broker would have refused.
    pub fn below_window(&self) -> usize {
        self.shared.memory().below_window
    }
}

impl Drop for FakeBroker {
    fn drop(&mut self) {
        self.stop();
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) {
    let mut cutter = LineCutter::new(LINE_BYTES_MAX);
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(read) => cutter.buffer().extend_from_slice(&chunk[..read]),
        }
        while let Some(Line::Whole(line)) = cutter.next_line() {
            let Some(answer) = answer(&line, shared) else { continue };
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

fn answer(line: &[u8], shared: &Shared) -> Option<String> {
    match Command::decode(line).expect("a command of the protocol") {
        Command::RegisterProducer { .. } => Some("OK\n".to_owned()),
        Command::ProduceOnce { sequence, topic, key, payload } => {
            let mut memory = shared.memory();
            if sequence + SEQUENCE_WINDOW < memory.highest {
                memory.below_window += 1;
                return Some("ERR|bad_sequence|too old\n".to_owned());
            }
            memory.highest = memory.highest.max(sequence);
            let offset = match memory.offsets.get(&sequence) {
                Some(offset) => {
                    let offset = *offset;
                    memory.repeats += 1;
                    offset
                }
                None => {
                    let offset = memory.records.len();
                    memory.records.push(Stored {
                        sequence,
                        topic: topic.to_owned(),
                        key: String::from_utf8(key.to_vec()).expect("text"),
                        sample: serde_json::from_slice(&payload).expect("JSON"),
                    });
                    memory.offsets.insert(sequence, offset);
                    offset
                }
            };
            let silent = memory.records.len() > shared.silent_from.load(Ordering::SeqCst);
            (!silent).then(|| format!("ACK|{topic}|{offset}|0\n"))
        }
        other => panic!("a producer does not say {other:?}"),
    }
}
