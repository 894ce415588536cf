//! From the kernel's files to a broker: what arrives, and that all of it arrives once.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use crate::support::{FakeBroker, Producer, Stored, wait_until};
use aklight_producer::outgoing::Outgoing;
use aklight_producer::spool::Spool;
use nix::sys::signal::Signal;

const METRICS: [&str; 4] = ["cpu", "memory", "disk", "network"];

/// The tests' producers measure this often.
const INTERVAL_MS: u64 = 200;

/// Two samples that lie further apart have one missing between them. Three missing ones in a row
/// would be a loss; less may be a busy machine that woke the collector late.
const HOLE_MS: u64 = 4 * INTERVAL_MS;

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_millis()).expect("before the year 500000")
}

fn wait_for_each(broker: &FakeBroker, count: usize) {
    for metric in METRICS {
        wait_until(metric, || (broker.records_of(metric).len() >= count).then_some(()));
    }
}

/// Waits until a sample of each metric that was measured after `ts` has come.
fn wait_for_after(broker: &FakeBroker, ts: u64) {
    for metric in METRICS {
        wait_until(metric, || broker.records_of(metric).pop().filter(|last| last.ts() > ts));
    }
}

/// Every sample that `processes` producers, one after the other, gave a number to is there, up to
/// the last one that came of each; none is there twice.
fn check_all_once(records: &[Stored], processes: usize) {
    let mut sequences: Vec<u64> = records.iter().map(|record| record.sequence).collect();
    sequences.sort_unstable();
    // A process counts one by one; the next one begins somewhere behind.
    let jumps = sequences.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
    assert_eq!(jumps + 1, processes, "a sequence is missing: {sequences:?}");
    // A minute in which a producer was started again has two rollups.
    let samples = || records.iter().filter(|record| record.topic.starts_with("metrics/"));
    let measured: HashSet<_> = samples().map(|r| (r.topic.clone(), r.ts())).collect();
    assert_eq!(measured.len(), samples().count(), "a sample came under two sequences");
}

/// Each metric rises in time without a hole from its first sample up to `until`.
fn check_no_hole(broker: &FakeBroker, until: u64) {
    for metric in METRICS {
        let times: Vec<u64> = broker.records_of(metric).iter().map(Stored::ts).collect();
        for pair in times.windows(2).take_while(|pair| pair[0] < until) {
            assert!(pair[0] < pair[1], "{metric}: {} before {}", pair[0], pair[1]);
            assert!(pair[1] - pair[0] < HOLE_MS, "{metric}: hole of {} ms", pair[1] - pair[0]);
        }
        let last = times.iter().filter(|ts| **ts <= until).max().copied().unwrap_or(0);
        assert!(until - last < HOLE_MS, "{metric}: nothing in the last {} ms", until - last);
    }
}

#[test]
fn samples_of_all_metrics_arrive_with_their_fields() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = FakeBroker::start();
    let started = now_ms();
    let _producer = Producer::start(&broker.address(), folder.path());
    wait_for_each(&broker, 5);
    let fields: [(&str, &str, &[&str]); 4] = [
        ("cpu", "percent", &["cpus", "limit_cpus", "limit_percent", "usage_us"]),
        ("memory", "percent", &["bytes", "limit_bytes", "rss_bytes"]),
        (
            "disk",
            "bytes/s",
            &["read_bytes_s", "written_bytes_s", "read_bytes", "written_bytes", "fs_used_percent"],
        ),
        (
            "network",
            "bytes/s",
            &["rx_bytes_s", "tx_bytes_s", "rx_bytes", "tx_bytes", "rx_errors", "rx_dropped"],
        ),
    ];
    for (metric, unit, names) in fields {
        for record in broker.records_of(metric) {
            assert_eq!(record.topic, format!("metrics/docker/p1/{metric}"));
            assert_eq!(record.key, "p1");
            assert_eq!(record.sample["unit"], unit);
            assert!((started..=now_ms()).contains(&record.ts()), "{record:?}");
            let value = record.sample["value"].as_f64().expect("a number");
            assert!(value >= 0.0, "{record:?}");
            for name in names {
                assert!(
                    record.sample[name].as_f64().is_some_and(|n| n >= 0.0),
                    "{name}: {record:?}"
                );
            }
        }
    }
    let cpus = std::thread::available_parallelism().expect("processors").get();
    let cpu = broker.records_of("cpu").pop().expect("a sample").sample;
    assert!(cpu["cpus"].as_u64().is_some_and(|n| n >= cpus as u64), "{cpu}");
    let memory = broker.records_of("memory").pop().expect("a sample").sample;
    let share =
        memory["bytes"].as_f64().expect("bytes") / memory["limit_bytes"].as_f64().expect("limit");
    assert!((share * 100.0 - memory["value"].as_f64().expect("percent")).abs() < 0.01, "{memory}");
    check_all_once(&broker.records(), 1);
}

#[test]
fn minutes_and_the_producers_own_cost_are_sent_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = FakeBroker::start();
    let mut producer = Producer::start(&broker.address(), folder.path());
    wait_until("a cost", || broker.records_of("cost").pop());
    producer.signal(Signal::SIGTERM);
    producer.wait();
    let cost = broker.records_of("cost").pop().expect("a cost").sample;
    assert_eq!(cost["unit"], "percent");
    assert!(cost["value"].as_f64().is_some_and(|value| value < 100.0), "{cost}");
    assert!(cost["bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{cost}");
    assert_eq!((&cost["containers"], &cost["dropped"]), (&0.into(), &0.into()));
    for metric in METRICS {
        let samples = broker.records_of(metric);
        let rollups = broker.records_in(&format!("rollup/1m/metrics/docker/p1/{metric}"));
        let counted: u64 = rollups.iter().filter_map(|r| r.sample["count"].as_u64()).sum();
        assert_eq!(counted, samples.len() as u64, "{metric}: every sample is in one minute");
        for rollup in rollups {
            assert_eq!((rollup.key.as_str(), rollup.ts() % 60_000), ("p1", 0));
            let value = |name: &str| rollup.sample[name].as_f64().expect("a number");
            assert!(value("min") <= value("value") && value("value") <= value("max"));
        }
    }
}

#[test]
fn a_busy_processor_shows() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = FakeBroker::start();
    let _producer = Producer::start(&broker.address(), folder.path());
    wait_for_each(&broker, 1);
    let from = now_ms();
    let busy = Instant::now();
    while busy.elapsed() < Duration::from_secs(1) {
        std::hint::spin_loop();
    }
    let until = now_ms();
    wait_for_after(&broker, until);
    let within = |record: &Stored| record.ts() > from + INTERVAL_MS && record.ts() <= until;
    let highest = broker
        .records_of("cpu")
        .iter()
        .filter(|record| within(record))
        .map(|record| record.sample["value"].as_f64().expect("a number"))
        .fold(0.0, f64::max);
    assert!(highest > 50.0, "one processor was busy, {highest} percent was measured");
}

#[test]
fn every_sample_of_a_gap_arrives_once_in_order_and_late() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut broker = FakeBroker::start();
    let producer = Producer::start(&broker.address(), folder.path());
    wait_for_each(&broker, 3);
    assert!(broker.records().iter().all(|record| !record.is_late()));
    broker.stop();
    let gap_from = now_ms();
    wait_until("the end of the gap", || (now_ms() >= gap_from + 5000).then_some(()));
    let gap_until = now_ms();
    broker.restart();
    wait_for_after(&broker, gap_until + 2 * 5000);
    check_all_once(&broker.records(), 1);
    check_no_hole(&broker, gap_until + 2 * 5000);
    // Samples of the first moment may have been handed over before the loss was noticed.
    let gap = gap_from + INTERVAL_MS..gap_until;
    let of_gap: Vec<_> = broker.records().into_iter().filter(|r| gap.contains(&r.ts())).collect();
    assert!(of_gap.len() > 60, "{} samples in 4.8 s", of_gap.len());
    assert!(of_gap.iter().all(Stored::is_late));
    let after: Vec<_> =
        broker.records().into_iter().filter(|r| r.ts() > gap_until + 6000).collect();
    assert!(after.iter().all(|record| !record.is_late()), "no longer late");
    let log = producer.log();
    for line in ["connected to", "no broker serves", "back at", "late samples to send"] {
        assert_eq!(log.matches(line).count(), 1, "{line}: {log}");
    }
    let spooled = std::fs::read_dir(folder.path()).expect("listed");
    let names: Vec<_> = spooled.map(|entry| entry.expect("an entry").file_name()).collect();
    assert!(names.iter().all(|name| name != "spool"), "all answered for: {names:?}");
    assert!(!names.iter().any(|n| Path::new(n).extension().is_some()), "{names:?}");
}

#[test]
fn a_producer_killed_in_a_gap_loses_nothing_it_had_spooled() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut broker = FakeBroker::start();
    broker.stop();
    let mut first = Producer::start(&broker.address(), folder.path());
    first.collectors();
    let started = now_ms();
    wait_until("some samples", || (now_ms() > started + 2000).then_some(()));
    let killed = now_ms();
    first.kill();
    let mut second = Producer::start(&broker.address(), folder.path());
    let restarted = now_ms();
    wait_until("some samples", || (now_ms() > restarted + 2000).then_some(()));
    second.signal(Signal::SIGTERM);
    assert_eq!(second.wait().code(), Some(0));
    let _third = Producer::start(&broker.address(), folder.path());
    let third_from = now_ms();
    broker.restart();
    wait_for_after(&broker, third_from + 2000);
    check_all_once(&broker.records(), 3);
    check_no_hole(&broker, killed);
    for metric in METRICS {
        let records = broker.records_of(metric);
        assert!(records.iter().filter(|r| r.ts() < killed).count() >= 7, "{metric}: {records:?}");
        let second = records.iter().filter(|r| (restarted..third_from).contains(&r.ts())).count();
        assert!(second >= 7, "{metric}: {second}");
        assert!(records.iter().filter(|r| r.ts() < third_from).all(Stored::is_late));
        assert!(records.is_sorted_by_key(Stored::ts), "{metric}");
    }
    assert_eq!(broker.below_window(), 0);
}

#[test]
fn answers_that_never_came_double_nothing_across_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut broker = FakeBroker::start();
    let mut first = Producer::start(&broker.address(), folder.path());
    wait_for_each(&broker, 2);
    broker.fall_silent();
    let silent_from = now_ms();
    wait_for_after(&broker, silent_from + 1000);
    broker.stop();
    wait_until("the loss", || first.log().contains("no broker serves").then_some(()));
    let lost = now_ms();
    wait_until("late samples", || (now_ms() > lost + 1000).then_some(()));
    let killed = now_ms();
    first.kill();
    broker.restart();
    let _second = Producer::start(&broker.address(), folder.path());
    wait_for_after(&broker, killed + 2000);
    assert!(broker.repeats() >= 16, "what was not answered came again: {}", broker.repeats());
    check_all_once(&broker.records(), 2);
    check_no_hole(&broker, killed);
    assert_eq!(broker.below_window(), 0);
}

#[test]
fn the_last_samples_are_sent_or_kept_when_a_signal_ends_the_producer() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut broker = FakeBroker::start();
    let mut first = Producer::start(&broker.address(), folder.path());
    wait_for_each(&broker, 2);
    broker.fall_silent();
    wait_for_after(&broker, now_ms() + 500);
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait().code(), Some(0));
    let ended = broker.records().iter().map(Stored::ts).max().expect("samples");
    broker.stop();
    broker.restart();
    let _second = Producer::start(&broker.address(), folder.path());
    wait_for_after(&broker, ended + 1000);
    assert!(broker.repeats() >= 8, "{}", broker.repeats());
    check_all_once(&broker.records(), 2);
}

#[test]
fn without_a_place_for_a_spool_a_short_gap_is_kept_in_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("written");
    let mut broker = FakeBroker::start();
    let producer = Producer::start(&broker.address(), &file.join("spool"));
    wait_for_each(&broker, 2);
    assert_eq!(producer.log().matches("name a writable folder").count(), 1);
    broker.stop();
    let gap_from = now_ms();
    wait_until("the end of the gap", || (now_ms() >= gap_from + 1000).then_some(()));
    let gap_until = now_ms();
    broker.restart();
    wait_for_after(&broker, gap_until + 1000);
    check_all_once(&broker.records(), 1);
    check_no_hole(&broker, gap_until);
}

#[test]
fn a_long_backlog_is_sent_once_in_order_though_all_die_midway() {
    const SPOOLED: usize = 20_000;
    let folder = tempfile::tempdir().expect("a folder");
    let mut spool = Spool::open(folder.path(), 64 << 20).expect("a spool");
    for n in 1..=SPOOLED as u64 {
        let record = Outgoing {
            sequence: n,
            topic: "metrics/docker/p1/cpu".to_owned(),
            key: "p1".to_owned(),
            payload: format!("{{\"ts\":{n},\"value\":1,\"unit\":\"percent\",\"late\":true}}")
                .into_bytes(),
        };
        spool.append(&record).expect("written");
    }
    drop(spool);
    let mut broker = FakeBroker::start();
    for limit in [5_000, 12_000] {
        let mut producer = Producer::start(&broker.address(), folder.path());
        broker.fall_silent_after(limit);
        wait_until("a part of it", || (broker.count() >= limit).then_some(()));
        producer.kill();
        broker.stop();
        broker.restart();
    }
    let _producer = Producer::start(&broker.address(), folder.path());
    let started = now_ms();
    wait_for_after(&broker, started);
    assert!(broker.repeats() > 0, "what was not answered for came again");
    assert_eq!(broker.below_window(), 0);
    let cpu = broker.records_of("cpu");
    let spooled: Vec<u64> = cpu.iter().map(Stored::ts).take_while(|ts| *ts <= 20_000).collect();
    assert_eq!(spooled, (1..=SPOOLED as u64).collect::<Vec<_>>());
}
