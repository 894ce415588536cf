//! The command as a user sees it: real processes, measured from outside through /proc.

use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::cargo::cargo_bin;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Generous, because a busy machine shares its cores.
const DEADLINE: Duration = Duration::from_secs(60);

fn start(args: &[&str]) -> Child {
    Command::new(cargo_bin("stress"))
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started")
}

fn run(args: &[&str]) -> Output {
    start(args).wait_with_output().expect("ran")
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    kill(pid, signal).expect("sent");
}

fn wait_until(child: &Child, what: &str, mut holds: impl FnMut(u32) -> bool) {
    let started = Instant::now();
    while !holds(child.id()) {
        assert!(started.elapsed() < DEADLINE, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn resident_mib(pid: u32) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).expect("running");
    let pages: u64 = statm.split(' ').nth(1).expect("a field").parse().expect("a number");
    (pages * 4096) >> 20
}

/// Clock ticks (hundredths of a second) of CPU that a process has used.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("running");
    let after_name = stat.rsplit(')').next().expect("fields");
    let number = |n: usize| -> u64 {
        after_name.split_whitespace().nth(n).expect("a field").parse().expect("a number")
    };
    number(11) + number(12)
}

fn field(output: &Output, name: &str) -> f64 {
    let text = String::from_utf8_lossy(&output.stdout);
    let rest = text.lines().find_map(|line| line.strip_prefix(name)).expect(name);
    rest.split_whitespace().next().expect("a value").parse().expect("a number")
}

#[test]
fn cpu_is_really_burnt_and_the_summary_says_how_much() {
    // For as long as that takes on a busy machine.
    let child = start(&["cpu", "600"]);
    wait_until(&child, "half a second of CPU", |pid| cpu_ticks(pid) >= 50);
    signal(&child, Signal::SIGTERM);
    let output = child.wait_with_output().expect("ran");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(field(&output, "CPU seconds") >= 0.5, "{output:?}");
    assert!(field(&output, "cores") >= 1.0, "{output:?}");
}

#[test]
fn it_ends_when_its_time_is_up() {
    let output = run(&["cpu", "2"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(field(&output, "seconds") >= 2.0, "{output:?}");
}

#[test]
fn memory_is_really_resident_and_ctrl_c_frees_it() {
    let child = start(&["memory", "600", "64"]);
    wait_until(&child, "64 MiB resident", |pid| resident_mib(pid) >= 64);
    signal(&child, Signal::SIGINT);
    let output = child.wait_with_output().expect("ran");
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert_eq!(field(&output, "MiB touched"), 64.0);
    assert!(field(&output, "MiB peak RSS") >= 64.0, "{output:?}");
}

#[test]
fn both_loads_come_together_and_sigterm_is_a_clean_end() {
    let child = start(&["both", "600", "16"]);
    wait_until(&child, "CPU and memory", |pid| cpu_ticks(pid) >= 20 && resident_mib(pid) >= 16);
    signal(&child, Signal::SIGTERM);
    let output = child.wait_with_output().expect("ran");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("terminated"), "{output:?}");
}

#[test]
fn a_resting_spike_ends_at_once() {
    let child = start(&["spike", "600"]);
    wait_until(&child, "a burst", |pid| cpu_ticks(pid) >= 20);
    signal(&child, Signal::SIGINT);
    assert_eq!(child.wait_with_output().expect("ran").status.code(), Some(130));
}

#[test]
fn more_memory_than_there_is_is_refused_with_the_figure() {
    let output = run(&["memory", "1", "1048576"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("1048576 MiB are more than the"), "{text}");
    assert!(text.contains("available here"), "{text}");
}

#[test]
fn bad_numbers_are_a_usage_error() {
    for args in [
        &["cpu"][..],
        &["cpu", "0"],
        &["cpu", "-1"],
        &["cpu", "many"],
        &["memory", "1", "0"],
        &["cpu", "1", "2"],
        &["nothing", "1"],
        &[],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("Usage") || text.contains("try '--help'"), "{args:?}: {text}");
    }
}
