//! What each operation does to the disk, byte ranges and syncs: scripts in `tests/golden`.
//!
//! A script is commands (`> append 100 20`) with the disk operations that each must cause below
//! it, in order. A script whose name is a rule shows the rule. When one changes on purpose, the
//! failure prints the whole new text; read it before you keep it.
//!
//! | command | does |
//! |---|---|
//! | `options segment=N reserve=N fsync=always\|never` | for the next `open` |
//! | `begin` | opens a new log; what that does is shown by one script, not by all |
//! | `open`, `close`, `kill` | opens; closes; loses the process without closing |
//! | `append N …` | one append of batches of N body bytes, waited for |
//! | `blank` | an entry without a body |
//! | `group N …` | one append each, queued while the first is being synced |
//! | `truncate N\|none`, `purge N`, `vote TEXT`, `committed TEXT`, `checkpoint TEXT` | as the log's methods |
//! | `fail KIND NAME` | the next such disk operation fails |

mod support;

use std::fmt::Write;
use std::path::Path;

use aklight_common::{RaftIndex, Term};
use aklight_log::{BatchKind, Fsync, Log, LogOptions, MemoryDisk, NewBatch};
use support::*;

struct Script {
    disk: MemoryDisk,
    options: LogOptions,
    log: Option<Log>,
}

impl Script {
    fn log(&self) -> &Log {
        self.log.as_ref().expect("the script opens the log first")
    }

    /// A batch of one record's place whose body is opaque: its length is what matters here.
    fn batch(&self, ahead: u64, bytes: usize) -> NewBatch {
        let last = self.log().bounds().last;
        NewBatch {
            index: RaftIndex(last.map_or(0, |last| last.1.0 + 1) + ahead),
            term: Term(1),
            kind: BatchKind::Records,
            records: 1,
            first_time_us: 1,
            last_time_us: 1,
            body: vec![b'x'; bytes].into(),
        }
    }

    fn set(&mut self, option: &str) {
        let (name, value) = option.split_once('=').expect("name=value");
        match name {
            "segment" => self.options.segment_bytes = number(value),
            "reserve" => self.options.preallocate_bytes = number(value),
            "fsync" if value == "never" => self.options.fsync = Fsync::Never,
            "fsync" => self.options.fsync = Fsync::Always,
            _ => panic!("no option {name}"),
        }
    }

    fn group(&self, sizes: &[usize]) {
        self.disk.hold_syncs();
        for (place, bytes) in sizes.iter().enumerate() {
            let batch = self.batch(0, *bytes);
            self.log()
                .append(vec![batch], Box::new(|result| result.expect("appended")))
                .expect("taken");
            if place == 0 {
                self.disk.wait_for_held_sync();
            }
        }
        self.disk.release_syncs();
        let last = self.log().bounds().last.expect("appended").1;
        assert!(self.log().wait_flushed(last, PATIENCE).expect("no failure"));
    }

    fn run(&mut self, command: &str) {
        let words: Vec<_> = command.split_whitespace().collect();
        let sizes = || words[1..].iter().map(|word| number(word) as usize).collect::<Vec<_>>();
        let answer = match words[0] {
            "options" => {
                words[1..].iter().for_each(|option| self.set(option));
                Ok(())
            }
            "begin" => {
                self.log = Some(open(&self.disk, self.options.clone()).0);
                self.disk.take_trace();
                Ok(())
            }
            "open" => {
                self.log = Some(open(&self.disk, self.options.clone()).0);
                Ok(())
            }
            "close" => {
                self.log().close();
                Ok(())
            }
            "kill" => {
                let killed = self.disk.kill();
                self.log().close();
                self.disk = killed;
                Ok(())
            }
            "append" => {
                let batches = (0..).zip(sizes()).map(|(ahead, bytes)| self.batch(ahead, bytes));
                append(self.log(), batches.collect())
            }
            "blank" => {
                let blank = blank(self.batch(0, 0).index.0, 1);
                append(self.log(), vec![blank])
            }
            "group" => {
                self.group(&sizes());
                Ok(())
            }
            "truncate" => truncate(self.log(), words[1].parse().ok()),
            "purge" => purge(self.log(), number(words[1])),
            "vote" => wait(|done| self.log().save_vote(words[1].into(), done)),
            "committed" => {
                self.log().save_committed(words[1].into());
                // Written soon, by a thread that nobody waits for.
                let path = dir().join("committed");
                let is_there = |bytes: Vec<u8>| {
                    bytes.windows(words[1].len()).any(|part| part == words[1].as_bytes())
                };
                while !self.disk.contents(&path).is_some_and(is_there) {
                    std::thread::yield_now();
                }
                Ok(())
            }
            "checkpoint" => self.log().save_checkpoint(RaftIndex(0), words[1].into()),
            "fail" => {
                let kind = ["write", "sync", "reserve"].into_iter().find(|kind| *kind == words[1]);
                let kind = kind.expect("a kind of disk operation");
                self.disk.fail(kind, words[2], 0, std::io::ErrorKind::StorageFull);
                Ok(())
            }
            other => panic!("no command {other}"),
        };
        if answer.is_err() {
            self.failed();
        }
    }

    fn failed(&self) {
        assert_ne!(self.log().health(), aklight_log::Health::Writable, "refused for good");
    }
}

fn number(text: &str) -> u64 {
    text.parse().expect("a number")
}

/// Runs a script and answers with what it should have said.
fn run(script: &str) -> String {
    let mut state = Script { disk: MemoryDisk::new(), options: LogOptions::default(), log: None };
    let mut said = String::new();
    for line in script.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            writeln!(said, "{line}").expect("a string");
            let disk = state.disk.clone();
            state.run(command);
            for op in disk.take_trace() {
                writeln!(said, "  {op}").expect("a string");
            }
            if state.log.as_ref().is_some_and(|log| log.health() != aklight_log::Health::Writable) {
                writeln!(said, "  (refuses writes)").expect("a string");
            }
        } else if line.starts_with('#') || line.is_empty() {
            writeln!(said, "{line}").expect("a string");
        }
    }
    said
}

#[test]
fn every_script_does_to_the_disk_what_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut scripts: Vec<_> = std::fs::read_dir(folder)
        .expect("there")
        .map(|entry| entry.expect("readable").path())
        .collect();
    scripts.sort();
    assert!(scripts.len() >= 7);
    let mut changed = String::new();
    for path in scripts {
        let script = std::fs::read_to_string(&path).expect("readable");
        // Where an append waits for no sync, the log's thread may come first to what it notes: both are
        // right, and the script shows the one that is usual.
        let mut said = run(&script);
        for _ in 0..if script.contains("fsync=never") { 20 } else { 0 } {
            if said != script {
                said = run(&script);
            }
        }
        if said != script {
            write!(changed, "\n=== {}\n{said}", path.display()).expect("a string");
        }
    }
    assert!(changed.is_empty(), "these do something else now:{changed}");
}
