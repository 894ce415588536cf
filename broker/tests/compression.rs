//! Closed segments are compressed by themselves, and nobody who reads or restarts can tell.

mod support;

use std::path::Path;

use support::{BrokerProcess, Nc, wait_for};

const FLAGS: [&str; 4] = ["--partitions", "1", "--segment-bytes", "1048576"];

/// What a producer sends in a second is about this long.
fn payload(n: u64) -> String {
    format!(
        r#"{{"ts":{},"v":{}.{},"unit":"percent","host":"web{}","cores":4}}"#,
        1_790_000_000_000 + n,
        n % 97,
        n % 10,
        n % 5
    )
}

fn produce(nc: &mut Nc, numbers: std::ops::Range<u64>) {
    let lines = numbers.clone().map(|n| {
        format!("PRODUCE|metrics/docker/web{}/cpu|web{}|{}\n", n % 50, n % 50, payload(n))
    });
    nc.send(&lines.collect::<String>());
    for n in numbers {
        assert_eq!(nc.line(), Some(format!("ACK|metrics/docker/web{}/cpu|{n}|0", n % 50)));
    }
}

/// Offset, topic and payload of everything that a pattern matches, in order.
fn records(nc: &mut Nc, pattern: &str) -> Vec<(u64, String, String)> {
    let (mut found, mut next) = (Vec::new(), 0);
    loop {
        let listing = nc.listing(&format!("FETCH|{pattern}|{next}|0|10000|0"));
        let (end, messages) = listing.split_last().expect("an END");
        for message in messages {
            let fields: Vec<&str> = message.splitn(6, '|').collect();
            let offset = fields[2].parse().expect("an offset");
            found.push((offset, fields[1].to_owned(), fields[5].to_owned()));
        }
        let upto = end.rsplit(':').next().and_then(|n| n.parse().ok()).expect(end);
        if upto == next {
            return found;
        }
        next = upto;
    }
}

/// Bytes of all segments.
fn bytes(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder.join("partition_0.log")).expect("a log");
    let files = files.map(|file| file.expect("a file"));
    let segments = files.filter(|file| file.path().extension().is_some_and(|e| e == "log"));
    segments.map(|file| file.metadata().map_or(0, |about| about.len())).sum()
}

#[test]
fn history_takes_less_room_and_reads_as_before_across_kills() {
    const COUNT: u64 = 60_000;
    let folder = tempfile::tempdir().expect("a folder");
    let broker = BrokerProcess::start_with(folder.path(), &FLAGS);
    let mut nc = broker.connect();
    for from in (0..COUNT).step_by(2000) {
        produce(&mut nc, from..from + 2000);
    }
    let stored = records(&mut nc, "#");
    assert_eq!(stored.len() as u64, COUNT);
    for (n, (offset, _, text)) in (0..).zip(&stored) {
        assert_eq!((*offset, text.as_str()), (n, payload(n).as_str()));
    }
    let before = bytes(folder.path());
    assert!(before > 80 * COUNT, "{before}: nothing is compressed while it is written");
    wait_for("segments are compressed", || bytes(folder.path()) * 2 < before);
    let is_web7 = |(_, topic, _): &&(u64, String, String)| topic.ends_with("/web7/cpu");
    let of_web7: Vec<_> = stored.iter().filter(is_web7).cloned().collect();
    assert_eq!(of_web7.len() as u64, COUNT / 50);

    assert_eq!(records(&mut nc, "#"), stored);
    assert_eq!(records(&mut nc, "metrics/docker/web7/cpu"), of_web7);
    broker.kill();
    // What is compressed is read whatever is asked for from now on.
    let flags = [&FLAGS[..], &["--compression", "none"]].concat();
    let broker = BrokerProcess::start_with(folder.path(), &flags);
    let mut nc = broker.connect();
    assert_eq!(records(&mut nc, "#"), stored);
    assert_eq!(records(&mut nc, "+/docker/web7/#"), of_web7);
    produce(&mut nc, COUNT..COUNT + 10);
    broker.terminate();
}
