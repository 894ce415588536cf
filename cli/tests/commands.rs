//! The command as a shell meets it: help, mistakes, exit codes, completions, manual pages.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use assert_cmd::cargo::cargo_bin;

const COMMANDS: [&str; 19] = [
    "up",
    "broker",
    "producer",
    "consumer",
    "stress",
    "top",
    "tail",
    "produce",
    "fetch",
    "topics",
    "cluster",
    "fault",
    "chaos",
    "debug",
    "rules",
    "check-rules",
    "alerts",
    "completions",
    "man",
];

fn aklight(args: &[&str]) -> Output {
    Command::new(cargo_bin("aklight"))
        .args(args)
        .env_remove("AKLIGHT_BROKERS")
        .stdin(Stdio::null())
        .output()
        .expect("ran")
}

fn check(args: &[&str], code: i32, says: &[&str]) {
    let output = aklight(args);
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
    for part in says {
        assert!(text.contains(part), "{args:?} does not say {part:?}:\n{text}");
    }
}

/// An address where nobody listens, now.
fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    listener.local_addr().expect("an address").to_string()
}

#[test]
fn every_command_has_help_and_knows_the_common_flags() {
    check(&["--help"], 0, &COMMANDS);
    for command in COMMANDS {
        check(&[command, "--help"], 0, &["Usage:", "--config", "--log-level", "--log-format"]);
    }
}

#[test]
fn mistakes_on_the_command_line_are_exit_code_2() {
    check(&[], 2, &["Usage:"]);
    check(&["nonsense"], 2, &["unrecognized subcommand"]);
    check(&["tail"], 2, &["PATTERN"]);
    check(&["tail", "a#"], 2, &["stand for whole levels"]);
    check(&["tail", "a", "--from-start", "--offset", "3"], 2, &["cannot be used with"]);
    check(&["top", "--match", "a#"], 2, &["stand for whole levels"]);
    check(&["top", "--interval", "1ms"], 2, &["from 100ms to 60s"]);
    check(&["produce", "a/+"], 2, &["a topic holds no '+'"]);
    check(&["fetch", "a", "--max", "0"], 2, &["1..=100000"]);
    check(&["fetch", "a", "--wait", "soon"], 2, &["write 500ms or 10s"]);
    check(&["topics", "--brokers", "a:b"], 2, &["write host:port"]);
    check(&["topics", "--output", "xml"], 2, &["table", "json"]);
    check(&["topics", "--log-level", "deubg"], 2, &["write off, error, warn"]);
    check(&["up", "--port", "0"], 2, &["1..=65441"]);
    check(&["up", "--brokers", "2"], 2, &["write 1, 3 or 5"]);
    check(&["cluster", "add", "broker4:7090"], 2, &["4@broker4:7090"]);
    check(&["cluster", "remove", "two"], 2, &["write 2 or broker2"]);
    check(&["cluster", "transfer-leader", "data", "2"], 2, &["write metadata"]);
    check(&["cluster", "--http", "7070"], 2, &["write host:port"]);
    check(&["fault", "broker2", "die"], 2, &["dead", "alive", "isolate", "slow"]);
    check(&["fault", "broker2", "slow"], 2, &["<MS>"]);
    check(&["fault", "broker2", "dead", "5"], 2, &["only slow takes milliseconds"]);
    check(&["debug"], 2, &["events"]);
    check(&["stress", "cpu", "0"], 2, &["1..=86400"]);
}

#[test]
fn a_broker_that_is_not_there_is_named_with_what_to_do() {
    let address = nowhere();
    let flag = format!("--brokers={address}");
    for command in [
        &["topics"][..],
        &["top", "--once"],
        &["tail", "a"],
        &["fetch", "a"],
        &["produce", "a", "", "x"],
    ] {
        let args = [command, &[&flag]].concat();
        check(&args, 1, &["no broker answers", &address, "aklight up"]);
    }
    let flag = format!("--http={address}");
    for command in [&["debug", "events"][..], &["cluster"], &["fault", "2", "dead"]] {
        let args = [command, &[&flag]].concat();
        check(&args, 1, &["no broker answers", &address, "HTTP port"]);
    }
}

#[test]
fn a_settings_file_is_read_and_its_mistakes_told_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("broker.toml");
    fs::write(&file, "data-dri = 'x'\nmax_connections = 'many'\n").expect("written");
    let path = file.to_str().expect("text");
    check(
        &["broker", "--config", path],
        2,
        &["broker.toml:1:", "'data-dir'", "broker.toml:2: max-connections: invalid value 'many'"],
    );
    fs::write(&file, "max_connections = 17\n").expect("written");
    check(&["broker", "--config", path, "--help"], 0, &["[default: 17]"]);
}

/// The samples in config/ hold every setting, each commented out: taken in, all of them must be
/// known, and the value shown must be one that is accepted.
#[test]
fn the_sample_settings_are_true_and_complete() {
    for command in ["broker", "producer", "consumer"] {
        let sample =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../config/{command}.toml"));
        let text = fs::read_to_string(&sample).expect("a sample");
        let settings: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix('#'))
            .filter(|line| !line.starts_with(' ') && line.contains(" = "))
            .collect();
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(settings.join("\n").as_bytes()).expect("written");
        let path = file.path().to_str().expect("text");
        let output = aklight(&[command, "--config", path, "--help"]);
        let help = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{command}: {errors}");
        // Six blanks stand before a flag; what is explained stands further in.
        let flags = help.lines().filter_map(|line| line.strip_prefix("      --"));
        for flag in flags.filter_map(|line| line.split([' ', '=']).next()) {
            if flag == "config" {
                continue;
            }
            assert!(
                settings.iter().any(|line| line.starts_with(&format!("{flag} = "))),
                "config/{command}.toml says nothing of {flag}"
            );
        }
    }
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        check(&["completions", shell], 0, &["aklight", "check-rules", "from-start"]);
    }
    check(&["man"], 0, &[".TH aklight", "aklight\\-up"]);
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().to_str().expect("text");
    check(&["man", dir], 0, &[]);
    for command in COMMANDS {
        assert!(folder.path().join(format!("aklight-{command}.1")).exists(), "{command}");
    }
    check(&["man", "/no/such/folder"], 1, &["/no/such/folder", "does this folder exist?"]);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let mut child = Command::new(cargo_bin("aklight"))
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("ended").code(), Some(0));
}
