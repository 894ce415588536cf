//! What retention drops: readers are told, counts stay right, consumers go on, and a restart
//! changes nothing.

mod support;

use std::time::{Duration, Instant};

use support::{BrokerProcess, Nc, PATIENCE};

/// Uncompressed, so that bytes are what was sent.
const FLAGS: [&str; 8] = [
    "--partitions",
    "1",
    "--segment-bytes",
    "1048576",
    "--retention-bytes",
    "2097152",
    "--compression",
    "none",
];

/// As the flags say.
const KEPT_BYTES: u64 = 2 << 20;

/// Records a topic, counted by reading all of them.
fn counted(nc: &mut Nc, start: u64) -> Vec<(String, u64)> {
    let mut counts = std::collections::BTreeMap::new();
    let mut next = start;
    loop {
        let listing = nc.listing(&format!("FETCH|#|{next}|0|10000|0"));
        let (end, messages) = listing.split_last().expect("an END");
        for message in messages {
            let topic = message.split('|').nth(1).expect("a topic");
            *counts.entry(topic.to_owned()).or_default() += 1;
        }
        next = end.rsplit(':').next().and_then(|n| n.parse().ok()).expect(end);
        if messages.is_empty() {
            return counts.into_iter().collect();
        }
    }
}

fn topics(nc: &mut Nc) -> Vec<(String, u64)> {
    let mut listing = nc.listing("TOPICS|#");
    listing.pop();
    let count = |line: String| {
        let mut fields = line.split('|').skip(1);
        let name = fields.next().expect("a name").to_owned();
        (name, fields.next().and_then(|n| n.parse().ok()).expect("a number"))
    };
    listing.into_iter().map(count).collect()
}

#[test]
fn what_is_too_much_is_dropped_and_everyone_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = BrokerProcess::start_with(folder.path(), &FLAGS);
    let mut nc = broker.connect();
    assert_eq!(nc.ask("REGISTER_CONSUMER|c|1"), "OK|0:0");
    let payload = "x".repeat(4000);
    assert!(nc.ask(&format!("PRODUCE|early|k|{payload}")).starts_with("ACK|"));
    for n in 0..2000 {
        assert!(nc.ask(&format!("PRODUCE|t/{}|k|{payload}", n % 7)).starts_with("ACK|"));
    }
    let deadline = Instant::now() + PATIENCE;
    let start: u64 = loop {
        let answer = nc.listing("FETCH|#|0|0|1|0").swap_remove(0);
        if let Some(text) = answer.strip_prefix("ERR|offset_out_of_range|") {
            let start = text.rsplit(' ').next().and_then(|n| n.parse().ok()).expect(text);
            // A round may have come before the last records: then another drops more.
            if (2001 - start) * payload.len() as u64 <= KEPT_BYTES {
                break start;
            }
        }
        assert!(Instant::now() < deadline, "8 MB are more than 2");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(start > 500 && start < 2001, "{start}");
    let known = counted(&mut nc, start);
    assert_eq!(known.iter().map(|(_, count)| count).sum::<u64>(), 2001 - start);
    assert_eq!(topics(&mut nc), known, "TOPICS counts what is kept, and `early` is gone");
    assert_eq!(nc.listing("LAST|early"), ["END|0"]);
    broker.kill();
    let broker = BrokerProcess::start_with(folder.path(), &FLAGS);
    let mut nc = broker.connect();
    assert_eq!(topics(&mut nc), known);
    // The persistent consumer stood at 0: it goes on with the first record that is kept.
    assert_eq!(nc.ask("REGISTER_CONSUMER|c|1"), "OK|0:0");
    assert_eq!(nc.ask("SUBSCRIBE|#"), "OK");
    let first = nc.line().expect("a record");
    assert_eq!(first.split('|').nth(2), Some(start.to_string().as_str()));
    broker.terminate();
    let broker = BrokerProcess::start_with(folder.path(), &FLAGS);
    assert!(broker.connect().ask("PRODUCE|t/0|k|more").starts_with("ACK|t/0|2001|"));
}
