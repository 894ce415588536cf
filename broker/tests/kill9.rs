//! `kill -9` of the broker, fifty times under load: what was acknowledged is there, once, in
//! order, and offsets have no hole.

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::{BrokerProcess, Nc, PATIENCE};

/// How often the broker is killed.
const KILLS: usize = 50;

/// Acknowledgements of each client between two kills, at least.
const ACKS_A_ROUND: u64 = 100;

/// Records that a client keeps unanswered.
const WINDOW: u64 = 64;

/// Where the broker listens now, and whether the clients shall end.
struct Stage {
    address: Mutex<SocketAddr>,
    ended: AtomicBool,
}

/// What a client was told: its number of each record, and the offset.
#[derive(Default)]
struct Told {
    acks: Mutex<BTreeMap<u64, u64>>,
    count: AtomicU64,
}

impl Told {
    fn ack(&self, number: u64, line: &str) {
        let offset = line.split('|').nth(2).and_then(|o| o.parse().ok()).expect(line);
        let before = self.acks.lock().expect("held").insert(number, offset);
        assert!(before.is_none_or(|before| before == offset), "{number} got two offsets");
        self.count.fetch_add(1, Ordering::SeqCst);
    }
}

/// Pipelines numbered records until the stage ends. With `once` what is unanswered after a break
/// is sent again, under the same number; else it is given up, as its fate is not known.
fn produce(stage: &Stage, told: &Told, name: &str, once: bool) {
    let mut next = 1;
    let mut first_unanswered = 1;
    while !stage.ended.load(Ordering::SeqCst) {
        let address = *stage.address.lock().expect("held");
        let Ok(socket) = std::net::TcpStream::connect(address) else {
            std::thread::yield_now();
            continue;
        };
        drop(socket);
        if once {
            next = first_unanswered;
        } else {
            first_unanswered = next;
        }
        let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            converse(stage, told, name, once, &mut next, &mut first_unanswered, address);
        }));
        // The connection broke, or the stage ended: both are as they should be.
        let _ = broken;
    }
}

fn converse(
    stage: &Stage,
    told: &Told,
    name: &str,
    once: bool,
    next: &mut u64,
    first_unanswered: &mut u64,
    address: SocketAddr,
) {
    let mut nc = Nc::connect(address);
    assert_eq!(nc.ask(&format!("REGISTER_PRODUCER|{name}")), "OK");
    while !stage.ended.load(Ordering::SeqCst) {
        let mut lines = String::new();
        while *next < *first_unanswered + WINDOW {
            lines += &if once {
                format!("PRODUCE_ONCE|{next}|load/{name}|{name}|{next}\n")
            } else {
                format!("PRODUCE|load/{name}|{name}|{next}\n")
            };
            *next += 1;
        }
        nc.send_bytes(lines.as_bytes());
        let line = nc.line().expect("the broker answers while it lives");
        if line.starts_with("ERR|unavailable|") {
            return;
        }
        told.ack(*first_unanswered, &line);
        *first_unanswered += 1;
    }
}

#[test]
fn nothing_acknowledged_is_lost_doubled_or_out_of_order_over_fifty_kills() {
    // The clients' broken connections are expected; their panics would only fill the output.
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().name().is_none_or(|name| !name.starts_with("client")) {
            quiet(info);
        }
    }));
    let folder = tempfile::tempdir().expect("a folder");
    let started = Instant::now();
    let mut broker = BrokerProcess::start(folder.path());
    let stage =
        Arc::new(Stage { address: Mutex::new(broker.address), ended: AtomicBool::new(false) });
    let told: Vec<Arc<Told>> = (0..2).map(|_| Arc::default()).collect();
    let clients: Vec<_> = told
        .iter()
        .zip([("plain", false), ("once", true)])
        .map(|(told, (name, once))| {
            let (stage, told) = (stage.clone(), told.clone());
            std::thread::Builder::new()
                .name(format!("client {name}"))
                .spawn(move || produce(&stage, &told, name, once))
                .expect("a thread")
        })
        .collect();
    for _ in 0..KILLS {
        wait_for_acks(&told);
        broker.kill();
        broker = BrokerProcess::start(folder.path());
        *stage.address.lock().expect("held") = broker.address;
    }
    wait_for_acks(&told);
    stage.ended.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().expect("a client ends");
    }
    let stored = read_all(&broker);
    let plain = check(&stored, "plain", &told[0]);
    let once = check(&stored, "once", &told[1]);
    println!(
        "{KILLS} kills in {:.1} s: {plain} plain and {once} once records acknowledged, {} stored; none lost, doubled, or out of order",
        started.elapsed().as_secs_f64(),
        stored.len()
    );
}

fn wait_for_acks(told: &[Arc<Told>]) {
    let goals: Vec<_> =
        told.iter().map(|told| told.count.load(Ordering::SeqCst) + ACKS_A_ROUND).collect();
    let deadline = Instant::now() + PATIENCE;
    while told.iter().zip(&goals).any(|(told, goal)| told.count.load(Ordering::SeqCst) < *goal) {
        assert!(Instant::now() < deadline, "the clients get no answers");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Every stored record as (partition, offset, topic, number), partition by partition.
fn read_all(broker: &BrokerProcess) -> Vec<(u32, u64, String, u64)> {
    let mut nc = broker.connect();
    let mut all = Vec::new();
    for partition in 0..2 {
        let mut next = 0;
        loop {
            let listing = nc.listing(&format!("FETCH|#|{next}|{partition}|1000|0"));
            let (end, messages) = listing.split_last().expect("an END");
            for message in messages {
                let fields: Vec<_> = message.split('|').collect();
                let offset: u64 = fields[2].parse().expect("an offset");
                let number = fields[5].parse().expect("a number");
                assert_eq!(offset, next, "offsets have no hole");
                next += 1;
                all.push((partition, offset, fields[1].to_owned(), number));
            }
            assert!(end.starts_with("END|"), "{end}");
            if messages.is_empty() {
                break;
            }
        }
    }
    all
}

fn check(stored: &[(u32, u64, String, u64)], name: &str, told: &Told) -> usize {
    let topic = format!("load/{name}");
    let mine: Vec<_> = stored.iter().filter(|record| record.2 == topic).collect();
    let ascending = mine.windows(2).all(|pair| pair[0].3 < pair[1].3);
    assert!(ascending, "{name}: each once, in the order in which they were sent");
    let by_number: BTreeMap<_, _> = mine.iter().map(|record| (record.3, record.1)).collect();
    let acks = told.acks.lock().expect("held");
    for (number, offset) in acks.iter() {
        assert_eq!(by_number.get(number), Some(offset), "{name}: record {number}");
    }
    assert!(acks.len() as u64 >= KILLS as u64 * ACKS_A_ROUND);
    acks.len()
}
