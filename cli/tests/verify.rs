//! `aklight verify` against real brokers.

mod support;

use nix::sys::signal::Signal;
use support::{Running, aklight, free_port, run, stdout_of, wait_until};

struct Broker {
    process: Running,
    address: String,
    _dir: tempfile::TempDir,
}

impl Broker {
    /// Starts a broker of a cluster of one, and waits until it answers.
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let address = format!("127.0.0.1:{}", free_port());
        let data = format!("--data-dir={}", dir.path().display());
        let process = Running::start(aklight(&["broker", &data, &format!("--listen={address}")]));
        let brokers = format!("--brokers={address}");
        wait_until("the broker answers", || run(&["topics", "#", &brokers]).status.success());
        Self { process, address, _dir: dir }
    }

    fn produce(&self, topic: &str, key: &str, payload: &str) {
        stdout_of(&["produce", topic, key, payload, &format!("--brokers={}", self.address)]);
    }
}

/// Compares, and gives the exit code and what was said on standard output.
fn verify(brokers: &[&Broker]) -> (Option<i32>, String) {
    let addresses: Vec<_> = brokers.iter().map(|broker| broker.address.as_str()).collect();
    let output = run(&["verify", "--brokers", &addresses.join(",")]);
    (output.status.code(), String::from_utf8(output.stdout).expect("text"))
}

#[test]
fn brokers_that_serve_the_same_agree_and_the_first_difference_is_named() {
    let (one, other) = (Broker::start(), Broker::start());
    for n in 0..20 {
        for broker in [&one, &other] {
            broker.produce("a/b", "key", &format!("payload {n}"));
        }
    }
    let (code, said) = verify(&[&one, &other]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("2 partitions, 20 records") && said.contains(": 0 findings"), "{said}");

    one.produce("a/b", "key", "mine");
    let (code, said) = verify(&[&one, &other]);
    assert_eq!(code, Some(0), "what only one has got yet is no difference: {said}");

    other.produce("a/b", "key", "yours");
    other.produce("a/b", "key", "and more");
    let (code, said) = verify(&[&one, &other]);
    assert_eq!(code, Some(1), "{said}");
    let line = said.lines().next().expect("a finding");
    assert!(line.starts_with("offset 20 of partition "), "{said}");
    assert!(line.contains(&one.address) && line.contains(&other.address), "{said}");
    assert!(said.contains(": 1 findings"), "{said}");

    let output = run(&["verify", "--output=json", "--brokers", &one.address]);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("json");
    assert_eq!((&told["records"], &told["more"]), (&21.into(), &0.into()), "{told}");

    let Broker { process: mut ended, address, .. } = other;
    ended.signal(Signal::SIGKILL);
    ended.wait();
    let output = run(&["verify", "--brokers", &format!("{},{address}", one.address)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&address), "the silent one is named");
}

#[test]
fn who_is_called_wrongly_says_so_with_exit_code_2() {
    for wrong in [&["verify"][..], &["verify", "--brokers", "a:b"]] {
        assert_eq!(run(wrong).status.code(), Some(2), "{wrong:?}");
    }
}
