//! A seldom topic out of large batches: found record by record, from wherever it is asked for.

mod support;

use support::{BrokerProcess, Nc};

const COUNT: u64 = 60_000;
const TOPICS: u64 = 1_000;

fn produce(nc: &mut Nc) {
    for from in (0..COUNT).step_by(5_000) {
        let lines = (from..from + 5_000)
            .map(|n| format!("PRODUCE|metrics/docker/web{}/cpu||{n:0>80}\n", n % TOPICS));
        nc.send(&lines.collect::<String>());
        for n in from..from + 5_000 {
            assert_eq!(nc.line(), Some(format!("ACK|metrics/docker/web{}/cpu|{n}|0", n % TOPICS)));
        }
    }
}

/// The offsets of a topic's records from `next` on, so many at a time.
fn offsets(nc: &mut Nc, topic: &str, mut next: u64, max: u64) -> Vec<u64> {
    let mut found = Vec::new();
    loop {
        let listing = nc.listing(&format!("FETCH|{topic}|{next}|0|{max}|0"));
        let (end, messages) = listing.split_last().expect("an END");
        assert!(messages.len() as u64 <= max);
        for message in messages {
            let fields: Vec<&str> = message.split('|').collect();
            assert_eq!(fields[1], topic);
            assert_eq!(fields[5].parse(), fields[2].parse::<u64>(), "{message}");
            found.push(fields[2].parse().expect("an offset"));
        }
        let upto = end.rsplit(':').next().and_then(|n| n.parse().ok()).expect(end);
        if upto == next {
            return found;
        }
        next = upto;
    }
}

#[test]
fn a_seldom_topic_is_found_whole_from_wherever_it_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    // Two segments and more; the last ones of what comes is still in memory.
    let broker = BrokerProcess::start_with(
        folder.path(),
        &["--partitions", "1", "--segment-bytes", "3145728"],
    );
    let mut nc = broker.connect();
    produce(&mut nc);
    let topic = "metrics/docker/web700/cpu";
    let expect =
        |from: u64| (0..COUNT).filter(|n| n % TOPICS == 700 && *n >= from).collect::<Vec<_>>();
    assert_eq!(expect(0).len() as u64, COUNT / TOPICS);
    for (from, max) in [(0, 10_000), (0, 1), (0, 7), (700, 3), (701, 3), (20_123, 100), (59_701, 5)]
    {
        assert_eq!(offsets(&mut nc, topic, from, max), expect(from), "from {from}, {max} each");
    }
    assert!(offsets(&mut nc, "metrics/docker/web1000/cpu", 0, 10).is_empty());
    let sparse = nc.listing("FETCH|metrics/docker/+/cpu|31234|0|4|0");
    assert_eq!(sparse.len(), 5, "four and an END: {sparse:?}");
    assert!(sparse[0].starts_with("MESSAGE|metrics/docker/web234/cpu|31234|0|"), "{sparse:?}");
}
