//! What holds of whole runs: one seed has one trace, alone and beside others, a planted bug is
//! found, and every hot path can be gone. In a debug build a seed takes a while: these tests run few.

use std::collections::BTreeMap;
use std::process::{Command, Output};

fn sim(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aklight-sim"));
    command.args(arguments).output().expect("it runs")
}

/// The `done` line of one seed, word by word.
fn run(seed: u64, more: &[&str]) -> BTreeMap<String, String> {
    let output = sim(&[&["--seed", &seed.to_string()], more].concat());
    let text = String::from_utf8(output.stdout).expect("text");
    let done = text.lines().find_map(|line| line.strip_prefix("done ")).unwrap_or_else(|| {
        panic!("seed {seed}: {text} {}", String::from_utf8_lossy(&output.stderr))
    });
    let words = done.split(' ').filter_map(|word| word.split_once('='));
    words.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn one_seed_has_one_trace() {
    let runs: Vec<_> = std::thread::scope(|scope| {
        let tasks: Vec<_> = (0..2).map(|_| scope.spawn(|| run(3, &[]))).collect();
        tasks.into_iter().map(|task| task.join().expect("ran")).collect()
    });
    assert_eq!(runs[0], runs[1]);
    assert!(runs[0]["acked"].parse::<u64>().expect("a number") > 100, "{:?}", runs[0]);
    assert_ne!(runs[0]["digest"], run(4, &[])["digest"]);
    assert_ne!(runs[0]["digest"], run(3, &["--syncs-later"])["digest"]);
}

#[test]
fn a_planted_bug_is_found() {
    let output = sim(&["--plant", "swapped-messages", "--seeds", "1..10"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("--plant swapped-messages --trace"), "{text}");
}

#[test]
fn every_path_is_gone_by_all_its_records() {
    let paths = ["parse", "route", "append", "index", "filter", "deliver", "push", "ingest"];
    for path in paths {
        let records = ["1", "2"].map(|rounds| {
            let output = sim(&["--path", path, "--rounds", rounds]);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let records = text.trim().strip_prefix("records ").and_then(|n| n.parse::<u64>().ok());
            records.unwrap_or_else(|| panic!("{path}: {text} {output:?}"))
        });
        assert!(records[0] > 0 && records[1] == 2 * records[0], "{path}: {records:?}");
    }
}
