//! What a log does when nothing goes wrong.

mod support;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aklight_common::clock::{Clock, ManualClock};
use aklight_common::{Offset, RaftIndex, Term};
use aklight_log::{
    Disk, DiskFile, Fsync, Health, Log, LogError, LogOptions, MemoryDisk, NoRoom, OpenError,
    ReadError, Retention,
};
use support::*;

/// 40 batches of 3 records in several segments, with a blank entry before each tenth.
fn filled(log: &Log) -> Vec<aklight_log::NewBatch> {
    let mut batches = Vec::new();
    for n in 0..40 {
        let index = batches.len() as u64;
        if n % 10 == 0 {
            batches.push(blank(index, 1 + n / 10));
        }
        let index = batches.len() as u64;
        batches.push(records(index, 1 + n / 10, 3, 100));
    }
    for few in batches.chunks(3) {
        append(log, few.to_vec()).expect("appended");
    }
    batches
}

#[test]
fn what_was_appended_is_read_back_before_and_after_opening_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("partition_0.log");
    for tail_cache_bytes in [0, 1 << 20] {
        let options = LogOptions { tail_cache_bytes, ..small() };
        let _ = std::fs::remove_dir_all(&path);
        let (log, report) = open_real(&path, options.clone());
        assert!(report.is_clean());
        let batches = filled(&log);
        log.check_room(1 << 20).expect("a disk has a mebibyte");
        assert!(matches!(log.check_room(1 << 60), Err(NoRoom::Full { .. })), "but no exbibyte");
        for round in 0..3 {
            let (log, report) = match round {
                0 => (log.clone(), None),
                _ => {
                    log.close();
                    let (log, report) = open_real(&path, options.clone());
                    (log, Some(report))
                }
            };
            let read = read_good(&log);
            assert_eq!(read.len(), batches.len());
            assert!(read.iter().zip(&batches).all(|(read, new)| is_same(read, new)));
            let mut next = Offset(0);
            for batch in &read {
                assert_eq!(batch.header.base_offset, next);
                assert_eq!(log.offset_of(batch.header.index), Some(next));
                next = batch.header.end_offset();
            }
            let bounds = log.bounds();
            assert_eq!((bounds.start_offset, bounds.end_offset), (Offset(0), Offset(120)));
            assert_eq!(bounds.last, Some((Term(4), RaftIndex(43))));
            assert_eq!(
                (bounds.flushed, bounds.written),
                (Some(RaftIndex(43)), Some(RaftIndex(43)))
            );
            if let Some(report) = report {
                assert!(report.is_clean() && report.torn.is_none(), "{report:?}");
                assert!(report.segments > 3 && report.indexes_rebuilt.is_empty());
                // Sealed segments are believed: only the last one is read through.
                assert!(report.scanned_bytes <= options.segment_bytes);
            }
            log.close();
        }
    }
}

#[test]
fn a_read_by_offset_begins_with_the_batch_that_holds_it_and_ends_at_the_high_watermark() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk, small());
    filled(&log);
    for from in 0..120 {
        let read = log.read_offsets(Offset(from), Offset(120), 1).expect("read");
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].header.base_offset, Offset(from / 3 * 3));
        assert_eq!(read[0].records().count(), 3);
        let bounded = log.read_offsets(Offset(from), Offset(60), 1 << 20).expect("read");
        assert_eq!(bounded.is_empty(), from >= 60);
        assert!(bounded.iter().all(|batch| batch.header.end_offset() <= Offset(60)));
    }
    let all = log.read_offsets(Offset(0), Offset(120), usize::MAX).expect("read");
    assert_eq!(all.len(), 40);
    // The high watermark never shows half a batch.
    assert_eq!(log.read_offsets(Offset(57), Offset(59), 1 << 20).expect("read"), []);
    assert_eq!(log.read_offsets(Offset(120), Offset(120), 1).expect("read"), []);
    assert!(matches!(
        log.read_offsets(Offset(121), Offset(130), 1),
        Err(ReadError::BeyondEnd { asked: 121, end: Offset(120) })
    ));
}

#[test]
fn appends_must_follow_on() {
    let (log, _) = open(&MemoryDisk::new(), small());
    append(&log, vec![blank(5, 2), blank(6, 2)]).expect("an empty log takes any first entry");
    let refused = |batch| log.append(vec![batch], Box::new(|_| panic!("not called")));
    assert!(matches!(
        refused(blank(8, 2)),
        Err(LogError::IndexGap { expected: RaftIndex(7), got: RaftIndex(8) })
    ));
    assert!(matches!(
        refused(blank(7, 1)),
        Err(LogError::TermFalls { last: Term(2), got: Term(1) })
    ));
    let mut odd = blank(7, 2);
    odd.records = 1;
    assert!(matches!(refused(odd), Err(LogError::NoRecordsInKind(RaftIndex(7)))));
    let mut long = blank(7, 2);
    long.body = vec![0; aklight_log::BODY_BYTES_MAX + 1].into();
    assert!(matches!(refused(long), Err(LogError::TooLarge { .. })));
    append(&log, vec![blank(7, 2)]).expect("nothing was appended by the refused ones");
    // What was never there is not missing.
    let read = log.read_indexes(RaftIndex(0), RaftIndex(9), 1 << 20).expect("read");
    assert_eq!((read.len(), read[0].header.index), (3, RaftIndex(5)));
}

#[test]
fn many_appends_share_a_sync_and_are_answered_in_order() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk, LogOptions::default());
    disk.hold_syncs();
    let (sender, answers) = crossbeam_channel::unbounded();
    for index in 0..100 {
        let sender = sender.clone();
        let done = Box::new(move |result: std::io::Result<()>| {
            sender.send((index, result.is_ok())).expect("somebody waits");
        });
        log.append(vec![records(index, 1, 1, 10)], done).expect("taken");
        if index == 0 {
            disk.wait_for_held_sync();
            disk.take_trace();
        }
    }
    assert!(answers.try_recv().is_err(), "nothing is answered before the sync");
    assert_eq!(log.read_offsets(Offset(0), Offset(100), 1 << 20).expect("read").len(), 100);
    disk.release_syncs();
    for index in 0..100 {
        assert_eq!(answers.recv_timeout(PATIENCE), Ok((index, true)));
    }
    let syncs = |op: &aklight_log::disk::DiskOp| op.to_string().starts_with("sync");
    assert_eq!(disk.take_trace().iter().filter(|op| syncs(op)).count(), 2);
}

#[test]
fn a_truncation_gives_offsets_back_and_survives() {
    for last in [None, Some(0), Some(7), Some(12), Some(20), Some(42), Some(43), Some(99)] {
        let disk = MemoryDisk::new();
        let (log, _) = open(&disk, small());
        let batches = filled(&log);
        truncate(&log, last).expect("truncated");
        let kept = last.map_or(0, |last| (last as usize + 1).min(batches.len()));
        let check = |log: &Log, kept: usize| {
            let read = read_good(log);
            assert_eq!(read.len(), kept, "behind {last:?}");
            assert!(read.iter().zip(&batches).all(|(read, new)| is_same(read, new)));
            let end = read.last().map_or(Offset(0), |batch| batch.header.end_offset());
            assert_eq!(log.bounds().end_offset, end);
        };
        check(&log, kept);
        log.close();
        let (log, report) = open(&disk, small());
        assert!(report.is_clean(), "{report:?}");
        check(&log, kept);
        append(&log, batches[kept..].to_vec()).expect("appended");
        check(&log, batches.len());
        log.close();
        let (log, report) = open(&disk, small());
        assert!(report.is_clean(), "{report:?}");
        check(&log, batches.len());
    }
}

#[test]
fn an_append_may_be_queued_right_behind_a_truncation() {
    let (log, _) = open(&MemoryDisk::new(), small());
    filled(&log);
    log.truncate_after(Some(RaftIndex(4)), Box::new(|result| result.expect("truncated")));
    append(&log, vec![records(5, 9, 2, 10)]).expect("appended");
    let read = read_good(&log);
    assert_eq!((read.len(), read[5].header.base_offset), (6, Offset(12)));
}

#[test]
fn a_purge_forgets_entries_and_removes_whole_segments() {
    for upto in [0, 1, 12, 13, 30, 43] {
        let disk = MemoryDisk::new();
        let (log, _) = open(&disk, small());
        let batches = filled(&log);
        let before = log.bounds();
        let start = read_good(&log)[upto as usize].header.end_offset();
        purge(&log, upto).expect("purged");
        let check = |log: &Log| {
            let bounds = log.bounds();
            assert_eq!(bounds.purged.map(|purged| purged.1), Some(RaftIndex(upto)));
            assert_eq!(bounds.purged.map(|purged| purged.0), Some(batches[upto as usize].term));
            assert_eq!((bounds.start_offset, bounds.end_offset), (start, before.end_offset));
            assert_eq!(bounds.last, before.last);
            assert_eq!(read_good(log).len(), batches.len() - upto as usize - 1);
            assert!(matches!(
                log.read_indexes(RaftIndex(upto), RaftIndex(44), 1),
                Err(ReadError::Purged { .. })
            ));
            if start > Offset(0) {
                let refused = log.read_offsets(Offset(0), bounds.end_offset, 1);
                assert!(matches!(refused, Err(ReadError::Purged { first, .. }) if first == start));
            }
        };
        check(&log);
        assert_eq!(log.bounds().bytes < before.bytes, upto > 9, "purged up to {upto}");
        log.close();
        let (log, report) = open(&disk, small());
        assert!(report.is_clean(), "{report:?}");
        check(&log);
        append(&log, vec![records(44, 9, 1, 10)]).expect("appended");
        assert!(purge(&log, 3).is_ok(), "an older purge changes nothing");
        assert!(purge(&log, 45).is_err(), "what is not there cannot be purged");
    }
}

#[test]
fn a_purge_past_the_end_leaves_an_empty_log_that_goes_on_behind_it_where_it_was_told_to() {
    // As many records as the log had, more, and fewer: what was not committed here may have
    // held more than what took its place.
    for end_offset in [120, 500, 50, 0] {
        let disk = MemoryDisk::new();
        let (log, _) = open(&disk, small());
        filled(&log);
        let end = Offset(end_offset);
        wait(|done| log.purge_to(Term(7), RaftIndex(60), Some(end), done)).expect("purged");
        for round in 0..2 {
            let (log, report) = if round == 0 {
                (log.clone(), None)
            } else {
                log.close();
                let (log, report) = open(&disk, small());
                (log, Some(report))
            };
            assert!(report.is_none_or(|report| report.is_clean()), "{end_offset}");
            let bounds = log.bounds();
            assert_eq!(bounds.purged, Some((Term(7), RaftIndex(60))));
            assert_eq!(bounds.last, bounds.purged);
            assert_eq!((bounds.start_offset, bounds.end_offset), (end, end));
        }
        let (log, _) = {
            log.close();
            open(&disk, small())
        };
        append(&log, vec![records(61, 8, 2, 10)]).expect("appended");
        assert_eq!(read_good(&log)[0].header.base_offset, end);
        log.close();
        let (log, report) = open(&disk, small());
        assert!(report.is_clean(), "{end_offset}: {report:?}");
        assert_eq!(log.bounds().end_offset, Offset(end_offset + 2));
    }
}

#[test]
fn a_purge_that_disagrees_about_offsets_is_refused_and_changes_nothing() {
    let (log, _) = open(&MemoryDisk::new(), small());
    filled(&log);
    let purge_to = |upto, end: Option<u64>| {
        wait(|done| log.purge_to(Term(1), RaftIndex(upto), end.map(Offset), done))
    };
    let before = log.bounds();
    // Entry 5 ends with offset 15, entry 43 with 120; behind 43 nobody knows but the caller.
    for (upto, end) in [(5, Some(16)), (43, Some(119)), (60, None)] {
        let refused = purge_to(upto, end).expect_err("refused");
        assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput, "{upto}");
        assert_eq!(log.bounds(), before, "{upto}");
    }
    purge_to(5, Some(15)).expect("agreed");
    purge_to(60, Some(14)).expect_err("before what is purged already");
    purge_to(43, Some(120)).expect("agreed");
    assert_eq!(log.bounds().start_offset, Offset(120));
    assert_eq!(log.health(), Health::Writable);
}

#[test]
fn segments_without_records_get_names_of_their_own() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk, LogOptions { segment_bytes: 256, ..small() });
    for index in 0..20 {
        append(&log, vec![blank(index, 1)]).expect("appended");
    }
    log.close();
    let mut names = disk.shared().list(dir()).expect("listed");
    names.retain(|name| name.ends_with(".log"));
    assert_eq!(names.len(), 5, "{names:?}");
    let (log, report) = open(&disk, LogOptions { segment_bytes: 256, ..small() });
    assert!(report.is_clean());
    assert_eq!(read_good(&log).len(), 20);
}

#[test]
fn a_vote_is_kept_and_a_checkpoint_makes_what_came_before_it_durable() {
    let disk = MemoryDisk::new();
    let options = LogOptions { fsync: Fsync::Never, ..small() };
    let (log, _) = open(&disk, options.clone());
    assert_eq!(log.read_vote().expect("readable"), None);
    append(&log, vec![records(0, 1, 1, 10)]).expect("appended");
    wait(|done| log.save_vote(b"broker 2, term 7".to_vec(), done)).expect("saved");
    assert!(wait(|done| log.save_vote(vec![0; 65], done)).is_err());
    let only_the_vote = disk.crash(11);
    log.save_checkpoint(RaftIndex(0), Vec::new()).expect("saved");
    let (log, _) = open(&only_the_vote, options.clone());
    assert_eq!(log.read_vote().expect("readable"), Some(b"broker 2, term 7".to_vec()));
    let (log, _) = open(&disk.crash(11), options);
    assert_eq!(log.read_vote().expect("readable"), Some(b"broker 2, term 7".to_vec()));
    assert_eq!(read_good(&log).len(), 1);
}

#[test]
fn the_committed_hint_and_the_checkpoint_come_back() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk, small());
    assert_eq!((log.read_committed(), log.read_checkpoint().expect("readable")), (None, None));
    append(&log, vec![blank(0, 1)]).expect("appended");
    log.save_committed(b"up to 0".to_vec());
    log.save_checkpoint(RaftIndex(0), b"state".to_vec()).expect("saved");
    assert_eq!(log.read_committed(), Some(b"up to 0".to_vec()));
    log.close();
    let (log, _) = open(&disk, small());
    assert_eq!(log.read_committed(), Some(b"up to 0".to_vec()));
    let checkpoint = log.read_checkpoint().expect("readable");
    assert_eq!(checkpoint, Some((RaftIndex(0), b"state".to_vec())));
}

#[test]
fn who_searches_while_the_log_grows_finds_what_came_since() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk, LogOptions { segment_bytes: 60_000, ..small() });
    let rare = |topic: &str| topic == "rare/a";
    // One that begins at the start each time, and one that never leaves the newest segment.
    let (mut afar, mut near) = (log.topic_search(&rare), log.topic_search(&rare));
    for index in 0..300 {
        let topic = if index % 70 == 40 { "rare/a" } else { "usual/b" };
        append(&log, vec![records_on(topic, index, 1, 2, 400)]).expect("appended");
        let end = Offset(2 * (index + 1));
        for (search, from) in [(&mut afar, 0), (&mut near, 2 * index.saturating_sub(3))] {
            let (from, known) = (Offset(from), log.next_with_topics(Offset(from), end, &rare));
            assert_eq!(search.next(from, end), known, "from {from} to {end}");
        }
    }
    let sealed =
        disk.files().iter().filter(|(path, _)| path.extension() == Some("index".as_ref())).count();
    assert!(sealed > 1, "segments were begun meanwhile");
}

#[test]
fn topics_and_times_are_found_by_the_indexes() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk, LogOptions { segment_bytes: 60_000, ..small() });
    for index in 0..300 {
        let topic = if index == 200 { "rare/a" } else { "usual/b" };
        append(&log, vec![records_on(topic, index, 1, 2, 400)]).expect("appended");
    }
    for round in 0..2 {
        let log = if round == 0 {
            log.clone()
        } else {
            log.close();
            open(&disk, small()).0
        };
        let rare = |topic: &str| topic == "rare/a";
        let next = |from: u64, to: u64| log.next_with_topics(Offset(from), Offset(to), &rare).0;
        assert!((360..=400).contains(&next(0, 600)), "{}", next(0, 600));
        assert_eq!(next(401, 600).clamp(401, 420), next(401, 600), "same block");
        assert!(next(450, 600) >= 580, "nothing is skipped but by the index");
        assert_eq!(next(0, 100), 100);
        let mut search = log.topic_search(&rare);
        for from in (0..600).step_by(7) {
            assert_eq!(search.next(Offset(from), Offset(600)).0, next(from, 600), "from {from}");
        }
        assert_eq!(log.next_with_topics(Offset(7), Offset(600), &|t| t == "usual/b"), Offset(7));
        for index in [0_u64, 1, 77, 299] {
            assert_eq!(log.offset_at_time(index * 1000), Offset(index * 2));
            assert_eq!(log.offset_at_time(index * 1000 + 1), Offset(index * 2 + 1));
            assert_eq!(log.offset_at_time(index * 1000 + 2), Offset(index * 2 + 2));
        }
        let counts = log.topic_counts_before(RaftIndex(250)).expect("counted");
        assert_eq!(counts.get("usual/b"), Some(&500));
        assert_eq!(counts.get("rare/a"), Some(&2));
    }
}

#[test]
fn retention_names_the_last_entry_of_a_sealed_segment() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk, small());
    filled(&log);
    let none = Retention::default();
    assert_eq!(log.expired(u64::MAX, &none), None);
    let all = log.expired(0, &Retention { bytes: Some(0), ..none }).expect("all sealed ones");
    assert!(all < RaftIndex(43), "never the open segment");
    let half = Retention { bytes: Some(log.bounds().bytes / 2), ..none };
    let upto = log.expired(0, &half).expect("some");
    assert!(upto < all);
    let counts = log.topic_counts_before(upto).expect("counted");
    let before = log.bounds().start_offset.0;
    purge(&log, upto.0).expect("purged");
    let gone = log.bounds().start_offset.0 - before;
    assert_eq!(counts.values().sum::<u64>(), gone);
    assert!(log.bounds().bytes <= half.bytes.expect("set"));
    assert_eq!(log.expired(0, &half), None);
    let old = Retention { age_us: Some(1000), ..none };
    assert_eq!(log.expired(upto.0 * 1000, &old), None, "the rest is younger");
    assert_eq!(log.expired(u64::MAX, &old), Some(all));
}

#[test]
fn intervals_sync_when_they_are_over_and_answer_before() {
    let disk = MemoryDisk::new();
    let clock = ManualClock::at(1_000_000);
    let options = LogOptions { fsync: Fsync::Interval(Duration::from_millis(5)), ..small() };
    let (log, _) = Log::open(disk.shared(), dir(), options, clock.clone()).expect("opens");
    disk.take_trace();
    append(&log, vec![blank(0, 1)]).expect("appended");
    let synced = |disk: &MemoryDisk| {
        disk.take_trace().iter().any(|op| op.to_string() == "sync 00000000000000000000.log")
    };
    assert!(!synced(&disk), "answered once written");
    clock.advance_us(5_000);
    let started = aklight_common::clock::SystemClock::new();
    while !synced(&disk) {
        assert!(started.monotonic_ms() < 60_000, "synced when the interval is over");
        std::thread::yield_now();
    }
}

#[test]
fn where_no_append_waits_for_a_sync_a_start_does_not_and_the_first_sync_saves_what_it_found() {
    const SEGMENT: &str = "00000000000000000000.log";
    let interval = Duration::from_millis(5);
    let options = LogOptions { fsync: Fsync::Interval(interval), ..small() };
    let disk = MemoryDisk::new();
    let clock = ManualClock::at(1_000_000);
    let (log, _) = Log::open(disk.shared(), dir(), options.clone(), clock).expect("opens");
    append(&log, vec![records(0, 1, 2, 10), records(1, 1, 2, 900)]).expect("written");
    // From now on no sync saves these bytes, unless they are written again.
    disk.fail("sync", SEGMENT, 0, io::ErrorKind::Other);
    assert!(log.save_checkpoint(RaftIndex(1), Vec::new()).is_err());
    let disk = disk.kill();
    log.close();
    disk.take_trace();
    let clock = ManualClock::at(1_000_000);
    let (log, report) =
        Log::open(disk.shared(), dir(), options.clone(), clock.clone()).expect("opens");
    assert!(report.is_clean(), "{report:?}");
    let at_start: Vec<_> = disk.take_trace().iter().map(ToString::to_string).collect();
    assert!(
        !at_start.iter().any(|op| op.contains(SEGMENT) && !op.contains("open")),
        "{at_start:?}"
    );
    append(&log, vec![records(2, 1, 2, 10)]).expect("written");
    clock.advance_us(5_000);
    let started = aklight_common::clock::SystemClock::new();
    while !disk.take_trace().iter().any(|op| op.to_string() == format!("sync {SEGMENT}")) {
        assert!(started.monotonic_ms() < 60_000, "synced when the interval is over");
        std::thread::yield_now();
    }
    for seed in 0..20 {
        let (log, report) = open(&disk.crash(seed), options.clone());
        assert!(report.is_clean(), "seed {seed}: {report:?}");
        assert_eq!(read_good(&log).len(), 3, "seed {seed}");
    }
}

#[test]
fn room_is_what_is_reserved_in_the_file_or_free_on_the_disk() {
    let disk = MemoryDisk::new();
    let options = LogOptions { reserve_bytes: 1000, preallocate_bytes: 4096, ..small() };
    let (log, _) = open(&disk, options);
    append(&log, vec![records(0, 1, 1, 100)]).expect("appended");
    disk.limit(0);
    log.check_room(3000).expect("the file has it already");
    let refused = log.check_room(4096).expect_err("the disk has no more");
    let NoRoom::Full { free: 0, needed, .. } = refused else { panic!("{refused}") };
    assert!(needed >= 1000, "the reserve is not for records: {needed}");
    assert!(refused.to_string().contains("free some space"), "{refused}");
    disk.limit(1 << 20);
    log.check_room(4096).expect("free again");
}

#[test]
fn one_process_at_a_time_has_the_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let (log, _) = open_real(folder.path(), small());
    let again = || {
        let clock = ManualClock::at(1);
        Log::open(aklight_log::RealDisk::shared(), folder.path(), small(), clock)
    };
    let refused = again().expect_err("in use");
    assert!(matches!(refused, OpenError::InUse { .. }));
    log.close();
    again().expect("free again");
}

#[test]
fn a_closed_log_refuses_writes_and_can_still_be_read() {
    let (log, _) = open(&MemoryDisk::new(), small());
    append(&log, vec![blank(0, 1)]).expect("appended");
    log.close();
    log.close();
    assert!(matches!(log.append(vec![blank(1, 1)], Box::new(|_| {})), Err(LogError::Closed)));
    assert!(wait(|done| log.save_vote(Vec::new(), done)).is_err());
    assert!(truncate(&log, None).is_err());
    assert!(log.save_checkpoint(RaftIndex(0), Vec::new()).is_err());
    assert_eq!(log.health(), Health::Writable);
    assert_eq!(read_good(&log).len(), 1);
}

#[test]
fn an_answer_may_drop_the_last_handle() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk, small());
    let held = Arc::new(std::sync::Mutex::new(Some(log.clone())));
    let dropped = Arc::new(AtomicBool::new(false));
    let (holder, flag) = (held.clone(), dropped.clone());
    disk.hold_syncs();
    let done = Box::new(move |_| {
        drop(holder.lock().expect("unpoisoned").take());
        flag.store(true, Ordering::SeqCst);
    });
    log.append(vec![blank(0, 1)], done).expect("taken");
    drop(log);
    disk.release_syncs();
    let started = aklight_common::clock::SystemClock::new();
    while !dropped.load(Ordering::SeqCst) {
        assert!(started.monotonic_ms() < 60_000, "the writer thread must not wait for itself");
        std::thread::yield_now();
    }
}

#[test]
fn nobody_waits_for_a_writer_that_panicked_and_the_folder_is_free() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk, small());
    log.append(vec![blank(0, 1)], Box::new(|_| panic!("planted"))).expect("taken");
    let (sender, answer) = crossbeam_channel::bounded(1);
    log.save_vote(vec![1], Box::new(move |result| sender.send(result).expect("somebody waits")));
    match answer.recv_timeout(PATIENCE) {
        Ok(result) => assert!(result.is_err(), "nobody saves it"),
        Err(error) => assert!(error.is_disconnected(), "nobody will answer, and that shows"),
    }
    log.close();
    let (log, _) = open(&disk, small());
    assert_eq!(read_good(&log).len(), 1);
}

#[test]
fn readers_see_a_dense_log_while_it_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let (log, _) = open_real(folder.path(), LogOptions { tail_cache_bytes: 2000, ..small() });
    let is_over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (log, is_over) = (log.clone(), is_over.clone());
            std::thread::spawn(move || {
                let mut next = Offset(0);
                loop {
                    let was_over = is_over.load(Ordering::SeqCst);
                    let end = log.bounds().end_offset;
                    let read = log.read_offsets(next, end, 700).expect("read");
                    for batch in &read {
                        assert_eq!(batch.header.base_offset, next);
                        assert!(is_same(batch, &records(batch.header.index.0, 1, 2, 50)));
                        next = batch.header.end_offset();
                    }
                    if was_over && read.is_empty() {
                        return next;
                    }
                }
            })
        })
        .collect();
    for index in 0..1000 {
        log.append(vec![records(index, 1, 2, 50)], Box::new(|result| result.expect("appended")))
            .expect("taken");
    }
    assert!(log.wait_flushed(RaftIndex(999), PATIENCE).expect("no failure"));
    is_over.store(true, Ordering::SeqCst);
    for reader in readers {
        assert_eq!(reader.join().expect("no panic"), Offset(2000));
    }
}

#[test]
fn readers_of_a_log_that_is_truncated_see_one_version_or_the_other_and_no_damage() {
    let folder = tempfile::tempdir().expect("a folder");
    let (log, _) = open_real(folder.path(), small());
    append(&log, (0..20).map(|index| records(index, 1, 2, 100)).collect()).expect("appended");
    let is_over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (log, is_over) = (log.clone(), is_over.clone());
            std::thread::spawn(move || {
                let mut read = 0;
                while !is_over.load(Ordering::SeqCst) {
                    for from in 0..60 {
                        let batches = match log.read_indexes(RaftIndex(from), RaftIndex(60), 1500) {
                            Ok(batches) => batches,
                            Err(ReadError::BeyondEnd { .. }) => break,
                            Err(error) => panic!("{error}"),
                        };
                        for batch in &batches {
                            let (index, term) = (batch.header.index.0, batch.header.term.0);
                            assert!(is_same(batch, &records(index, term, 2, 100)));
                        }
                        read += batches.len();
                    }
                }
                read
            })
        })
        .collect();
    for term in 2..60 {
        truncate(&log, Some(10 + term % 9)).expect("truncated");
        let from = 11 + term % 9;
        append(&log, (from..60).map(|index| records(index, term, 2, 100)).collect())
            .expect("appended");
    }
    is_over.store(true, Ordering::SeqCst);
    for reader in readers {
        assert!(reader.join().expect("no panic") > 0);
    }
    assert!(
        !std::fs::read_dir(folder.path()).expect("listed").any(|file| {
            file.expect("readable").file_name().to_string_lossy().contains("damaged")
        })
    );
}

#[test]
fn what_is_not_written_yet_is_not_skipped_by_topic() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk, small());
    append(&log, vec![records_on("usual/b", 0, 1, 2, 10)]).expect("appended");
    disk.hold_syncs();
    for index in 1..4 {
        let batch = records_on("rare/a", index, 1, 2, 10);
        log.append(vec![batch], Box::new(|_| {})).expect("taken");
        disk.wait_for_held_sync();
    }
    let next = |wanted: &str| log.next_with_topics(Offset(0), Offset(8), &|topic| topic == wanted);
    let (rare, other) = (next("rare/a"), next("other"));
    disk.release_syncs();
    assert!(rare <= Offset(2), "{rare}");
    assert!(other < Offset(8), "what nobody has indexed may match: {other}");
}

/// A disk whose reads wait at a gate, but for those of the log's own threads.
struct Gated {
    disk: Arc<dyn Disk>,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    /// 0 open, 1 closed, 2 closed and somebody waits.
    state: std::sync::Mutex<u8>,
    moved: std::sync::Condvar,
}

impl Gate {
    fn set(&self, state: u8) {
        *self.state.lock().expect("unpoisoned") = state;
        self.moved.notify_all();
    }

    fn wait_for(&self, state: u8) {
        let held = self.state.lock().expect("unpoisoned");
        drop(self.moved.wait_while(held, |now| *now != state).expect("unpoisoned"));
    }
}

struct GatedFile(Arc<dyn DiskFile>, Arc<Gate>);

impl Disk for Gated {
    fn create_dir_all(&self, dir: &std::path::Path) -> std::io::Result<()> {
        self.disk.create_dir_all(dir)
    }
    fn list(&self, dir: &std::path::Path) -> std::io::Result<Vec<String>> {
        self.disk.list(dir)
    }
    fn open(&self, path: &std::path::Path) -> std::io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(GatedFile(self.disk.open(path)?, self.gate.clone())))
    }
    fn create(&self, path: &std::path::Path) -> std::io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(GatedFile(self.disk.create(path)?, self.gate.clone())))
    }
    fn remove(&self, path: &std::path::Path) -> std::io::Result<()> {
        self.disk.remove(path)
    }
    fn rename(&self, from: &std::path::Path, to: &std::path::Path) -> std::io::Result<()> {
        self.disk.rename(from, to)
    }
    fn sync_dir(&self, dir: &std::path::Path) -> std::io::Result<()> {
        self.disk.sync_dir(dir)
    }
    fn free_bytes(&self, dir: &std::path::Path) -> std::io::Result<u64> {
        self.disk.free_bytes(dir)
    }
    fn lock(
        &self,
        path: &std::path::Path,
    ) -> std::io::Result<Box<dyn aklight_log::disk::DiskLock>> {
        self.disk.lock(path)
    }
}

impl DiskFile for GatedFile {
    fn size(&self) -> std::io::Result<u64> {
        self.0.size()
    }
    fn read_at(&self, buffer: &mut [u8], at: u64) -> std::io::Result<usize> {
        let is_reader = std::thread::current().name() == Some("reader");
        if is_reader && *self.1.state.lock().expect("unpoisoned") == 1 {
            self.1.set(2);
            self.1.wait_for(0);
        }
        self.0.read_at(buffer, at)
    }
    fn write_at(&self, parts: &[std::io::IoSlice<'_>], at: u64) -> std::io::Result<usize> {
        self.0.write_at(parts, at)
    }
    fn sync(&self) -> std::io::Result<()> {
        self.0.sync()
    }
    fn set_size(&self, bytes: u64) -> std::io::Result<()> {
        self.0.set_size(bytes)
    }
    fn preallocate(&self, from: u64, bytes: u64) -> std::io::Result<()> {
        self.0.preallocate(from, bytes)
    }
}

#[test]
fn a_read_that_a_truncation_overtakes_begins_again() {
    let gate = Arc::new(Gate::default());
    let disk = MemoryDisk::new();
    let gated = Arc::new(Gated { disk: disk.shared(), gate: gate.clone() });
    let (log, _) = open_on(gated, dir(), small());
    append(&log, (0..5).map(|index| records(index, 1, 1, 100)).collect()).expect("appended");
    gate.set(1);
    let reader = log.clone();
    let reading = std::thread::Builder::new()
        .name("reader".to_owned())
        .spawn(move || reader.read_indexes(RaftIndex(3), RaftIndex(5), 1 << 20))
        .expect("started");
    gate.wait_for(2);
    truncate(&log, Some(2)).expect("truncated");
    append(&log, vec![records(3, 2, 1, 77)]).expect("appended");
    gate.set(0);
    let read = reading.join().expect("no panic").expect("read");
    assert!(read.len() == 1 && is_same(&read[0], &records(3, 2, 1, 77)));
    assert!(!disk.shared().list(dir()).expect("listed").iter().any(|n| n.contains("damaged")));
}
