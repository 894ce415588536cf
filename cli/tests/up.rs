//! `aklight up` as a user has it: real processes, this machine's real figures.

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use nix::sys::signal::Signal;
use support::{
    Running, aklight, children, free_port, free_ports, is_alive, run, send, stdout_of, wait_until,
};

fn up(port: u16, dir: &Path, more: &[&str]) -> Running {
    let dir = dir.to_str().expect("text");
    let port = port.to_string();
    Running::start(aklight(&[&["up", "--port", &port, "--dir", dir], more].concat()))
}

const ONE: [&str; 1] = ["--brokers=1"];

fn child_of(up: &Running, word: &str) -> u32 {
    let all = children(up.child.id());
    let found = all.iter().find(|(_, line)| line.split(' ').any(|part| part == word));
    found.unwrap_or_else(|| panic!("no child with {word}: {all:?}")).0
}

/// The places (partition and offset) that consumer1 has printed, from "(p0@12)".
fn places(lines: &[String]) -> Vec<(String, u64)> {
    lines
        .iter()
        .filter(|line| line.starts_with("consumer1"))
        .filter_map(|line| {
            let (partition, offset) =
                line.rsplit_once("(p")?.1.strip_suffix(')')?.split_once('@')?;
            Some((partition.to_owned(), offset.parse().ok()?))
        })
        .collect()
}

#[test]
fn everything_runs_and_ctrl_c_ends_it_in_order() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut up = up(free_ports(3), dir.path(), &[]);
    for producer in ["producer1", "producer2"] {
        for metric in ["cpu", "memory", "disk", "network"] {
            let topic = format!("metrics/docker/{producer}/{metric}");
            if !up.seen.iter().any(|line| line.starts_with("consumer1") && line.contains(&topic)) {
                up.wait_for(&["consumer1 | ", &topic]);
            }
        }
    }
    let family = children(up.child.id());
    assert_eq!(family.len(), 6, "{family:?}");
    up.signal(Signal::SIGINT);
    assert_eq!(up.wait().code(), Some(130));
    assert!(family.iter().all(|(pid, _)| !is_alive(*pid)), "{family:?}");
    let ended = |name: &str| {
        let text = format!("{name} ended with exit code 0");
        let found = up.seen.iter().position(|line| line.starts_with("up ") && line.contains(&text));
        found.unwrap_or_else(|| panic!("no {text:?} in:\n{}", up.seen.join("\n")))
    };
    assert!(ended("consumer1") < ended("producer1").min(ended("producer2")));
    let first_broker = (1..=3).map(|n| ended(&format!("broker{n}"))).min().expect("three");
    assert!(ended("producer1").max(ended("producer2")) < first_broker);
}

#[test]
fn started_again_the_consumer_goes_on_where_it_was() {
    let dir = tempfile::tempdir().expect("a folder");
    let port = free_port();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut up = up(port, dir.path(), &ONE);
        for _ in 0..10 {
            up.wait_for(&["consumer1 | ", "metrics/docker/"]);
        }
        up.signal(Signal::SIGTERM);
        assert_eq!(up.wait().code(), Some(0), "SIGTERM is a clean end");
        seen.extend(places(&up.seen));
    }
    let distinct: BTreeSet<_> = seen.iter().cloned().collect();
    assert_eq!(distinct.len(), seen.len(), "printed twice: {seen:?}");

    // And nothing was skipped: all that the log holds below the last place was printed.
    let mut up = up(port, dir.path(), &[]);
    up.wait_for(&["up ", "ready at"]);
    let brokers = format!("--brokers=127.0.0.1:{port}");
    let stored =
        stdout_of(&["fetch", "metrics/docker/#", "--max", "10000", "--output=json", &brokers]);
    let mut compared = 0;
    for line in stored.lines() {
        let record: serde_json::Value = serde_json::from_str(line).expect("json");
        let place = (record["partition"].to_string(), record["offset"].as_u64().expect("offset"));
        let last = seen.iter().filter(|(p, _)| *p == place.0).map(|(_, offset)| *offset).max();
        if last.is_some_and(|last| place.1 <= last) {
            compared += 1;
            assert!(distinct.contains(&place), "never printed: {place:?}");
        }
    }
    assert_eq!(compared, distinct.len());
}

#[test]
fn what_dies_is_said_and_started_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut up = up(free_ports(3), dir.path(), &[]);
    up.wait_for(&["consumer1 | ", "metrics/docker/producer1/cpu"]);
    let producer = child_of(&up, "--id=producer1");
    send(producer, Signal::SIGKILL);
    up.wait_for(&["up ", "producer1 was killed by SIGKILL", "started again"]);
    up.wait_for(&["consumer1 | ", "metrics/docker/producer1/cpu"]);
    assert_ne!(child_of(&up, "--id=producer1"), producer);

    for broker in 1..=3 {
        send(child_of(&up, &format!("--node-id={broker}")), Signal::SIGKILL);
        let said = format!("broker{broker} was killed by SIGKILL");
        up.wait_for(&["up ", &said, "started again"]);
        up.wait_for(&[&format!("broker{broker}"), "serves clients"]);
        up.wait_for(&["consumer1 | ", "metrics/docker/producer1/cpu"]);
        up.wait_for(&["consumer1 | ", "metrics/docker/producer2/cpu"]);
    }
    let seen = places(&up.seen);
    let distinct: BTreeSet<_> = seen.iter().collect();
    assert_eq!(distinct.len(), seen.len(), "printed twice:\n{}", up.seen.join("\n"));
}

#[test]
fn a_cluster_of_three_goes_on_as_three_and_one_of_one_as_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let port = free_ports(3);
    for more in [&["--brokers=3"][..], &[]] {
        let mut up = up(port, dir.path(), more);
        up.wait_for(&["up ", "ready at", &format!("127.0.0.1:{};", port + 2)]);
        assert_eq!(
            children(up.child.id()).iter().filter(|(_, l)| l.contains("--peers")).count(),
            3
        );
        up.signal(Signal::SIGTERM);
        assert_eq!(up.wait().code(), Some(0));
    }
    let refused = run(&["up", "--brokers=5", "--dir", dir.path().to_str().expect("text")]);
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && text.contains("--brokers 3"), "{text}");

    // As the first version left it: one broker, right in data/.
    let old = tempfile::tempdir().expect("a folder");
    let data = format!("--data-dir={}", old.path().join("data").display());
    let listen = format!("--listen=127.0.0.1:{port}");
    let mut broker = Running::start(aklight(&["broker", &data, &listen]));
    let brokers = format!("--brokers=127.0.0.1:{port}");
    wait_until("the broker answers", || {
        run(&["produce", "a", "k", "kept", &brokers]).status.success()
    });
    broker.signal(Signal::SIGTERM);
    broker.wait();
    let mut up = up(port, old.path(), &[]);
    up.wait_for(&["up ", "goes on as one"]);
    up.wait_for(&["up ", "ready at"]);
    assert!(stdout_of(&["fetch", "a", &brokers]).contains("kept"));
}

#[test]
fn nobody_outlives_up() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut up = up(free_ports(3), dir.path(), &[]);
    up.wait_for(&["consumer1 | ", "metrics/docker/producer2/cpu"]);
    let mut family: Vec<u32> = children(up.child.id()).iter().map(|(pid, _)| *pid).collect();
    let collectors: Vec<u32> =
        family.iter().flat_map(|pid| children(*pid)).map(|(pid, _)| pid).collect();
    // Two of each producer, and the one of the first that watches containers.
    assert_eq!((family.len(), collectors.len()), (6, 5));
    family.extend(collectors);
    up.signal(Signal::SIGKILL);
    wait_until("all children are gone", || family.iter().all(|pid| !is_alive(*pid)));
}

#[test]
fn brokers_that_cannot_start_end_it_with_the_reason() {
    for brokers in ["--brokers=1", "--brokers=3"] {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("no-folder");
        std::fs::write(&file, "x").expect("written");
        let mut up = up(free_ports(3), &file, &[brokers]);
        assert_eq!(up.wait().code(), Some(1));
        let said = up.seen.join("\n");
        assert!(said.starts_with("broker") && said.contains("no-folder"), "{said}");
        assert!(said.contains("before it was ready"), "{said}");
        assert!(!said.contains("producer1 | "), "{said}");
    }
}

#[test]
fn a_taken_port_is_said_at_once() {
    let port = free_ports(3);
    for (taken, broker) in [(port, "broker1"), (port + 71, "broker2"), (port + 92, "broker3")] {
        let _taken = std::net::TcpListener::bind(("127.0.0.1", taken)).expect("bound");
        let output = run(&["up", "--port", &port.to_string(), "--dir", "/nonexistent"]);
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8_lossy(&output.stderr);
        let parts = [&taken.to_string(), broker, "--port"];
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
}

#[test]
fn wrong_rules_are_told_before_anything_starts() {
    let dir = tempfile::tempdir().expect("a folder");
    let rules = dir.path().join("rules.toml");
    std::fs::write(&rules, "[[rule]]\nnam = \"x\"\n").expect("written");
    let rules = format!("--rules={}", rules.display());
    let port = free_port().to_string();
    let output = run(&["up", "--port", &port, "--dir", "/nonexistent", &rules]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("rules.toml:2") && output.stdout.is_empty(), "{text}");
}
