//! A log without a thread: nothing happens before its owner turns it, and nobody waits for ever.

mod support;

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aklight_common::clock::ManualClock;
use aklight_common::{Offset, RaftIndex, Term};
use aklight_log::{
    Done, Driver, Fsync, Log, LogError, LogOptions, MemoryDisk, NewBatch, OpenError, OpenReport,
};
use support::*;

/// What was answered, in order: a name, and whether it went well.
#[derive(Clone, Default)]
struct Answers(Arc<Mutex<Vec<(u64, bool)>>>);

impl Answers {
    fn done(&self, name: u64) -> Done {
        let answers = self.clone();
        Box::new(move |result: io::Result<()>| {
            answers.0.lock().expect("unpoisoned").push((name, result.is_ok()));
        })
    }

    fn take(&self) -> Vec<(u64, bool)> {
        std::mem::take(&mut *self.0.lock().expect("unpoisoned"))
    }
}

struct Driven {
    disk: MemoryDisk,
    log: Log,
    driver: Driver,
    answers: Answers,
    woken: Arc<AtomicUsize>,
    clock: Arc<ManualClock>,
}

impl Driven {
    fn on(disk: &MemoryDisk, options: LogOptions) -> (Self, OpenReport) {
        let woken = Arc::new(AtomicUsize::new(0));
        let (counter, clock) = (woken.clone(), ManualClock::at(1));
        let wake = Arc::new(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        let (log, report, driver) =
            Log::open_driven(disk.shared(), dir(), options, clock.clone(), wake).expect("opens");
        let answers = Answers::default();
        (Self { disk: disk.clone(), log, driver, answers, woken, clock }, report)
    }

    fn new() -> Self {
        Self::on(&MemoryDisk::new(), small()).0
    }

    fn append(&self, batches: Vec<NewBatch>) {
        let last = batches.last().expect("some").index.0;
        self.log.append(batches, self.answers.done(last)).expect("taken");
    }

    fn was_woken(&self) -> bool {
        self.woken.swap(0, Ordering::SeqCst) > 0
    }
}

#[test]
fn nothing_is_written_or_answered_before_the_turn_and_all_is_after_it() {
    let mut driven = Driven::new();
    driven.disk.take_trace();
    for index in 0..3 {
        driven.append(vec![records(index, 1, 2, 10)]);
        assert!(driven.was_woken());
    }
    driven.log.save_vote(vec![7], driven.answers.done(100));
    driven.append(vec![records(3, 1, 2, 10)]);
    assert_eq!((driven.answers.take(), driven.disk.take_trace()), (vec![], vec![]));
    assert_eq!(read_good(&driven.log).len(), 4, "readable at once");
    assert_eq!(driven.log.bounds().flushed, None);

    assert!(driven.driver.turn());
    assert_eq!(driven.answers.take(), [(0, true), (1, true), (2, true), (100, true), (3, true)]);
    assert_eq!(driven.log.bounds().flushed, Some(RaftIndex(3)));
    let trace = driven.disk.take_trace();
    let syncs = trace.iter().filter(|op| op.to_string().contains("sync 0"));
    assert_eq!(syncs.count(), 2, "what is before the vote shares a sync");
    assert!(driven.driver.turn(), "an idle turn does nothing");
    assert_eq!((driven.answers.take(), driven.disk.take_trace()), (vec![], vec![]));
}

#[test]
fn a_hint_alone_wakes_the_driver() {
    let mut driven = Driven::new();
    driven.was_woken();
    driven.log.save_committed(b"so far".to_vec());
    assert!(driven.was_woken());
    driven.driver.turn();
    let (log, _) = open(&driven.disk.kill(), small());
    assert_eq!(log.read_committed(), Some(b"so far".to_vec()));
}

#[test]
fn who_would_have_to_wait_turns_the_log_himself() {
    let driven = Driven::new();
    let batches: Vec<_> = (0..10).map(|index| records(index, 1, 2, 10)).collect();
    driven.append(batches[..6].to_vec());
    driven.log.truncate_after(Some(RaftIndex(2)), driven.answers.done(200));
    assert_eq!(driven.answers.take(), [(5, true), (200, true)]);
    driven.append(batches[3..8].to_vec());
    driven.log.save_checkpoint(RaftIndex(7), b"state".to_vec()).expect("saved");
    assert_eq!(driven.answers.take(), [(7, true)], "no checkpoint is ahead of the log");
    driven.append(batches[8..].to_vec());
    assert!(driven.log.wait_flushed(RaftIndex(9), Duration::ZERO).expect("no failure"));
    assert_eq!(driven.answers.take(), [(9, true)]);
    let end = Some(Offset(77));
    driven.log.purge_to(Term(1), RaftIndex(20), end, driven.answers.done(201));
    assert_eq!(driven.answers.take(), [(201, true)]);
    driven.append(vec![records(21, 1, 1, 10)]);
    driven.log.close();
    driven.log.close();
    assert_eq!(driven.answers.take(), [(21, true)]);
    assert_eq!(read_good(&driven.log)[0].header.base_offset, Offset(77));
    let (log, report) = open(&driven.disk, small());
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(log.bounds().end_offset, Offset(78));
}

#[test]
fn a_full_queue_makes_its_own_room() {
    let options = LogOptions { queue_ops_max: 4, ..small() };
    let (mut driven, _) = Driven::on(&MemoryDisk::new(), options);
    for index in 0..5 {
        assert_eq!(driven.answers.take(), [], "as many as the queue holds wait");
        driven.append(vec![records(index, 1, 1, 10)]);
    }
    assert_eq!(driven.answers.take().len(), 5);
    driven.append(vec![records(5, 1, 1, 10)]);
    assert_eq!(driven.answers.take(), []);
    driven.driver.turn();
    assert_eq!(driven.answers.take(), [(5, true)]);
}

#[test]
fn what_is_more_than_a_wave_asks_for_another_turn() {
    let options = LogOptions { segment_bytes: 64 << 20, ..small() };
    let (mut driven, _) = Driven::on(&MemoryDisk::new(), options);
    for index in 0..3 {
        driven.append(vec![records(index, 1, 1, 5 << 20)]);
    }
    driven.was_woken();
    driven.driver.turn();
    assert_eq!(driven.answers.take(), [(0, true), (1, true)]);
    assert!(driven.was_woken());
    driven.driver.turn();
    assert_eq!(driven.answers.take(), [(2, true)]);
    assert!(!driven.was_woken());
}

#[test]
fn an_answer_may_append_and_read_and_order_is_kept() {
    let mut driven = Driven::new();
    let (log, answers) = (driven.log.clone(), driven.answers.clone());
    let done = Box::new(move |result: io::Result<()>| {
        result.expect("appended");
        log.append(vec![records(2, 1, 1, 10)], answers.done(2)).expect("taken");
        log.truncate_after(Some(RaftIndex(1)), answers.done(202));
        answers.done(0)(Ok(()));
    });
    driven.log.append(vec![records(0, 1, 1, 10)], done).expect("taken");
    driven.append(vec![records(1, 1, 1, 10)]);
    driven.driver.turn();
    assert_eq!(driven.answers.take(), [(1, true), (2, true), (202, true), (0, true)]);
    assert_eq!(read_good(&driven.log).len(), 2);
}

#[test]
fn intervals_are_kept_by_turns() {
    let fsync = Fsync::Interval(Duration::from_millis(5));
    let (mut driven, _) = Driven::on(&MemoryDisk::new(), LogOptions { fsync, ..small() });
    driven.append(vec![records(0, 1, 1, 10)]);
    driven.driver.turn();
    assert_eq!(driven.answers.take(), [(0, true)], "acknowledged once written");
    let has_synced = |disk: &MemoryDisk| {
        disk.take_trace().iter().any(|op| op.to_string() == "sync 00000000000000000000.log")
    };
    has_synced(&driven.disk);
    driven.driver.turn();
    assert!(!has_synced(&driven.disk));
    driven.clock.advance_us(5000);
    driven.driver.turn();
    assert!(has_synced(&driven.disk));
}

#[test]
fn a_crash_before_the_turn_loses_what_was_not_acknowledged_and_nothing_else() {
    for seed in 0..50 {
        let mut driven = Driven::new();
        let batches: Vec<_> = (0..8).map(|index| records(index, 1, 2, 100)).collect();
        driven.append(batches[..5].to_vec());
        driven.driver.turn();
        driven.append(batches[5..].to_vec());
        assert_eq!(driven.answers.take(), [(4, true)]);
        let crashed = driven.disk.crash(seed);
        driven.disk.take_trace();
        let Driven { disk, log, driver, answers, .. } = driven;
        // In either order: neither writes, and nobody is told that it did.
        if seed % 2 == 0 {
            drop(driver);
            drop(log);
        } else {
            drop(log);
            drop(driver);
        }
        assert_eq!((disk.take_trace(), answers.take()), (vec![], vec![]));
        let (driven, report) = Driven::on(&crashed, small());
        assert!(report.is_clean() && report.torn.is_none(), "{report:?}");
        let read = read_good(&driven.log);
        assert_eq!(read.len(), 5);
        assert!(read.iter().zip(&batches).all(|(read, new)| is_same(read, new)));
    }
}

#[test]
fn without_its_driver_a_log_is_read_and_refuses_everything_else() {
    let mut driven = Driven::new();
    driven.append(vec![records(0, 1, 1, 10)]);
    driven.driver.turn();
    driven.append(vec![records(1, 1, 1, 10)]);
    driven.answers.take();
    let Driven { disk, log, driver, answers, .. } = driven;
    drop(driver);
    assert_eq!(log.read_indexes(RaftIndex(0), RaftIndex(1), 1).expect("read").len(), 1);
    let refused = log.append(vec![records(2, 1, 1, 10)], answers.done(2));
    assert!(matches!(refused, Err(LogError::Closed)));
    log.truncate_after(None, answers.done(3));
    log.save_vote(vec![1], answers.done(4));
    log.purge_to(Term(1), RaftIndex(9), Some(Offset(9)), answers.done(5));
    assert_eq!(answers.take(), [(3, false), (4, false), (5, false)]);
    assert!(log.save_checkpoint(RaftIndex(0), Vec::new()).is_err());
    assert!(!log.wait_flushed(RaftIndex(1), Duration::ZERO).expect("no failure"));
    log.close();
    let (log, _) = open(&disk, small());
    assert_eq!(read_good(&log).len(), 1, "the folder is free");
}

#[test]
fn a_driver_that_goes_on_without_handles_ends_the_log_well() {
    let driven = Driven::new();
    driven.append(vec![records(0, 1, 1, 10)]);
    driven.was_woken();
    let Driven { disk, log, mut driver, answers, woken, clock } = driven;
    let again = || Log::open(disk.shared(), dir(), small(), clock.clone());
    drop(log);
    assert!(woken.load(Ordering::SeqCst) > 0, "it is told");
    assert!(matches!(again(), Err(OpenError::InUse { .. })));
    while driver.turn() {}
    assert!(!driver.turn(), "and stays so");
    assert_eq!(answers.take(), [(0, true)]);
    assert_eq!(read_good(&again().expect("the folder is free").0).len(), 1);
}

#[test]
fn a_failed_sync_is_everyones_answer_and_later_turns_write_nothing() {
    let mut driven = Driven::new();
    driven.append(vec![records(0, 1, 1, 10)]);
    driven.append(vec![records(1, 1, 1, 10)]);
    driven.disk.fail("sync", ".log", 0, io::ErrorKind::Other);
    driven.driver.turn();
    assert_eq!(driven.answers.take(), [(0, false), (1, false)]);
    let refused = driven.log.append(vec![records(2, 1, 1, 10)], driven.answers.done(2));
    assert!(matches!(refused, Err(LogError::Failed(_))));
    driven.log.close();
}
