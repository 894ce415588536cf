//! `aklight chaos` on real processes: what it says of a good cluster, and that it finds a bad one.

mod support;

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use support::{Running, aklight, children, free_port, is_alive, run, wait_until};

/// A run of a few seconds against one broker of its own, in a folder below this one.
fn chaos(dir: &Path, minutes: &str, flags: &[&str]) -> Running {
    let dir = format!("--dir={}", dir.display());
    let mut args = vec!["chaos", "--brokers=1", "--records-per-second=300", &dir];
    args.extend(["--minutes", minutes]);
    args.extend(flags);
    Running::start(aklight(&args))
}

/// The number before a word in the last lines.
fn counted(seen: &[String], head: &str, word: &str) -> u64 {
    let line = seen.iter().find(|line| line.starts_with(head));
    let line = line.unwrap_or_else(|| panic!("no {head}: {}", seen.join("\n")));
    let before = line.split(&format!(" {word}")).next().expect("the word");
    before.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{line}"))
}

#[test]
fn a_broker_that_is_broken_and_healed_loses_nothing_and_nothing_is_left_behind() {
    let parent = tempfile::tempdir().expect("a folder");
    let dir = parent.path().join("chaos");
    let mut chaos = chaos(&dir, "0.1", &["--seed=3"]);
    chaos.wait_for(&["the load begins"]);
    let family = children(chaos.child.id());
    assert_eq!(family.len(), 1, "{family:?}");
    let status = chaos.wait();
    let said = chaos.seen.join("\n");
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("seed 3") && said.contains("every promise was kept"), "{said}");
    assert!(said.contains("lost         0\ndoubled      0"), "{said}");
    let acked = counted(&chaos.seen, "records", "acknowledged");
    assert!(acked > 100, "{said}");
    assert!(counted(&chaos.seen, "copies", "records,") >= acked, "{said}");
    assert!(!is_alive(family[0].0) && !dir.exists(), "{said}");
}

#[test]
fn ctrl_c_heals_checks_and_leaves_nothing_behind() {
    let parent = tempfile::tempdir().expect("a folder");
    let dir = parent.path().join("chaos");
    let mut chaos = chaos(&dir, "60", &[]);
    // In the middle of a fault, whichever comes first.
    chaos.wait_for(&["the load begins"]);
    chaos.wait_for(&["broker1"]);
    chaos.signal(Signal::SIGINT);
    let status = chaos.wait();
    let said = chaos.seen.join("\n");
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(said.contains("every promise was kept") && !dir.exists(), "{said}");
    assert!(children(chaos.child.id()).is_empty());
}

#[test]
fn no_broker_outlives_a_killed_chaos() {
    let parent = tempfile::tempdir().expect("a folder");
    let mut chaos = chaos(&parent.path().join("chaos"), "60", &[]);
    chaos.wait_for(&["the load begins"]);
    let broker = children(chaos.child.id())[0].0;
    chaos.signal(Signal::SIGKILL);
    wait_until("the broker is gone", || !is_alive(broker));
}

#[test]
fn a_cluster_that_forgets_is_found_out() {
    let parent = tempfile::tempdir().expect("a folder");
    let port = free_port();
    let broker = |life: &str| {
        let data = parent.path().join(life);
        fs::create_dir(&data).expect("a folder");
        let data = format!("--data-dir={}", data.display());
        Running::start(aklight(&["broker", &data, &format!("--listen=127.0.0.1:{port}")]))
    };
    let first = broker("one life");
    let address = format!("127.0.0.1:{port}");
    let brokers = format!("--brokers={address}");
    wait_until("the broker answers", || run(&["topics", "#", &brokers]).status.success());
    let mut chaos = Running::start(aklight(&["chaos", "--against", &address, "--minutes=0.1"]));
    chaos.wait_for(&["the load begins"]);
    wait_until("records are stored", || {
        let stored = run(&["fetch", "chaos/#", "--max=200", "--output=json", &brokers]);
        stored.stdout.split(|byte| *byte == b'\n').count() > 200
    });
    // Gone with its disk, and back as if nothing had been.
    drop(first);
    let _second = broker("another life");
    let status = chaos.wait();
    let said = chaos.seen.join("\n");
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("VIOLATION    what is committed never changes"), "{said}");
    assert!(!said.contains("every promise was kept"), "{said}");
}

#[test]
fn a_folder_that_is_there_is_left_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let output = run(&["chaos", "--dir", &dir.path().display().to_string()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("folder of its own"));
}
