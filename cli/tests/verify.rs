//! `aklight verify`: what real brokers serve, and the folders that they leave behind.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use support::{Running, aklight, free_port, run, stdout_of, wait_until};

struct Broker {
    process: Running,
    address: String,
    dir: tempfile::TempDir,
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
        Self { process, address, dir }
    }

    /// Ends it in good order; its folder stays.
    fn end(mut self) -> tempfile::TempDir {
        self.process.signal(Signal::SIGTERM);
        assert_eq!(self.process.wait().code(), Some(0));
        self.dir
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
    assert_eq!((&told["checked"]["records"], &told["more"]), (&21.into(), &0.into()), "{told}");

    let Broker { process: mut ended, address, .. } = other;
    ended.signal(Signal::SIGKILL);
    ended.wait();
    let output = run(&["verify", "--brokers", &format!("{},{address}", one.address)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&address), "the silent one is named");
}

#[test]
fn who_is_called_wrongly_says_so_with_exit_code_2() {
    for wrong in
        [&["verify"][..], &["verify", "--brokers", "a:b"], &["verify", "x", "--brokers", "a:7000"]]
    {
        assert_eq!(run(wrong).status.code(), Some(2), "{wrong:?}");
    }
    let empty = tempfile::tempdir().expect("a folder");
    let output = run(&["verify", &empty.path().display().to_string()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("holds no log"));
}

/// What a broker leaves that was sent these payloads, one after another.
fn left_behind(payloads: &[&str]) -> tempfile::TempDir {
    let broker = Broker::start();
    for payload in payloads {
        broker.produce("a/b", "key", payload);
    }
    broker.end()
}

fn verify_folders(dirs: &[&Path]) -> (Option<i32>, String) {
    let mut args = vec!["verify"];
    args.extend(dirs.iter().map(|dir| dir.to_str().expect("text")));
    let output = run(&args);
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).expect("text"))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("listed") {
        let path = entry.expect("listed").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, target).expect("copied");
        }
    }
}

/// The segment with the records, and where the payload stands in it.
fn find(dir: &Path, payload: &[u8]) -> (PathBuf, usize) {
    for partition in ["partition_0.log", "partition_1.log"] {
        let path = dir.join(partition).join("00000000000000000000.log");
        let bytes = fs::read(&path).expect("read");
        if let Some(at) = bytes.windows(payload.len()).position(|part| part == payload) {
            return (path, at);
        }
    }
    panic!("nowhere below {}", dir.display());
}

#[test]
fn a_flipped_bit_and_a_truncated_segment_are_named_with_file_and_place() {
    let whole = left_behind(&["payload one", "payload two", "payload three", "payload four"]);
    let parent = tempfile::tempdir().expect("a folder");
    let (flipped, cut) = (parent.path().join("flipped"), parent.path().join("cut"));
    copy(whole.path(), &flipped);
    copy(whole.path(), &cut);
    let (code, said) = verify_folders(&[whole.path(), &flipped, &cut]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("3 directories, 9 logs") && said.contains("12 records"), "{said}");
    assert!(!said.contains(" 0 entries compared") && said.contains(": 0 findings"), "{said}");

    let (path, at) = find(&flipped, b"payload two");
    let mut bytes = fs::read(&path).expect("read");
    bytes[at] ^= 1;
    fs::write(&path, bytes).expect("written");
    let (code, said) = verify_folders(&[whole.path(), &flipped]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("{} is damaged at byte ", path.display())), "{said}");
    assert!(said.contains("offset 1 up to") && said.contains(": 1 findings"), "{said}");

    let (path, at) = find(&cut, b"payload three");
    fs::OpenOptions::new().write(true).open(&path).expect("open").set_len(at as u64).expect("cut");
    let (code, said) = verify_folders(&[&cut]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&path.display().to_string()) && said.contains("offset 2"), "{said}");
}

#[test]
fn two_good_folders_that_differ_are_told_apart() {
    let one = left_behind(&["the same", "mine", "and more"]);
    let other = left_behind(&["the same", "yours", "and more"]);
    for alone in [&one, &other] {
        let (code, said) = verify_folders(&[alone.path()]);
        assert_eq!(code, Some(0), "{said}");
    }
    let (code, said) = verify_folders(&[one.path(), other.path()]);
    assert_eq!(code, Some(1), "{said}");
    let line = said.lines().find(|line| line.contains("partition_")).expect("a finding");
    assert!(line.starts_with("entry ") && line.contains("offsets 1 to 2"), "{said}");
    for dir in [one, other] {
        assert!(line.contains(dir.path().to_str().expect("text")), "{said}");
    }
}
