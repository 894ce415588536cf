//! The three processes: who is there under which name, who comes back, and who goes with whom.

use std::time::{Duration, Instant};

use crate::support::{FakeBroker, Producer, alive, send, wait_until};
use nix::sys::signal::Signal;

#[test]
fn parent_and_collectors_show_by_name_and_have_one_thread_each() {
    let folder = tempfile::tempdir().expect("a folder");
    let producer = Producer::start("127.0.0.1:1", folder.path());
    let collectors = producer.collectors();
    for pid in collectors.into_iter().chain([producer.pid()]) {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
        assert!(status.contains("Threads:\t1\n"), "{status}");
    }
    let ps = std::process::Command::new("ps").arg("aux").output().expect("ps");
    let ps = String::from_utf8(ps.stdout).expect("text");
    for (pid, name) in collectors.into_iter().zip(["cpu_collector", "mem_collector"]) {
        let line =
            ps.lines().find(|line| line.split_ascii_whitespace().nth(1) == Some(&pid.to_string()));
        assert!(line.is_some_and(|line| line.ends_with(&format!(" {name}"))), "{line:?}");
    }
}

#[test]
fn a_collector_that_is_killed_is_back_within_a_second_and_measures_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = FakeBroker::start();
    let producer = Producer::start(&broker.address(), folder.path());
    for (name, metric) in [("cpu_collector", "cpu"), ("mem_collector", "memory")] {
        let before = wait_until(name, || producer.collector(name));
        wait_until("a first sample", || broker.records_of(metric).pop());
        send(before, Signal::SIGKILL);
        let killed = Instant::now();
        let after =
            wait_until("another one", || producer.collector(name).filter(|pid| *pid != before));
        assert!(killed.elapsed() < Duration::from_secs(1), "{:?}", killed.elapsed());
        assert!(alive(after));
        let seen = broker.records_of(metric).len();
        wait_until("further samples", || {
            (broker.records_of(metric).len() > seen + 1).then_some(())
        });
    }
}

#[test]
fn a_collector_that_keeps_dying_costs_a_fork_a_second_at_most() {
    let folder = tempfile::tempdir().expect("a folder");
    let producer = Producer::start("127.0.0.1:1", folder.path());
    let started = Instant::now();
    let mut deaths = 0_u32;
    let mut last = 0;
    while started.elapsed() < Duration::from_secs(4) {
        let pid = wait_until("a collector", || {
            producer.collector("cpu_collector").filter(|pid| *pid != last)
        });
        send(pid, Signal::SIGKILL);
        last = pid;
        deaths += 1;
    }
    assert!((3..=7).contains(&deaths), "{deaths} deaths in {:?}", started.elapsed());
}

#[test]
fn a_parent_that_is_killed_takes_its_collectors_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut producer = Producer::start("127.0.0.1:1", folder.path());
    let collectors = producer.collectors();
    // One that is stopped cannot see the pipe's end; it must go all the same.
    send(collectors[0], Signal::SIGSTOP);
    producer.kill();
    for pid in collectors {
        wait_until("a collector's end", || (!alive(pid)).then_some(()));
    }
}

#[test]
fn a_signal_ends_all_and_says_which_it_was() {
    for (signal, code) in [(Signal::SIGTERM, 0), (Signal::SIGINT, 130)] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut producer = Producer::start("127.0.0.1:1", folder.path());
        let collectors = producer.collectors();
        let asked = Instant::now();
        producer.signal(signal);
        assert_eq!(producer.wait().code(), Some(code));
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        assert!(collectors.into_iter().all(|pid| !alive(pid)), "waited for before the end");
    }
}

#[test]
fn ctrl_c_in_a_terminal_leaves_the_collectors_to_their_parent() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = FakeBroker::start();
    let mut producer = Producer::start(&broker.address(), folder.path());
    let collectors = producer.collectors();
    // The terminal sends the signal to the whole group; here the parent gets it last.
    collectors.into_iter().for_each(|pid| send(pid, Signal::SIGINT));
    for metric in ["cpu", "memory"] {
        let seen = broker.records_of(metric).len();
        wait_until("samples", || (broker.records_of(metric).len() > seen + 2).then_some(()));
    }
    assert_eq!(producer.collectors(), collectors);
    producer.signal(Signal::SIGINT);
    assert_eq!(producer.wait().code(), Some(130));
    assert!(!producer.log().contains("died"), "{}", producer.log());
}

#[test]
fn a_second_producer_on_the_same_spool_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = Producer::start("127.0.0.1:1", folder.path());
    wait_until("the lock", || folder.path().join("lock").exists().then_some(()));
    first.collectors();
    wait_until("the first try", || first.log().contains("no broker").then_some(()));
    let mut second = Producer::start("127.0.0.1:1", folder.path());
    assert_eq!(second.wait().code(), Some(1));
    assert!(second.log().contains("--spool-dir"), "{}", second.log());
}
