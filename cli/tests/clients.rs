//! The commands that talk to a broker, against a real one.

mod support;

use std::io::Write;
use std::process::Stdio;

use nix::sys::signal::Signal;
use support::{Running, aklight, free_port, run, stdout_of, wait_for_end, wait_until};

struct Broker {
    process: Running,
    port: u16,
    brokers: String,
    _dir: tempfile::TempDir,
}

/// Starts a broker and waits until it answers.
fn broker() -> Broker {
    let dir = tempfile::tempdir().expect("a folder");
    let port = free_port();
    let data = format!("--data-dir={}", dir.path().display());
    let listen = format!("--listen=127.0.0.1:{port}");
    let process = Running::start(aklight(&["broker", &data, &listen]));
    let brokers = format!("--brokers=127.0.0.1:{port}");
    wait_until("the broker answers", || run(&["topics", "#", &brokers]).status.success());
    Broker { process, port, brokers, _dir: dir }
}

fn produce_lines(broker: &Broker, topic: &str, lines: &str) -> String {
    let mut child = aklight(&["produce", topic, "k", "-", "--output=json", &broker.brokers])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    child.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("ran");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn what_is_produced_can_be_fetched_listed_and_looked_up() {
    let mut broker = broker();
    let to = broker.brokers.clone();
    assert_eq!(stdout_of(&["produce", "a/b", "key", "one|1", &to]).trim_end(), "p0@0  a/b");
    let stored = produce_lines(&broker, "a/c", "two\nthree");
    assert_eq!(stored.lines().count(), 2, "{stored}");

    let fetched = stdout_of(&["fetch", "a/+", "--output=json", &to]);
    let payloads: Vec<serde_json::Value> = fetched
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).expect("json")["payload"].take()
        })
        .collect();
    assert_eq!(payloads.len(), 3, "{fetched}");
    for payload in ["one|1", "two", "three"] {
        assert!(payloads.iter().any(|p| p == payload), "{fetched}");
    }
    let one = stdout_of(&["fetch", "a/b", "--max=1", &to]);
    assert!(one.starts_with("p0@0") && one.contains("one|1"), "{one}");

    let topics = stdout_of(&["topics", "a/#", &to]);
    assert!(topics.starts_with("TOPIC  RECORDS\n") && topics.contains("a/c    2"), "{topics}");
    let http = format!("--http=127.0.0.1:{}", broker.port + 70);
    let events = stdout_of(&["debug", "events", &http]);
    assert!(events.starts_with("AT") && events.lines().count() > 1, "{events}");

    broker.process.signal(Signal::SIGTERM);
    assert_eq!(broker.process.wait().code(), Some(0));
}

#[test]
fn tail_sews_what_is_stored_to_what_comes() {
    let broker = broker();
    let to = broker.brokers.as_str();
    produce_lines(&broker, "a/b", &(0..1500).map(|n| format!("{n}\n")).collect::<String>());
    let mut tail = Running::start(aklight(&["tail", "a/#", "--from-start", "--output=json", to]));
    tail.wait_for(&["\"payload\":\"1499\""]);
    produce_lines(&broker, "a/b", "fresh\n");
    tail.wait_for(&["\"payload\":\"fresh\""]);
    tail.signal(Signal::SIGINT);
    assert_eq!(tail.wait().code(), Some(130));
    assert_eq!(tail.seen.len(), 1501, "each once");
}

#[test]
fn tail_begins_with_what_is_new_and_ends_with_its_reader() {
    let broker = broker();
    let to = broker.brokers.as_str();
    produce_lines(&broker, "a/b", "old\n");
    let mut tail = Running::start(aklight(&["tail", "a/b", "--output=json", to]));
    let mut n = 0;
    // Until the subscription stands, records pass it by.
    wait_until("a fresh record is shown", || {
        n += 1;
        produce_lines(&broker, "a/b", &format!("fresh {n}\n"));
        tail.poll().is_some()
    });
    assert!(tail.seen.iter().all(|line| line.contains("fresh")), "{:?}", tail.seen);
    drop(tail);

    let mut child = aklight(&["tail", "a/b", to]).stdout(Stdio::piped()).spawn().expect("started");
    drop(child.stdout.take());
    assert_eq!(wait_for_end(&mut child).code(), Some(0));
}

#[test]
fn a_refused_record_is_told_and_makes_the_exit_code_1() {
    let broker = broker();
    let output = run(&["fetch", "a", "--partition", "99", &broker.brokers]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("bad_number") || text.contains("no partition"), "{text}");
}
