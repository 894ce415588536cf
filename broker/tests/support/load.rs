//! Clients that produce without end, go from broker to broker when one does not answer, and
//! remember what they were told.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Nc, wait_for};

/// Records that a client keeps unanswered.
const WINDOW: u64 = 8;

/// Pause before the next broker is tried, so that looking for one that lives costs nothing.
const PAUSE: Duration = Duration::from_millis(20);

/// Keys of each client, so that both partitions get some.
const KEYS: u64 = 4;

/// Where a record is, and which of a client's connections brought it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub partition: u32,
    pub offset: u64,
    connection: u64,
}

/// What a client was told: the place of each of its numbered records.
pub struct Told {
    pub name: &'static str,
    once: bool,
    acks: Mutex<BTreeMap<u64, Place>>,
}

/// Two clients at work: one with PRODUCE, one with PRODUCE_ONCE.
pub struct Load {
    ended: Arc<AtomicBool>,
    clients: Vec<(Arc<Told>, JoinHandle<()>)>,
}

impl Load {
    pub fn start(brokers: &[SocketAddr]) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let clients = [("plain", false), ("once", true)].map(|(name, once)| {
            let told = Arc::new(Told { name, once, acks: Mutex::default() });
            let (brokers, ended, mine) = (brokers.to_vec(), ended.clone(), told.clone());
            let client = std::thread::spawn(move || produce(&brokers, &mine, &ended));
            (told, client)
        });
        Self { ended, clients: clients.into() }
    }

    /// Waits until each client was told of so many more records.
    pub fn wait_for_more(&self, more: usize) {
        let goals: Vec<_> = self.clients.iter().map(|(told, _)| told.count() + more).collect();
        wait_for("the clients are answered", || {
            self.clients.iter().zip(&goals).all(|((told, _), goal)| told.count() >= *goal)
        });
    }

    /// Ends the clients; what they were told.
    pub fn end(self) -> Vec<Arc<Told>> {
        self.ended.store(true, Ordering::SeqCst);
        let ended = self.clients.into_iter().map(|(told, client)| {
            client.join().expect("a client ends");
            told
        });
        ended.collect()
    }
}

impl Told {
    pub fn count(&self) -> usize {
        self.acks.lock().expect("held").len()
    }

    /// The line that produces a record.
    pub fn line(&self, number: u64) -> String {
        let (name, key) = (self.name, number % KEYS);
        if self.once {
            format!("PRODUCE_ONCE|{number}|load/{name}|{name}{key}|{number}")
        } else {
            format!("PRODUCE|load/{name}|{name}{key}|{number}")
        }
    }

    /// The answer that every repeat of a record must get.
    pub fn answer(&self, number: u64) -> String {
        let place = self.acks.lock().expect("held")[&number];
        format!("ACK|load/{}|{}|{}", self.name, place.offset, place.partition)
    }

    pub fn numbers(&self) -> Vec<u64> {
        self.acks.lock().expect("held").keys().copied().collect()
    }

    fn ack(&self, number: u64, line: &str, connection: u64) -> bool {
        let Some(line) = line.strip_prefix("ACK|") else {
            assert!(line.starts_with("ERR|unavailable|"), "{}: {line}", self.name);
            return false;
        };
        let numbers: Vec<u64> =
            line.split('|').skip(1).map(|field| field.parse().expect(line)).collect();
        let place = Place { partition: numbers[1] as u32, offset: numbers[0], connection };
        let before = self.acks.lock().expect("held").insert(number, place);
        let is_same = |b: Place| (b.partition, b.offset) == (place.partition, place.offset);
        assert!(before.is_none_or(is_same), "{number} got two places");
        true
    }

    /// Holds what was told against what is there: each acknowledged record at its place, none
    /// twice, those of one connection and one key in their order.
    pub fn check(&self, stored: &[(u32, u64, String)]) {
        let prefix = format!("load/{}|", self.name);
        let mut places = BTreeMap::new();
        for (partition, offset, record) in stored {
            let Some(record) = record.strip_prefix(&prefix) else { continue };
            let (_, number) = record.split_once('|').expect(record);
            let number: u64 = number.parse().expect(record);
            let before = places.insert(number, (*partition, *offset));
            assert!(before.is_none(), "{} {number} is there twice", self.name);
        }
        let mut last = BTreeMap::new();
        for (number, place) in self.acks.lock().expect("held").iter() {
            let there = places.get(number);
            assert_eq!(there, Some(&(place.partition, place.offset)), "{} {number}", self.name);
            let key = (number % KEYS, place.connection);
            let before = last.insert(key, place.offset);
            assert!(
                before.is_none_or(|before| before < place.offset),
                "{} {number} overtook another of its key",
                self.name
            );
        }
    }
}

/// Produces numbered records until it is ended. With `once` what is unanswered after a break is
/// sent again, under the same number; else it is given up, as its fate is not known.
fn produce(brokers: &[SocketAddr], told: &Told, ended: &AtomicBool) {
    let mut next = 1;
    for (connection, address) in (0..).zip(brokers.iter().cycle()) {
        if ended.load(Ordering::SeqCst) {
            return;
        }
        // A connection that breaks is as it should be: brokers are killed.
        if converse(*address, told, ended, connection, &mut next).is_err() {
            std::thread::sleep(PAUSE);
        }
    }
}

fn converse(
    address: SocketAddr,
    told: &Told,
    ended: &AtomicBool,
    connection: u64,
    next: &mut u64,
) -> io::Result<()> {
    let mut nc = Nc::try_connect(address)?;
    nc.try_send(&format!("REGISTER_PRODUCER|{}", told.name))?;
    let registered = nc.try_line()?;
    assert_eq!(registered.as_deref(), Some("OK"));
    let (mut unanswered, mut sent) = (*next, *next);
    while !ended.load(Ordering::SeqCst) {
        let mut lines = Vec::new();
        while sent < unanswered + WINDOW {
            lines.push(told.line(sent));
            sent += 1;
        }
        if !told.once {
            *next = sent;
        }
        nc.try_send(&lines.join("\n"))?;
        let Some(line) = nc.try_line()? else { return Ok(()) };
        if !told.ack(unanswered, &line, connection) {
            return Ok(());
        }
        unanswered += 1;
        if told.once {
            *next = unanswered;
        }
    }
    Ok(())
}
