//! What a log does when the disk fails, loses or changes something.

mod support;

use std::io;
use std::path::PathBuf;

use aklight_common::clock::ManualClock;
use aklight_common::{Offset, RaftIndex, Term};
use aklight_log::{Fsync, Health, Log, LogError, LogOptions, MemoryDisk, NewBatch, OpenError};
use support::*;

const FIRST: &str = "00000000000000000000.log";

/// The segment of a log that was purged up to entry 5 before it had any record.
const FIRST_BEHIND_5: &str = "00000000000000000000-00000000000000000006.log";

/// Batches of 2 records (and one blank entry), about six a segment.
fn batches(count: u64) -> Vec<NewBatch> {
    (0..count).map(|n| if n == 4 { blank(n, 1) } else { records(n, 1, 2, 20) }).collect()
}

fn small_segments() -> LogOptions {
    LogOptions { segment_bytes: 800, preallocate_bytes: 512, ..small() }
}

/// A log of twenty batches, each acknowledged on its own, closed well.
fn filled() -> (MemoryDisk, Vec<NewBatch>) {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk, small_segments());
    let batches = batches(20);
    for batch in &batches {
        append(&log, vec![batch.clone()]).expect("appended");
    }
    log.close();
    (disk, batches)
}

fn segment_paths(disk: &MemoryDisk) -> Vec<PathBuf> {
    let mut names = disk.shared().list(dir()).expect("listed");
    names.retain(|name| name.ends_with(".log"));
    names.sort();
    names.iter().map(|name| dir().join(name)).collect()
}

fn file_named(disk: &MemoryDisk, holds: &str) -> Vec<String> {
    let mut names = disk.shared().list(dir()).expect("listed");
    names.retain(|name| name.contains(holds));
    names
}

#[test]
fn after_a_failed_write_or_sync_nothing_is_written_and_reads_go_on() {
    for kind in ["write", "sync"] {
        let disk = MemoryDisk::new();
        let (log, _) = open(&disk, small());
        append(&log, vec![records(0, 1, 1, 10)]).expect("appended");
        disk.fail(kind, FIRST, 0, io::ErrorKind::Other);
        assert!(append(&log, vec![records(1, 1, 1, 10)]).is_err(), "{kind}");
        let refused = log.append(vec![records(2, 1, 1, 10)], Box::new(|_| panic!("not called")));
        assert!(matches!(refused, Err(LogError::Failed(_))), "{kind}");
        assert!(matches!(log.health(), Health::Failed(reason) if reason.contains("append")));
        assert!(wait(|done| log.save_vote(vec![1], done)).is_err());
        assert!(truncate(&log, Some(0)).is_err());
        assert!(log.wait_flushed(RaftIndex(1), PATIENCE).is_err(), "does not wait in vain");
        assert_eq!(log.bounds().flushed, Some(RaftIndex(0)));
        assert_eq!(log.read_offsets(Offset(0), Offset(1), 1).expect("readable").len(), 1);
        log.close();
        let (log, _) = open(&disk.crash(3), small());
        assert_eq!(log.health(), Health::Writable);
        assert!(is_same(&read_good(&log)[0], &records(0, 1, 1, 10)));
    }
}

#[test]
fn everyone_in_the_queue_gets_the_error() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk, small());
    disk.hold_syncs();
    let (sender, answers) = crossbeam_channel::unbounded();
    for index in 0..10 {
        let sender = sender.clone();
        let done = Box::new(move |result: io::Result<()>| {
            sender.send(result.is_err()).expect("somebody waits");
        });
        log.append(vec![records(index, 1, 1, 10)], done).expect("taken");
        if index == 0 {
            disk.wait_for_held_sync();
        }
    }
    disk.fail("sync", FIRST, 0, io::ErrorKind::Other);
    disk.release_syncs();
    for _ in 0..10 {
        assert_eq!(answers.recv_timeout(PATIENCE), Ok(true));
    }
}

#[test]
fn short_writes_are_gone_on_with() {
    for bytes_max in [1, 7, 63, 64, 65] {
        let disk = MemoryDisk::new();
        disk.shorten_writes(bytes_max);
        let (log, _) = open(&disk, small_segments());
        let batches = batches(20);
        append(&log, batches.clone()).expect("appended");
        log.close();
        let (log, report) = open(&disk, small_segments());
        assert!(report.is_clean() && report.torn.is_none());
        assert!(read_good(&log).iter().zip(&batches).all(|(read, new)| is_same(read, new)));
    }
}

#[test]
fn space_that_cannot_be_taken_in_advance_is_no_failure() {
    for error in [io::ErrorKind::Unsupported, io::ErrorKind::StorageFull] {
        let disk = MemoryDisk::new();
        let (log, _) = open(&disk, small());
        disk.fail("reserve", FIRST, 0, error);
        append(&log, vec![records(0, 1, 1, 10)]).expect("appended");
        append(&log, vec![records(1, 1, 1, 10)]).expect("appended");
        log.close();
        assert_eq!(read_good(&open(&disk, small()).0).len(), 2);
    }
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_room_again() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk, LogOptions { reserve_bytes: 100, ..small() });
    // The small files are about 12 KiB; the segment finds room for a few batches.
    let used = 1_000_000 - {
        disk.limit(1_000_000);
        disk.shared().free_bytes(dir()).expect("known")
    };
    disk.limit(used + 1500);
    let mut index = 0;
    while append(&log, vec![records(index, 1, 1, 200)]).is_ok() {
        index += 1;
    }
    assert!(index >= 3, "what fits is taken: {index}");
    assert!(log.check_room(1000).is_err());
    drop(log);
    disk.limit(used + 100_000);
    let (log, report) = open(&disk, small());
    assert!(report.is_clean(), "{report:?}");
    let kept = read_good(&log).len() as u64;
    assert!(kept >= index);
    append(&log, vec![records(kept, 1, 1, 200)]).expect("appended");
}

/// The place in `batches` that the byte of a segment belongs to; none in space taken ahead.
fn hit(disk: &MemoryDisk, segment: usize, byte: usize, batches: &[NewBatch]) -> Option<usize> {
    let mut place = 0;
    for (number, path) in segment_paths(disk).iter().enumerate() {
        let content = disk.contents(path).expect("there");
        let mut at = 0;
        while at < content.len() && content[at] != 0 {
            let end = at + aklight_log::HEADER_BYTES + batches[place].body.len();
            if number == segment && (at..end).contains(&byte) {
                return Some(place);
            }
            (place, at) = (place + 1, end);
        }
    }
    None
}

fn offsets_of(batches: &[NewBatch], place: usize) -> (Offset, Offset) {
    let records = |upto: usize| batches[..upto].iter().map(|b| u64::from(b.records)).sum();
    (Offset(records(place)), Offset(records(place + 1)))
}

/// Opens the damaged log and checks that all but `lost` can be read and nothing is reused.
fn check_all_but(disk: &MemoryDisk, batches: &[NewBatch], lost: Option<usize>, what: &str) {
    for round in 0..2 {
        let (log, report) = open(disk, small_segments());
        let (read, damages) = read_all(&log);
        let expect: Vec<_> =
            batches.iter().enumerate().filter(|(place, _)| Some(*place) != lost).collect();
        assert_eq!(read.len(), expect.len(), "{what}, round {round}: {report:?} {damages:?}");
        for (read, (place, new)) in read.iter().zip(expect) {
            assert!(is_same(read, new), "{what}");
            assert_eq!(read.header.base_offset, offsets_of(batches, place).0, "{what}");
        }
        let expect: Vec<_> = lost.map(|place| offsets_of(batches, place)).into_iter().collect();
        assert_eq!(damages, expect, "{what}, round {round}");
        let bounds = log.bounds();
        let end = offsets_of(batches, batches.len() - 1).1;
        assert_eq!(bounds.end_offset, end, "{what}: no offset is given out twice");
        assert_eq!(bounds.last.map(|last| last.1), Some(batches[batches.len() - 1].index));
        if let Some(place) = lost {
            let (from, resume) = offsets_of(batches, place);
            if from < resume {
                let all = log.next_with_topics(from, end, &|_| false);
                assert_eq!(all, from, "{what}: damage is never skipped");
            }
            assert!(!file_named(disk, ".damaged-").is_empty(), "{what}: set aside");
        }
        log.close();
    }
    let (log, _) = open(disk, small_segments());
    let next = batches.len() as u64;
    append(&log, vec![records(next, 1, 2, 20)]).expect("the log goes on");
    let read = log.read_indexes(RaftIndex(next), RaftIndex(next + 1), 1).expect("read");
    assert_eq!(read[0].header.base_offset, offsets_of(batches, batches.len() - 1).1);
}

#[test]
fn a_flipped_bit_anywhere_costs_its_own_batch_and_is_reported() {
    let (disk, batches) = filled();
    let paths = segment_paths(&disk);
    assert!(paths.len() >= 3);
    for (number, path) in paths.iter().enumerate() {
        let size = disk.contents(path).expect("there").len();
        for byte in 0..size {
            let lost = hit(&disk, number, byte, &batches);
            let damaged = disk.kill();
            damaged.flip_bit(path, byte * 8 + byte % 8);
            check_all_but(&damaged, &batches, lost, &format!("segment {number}, byte {byte}"));
        }
    }
}

#[test]
fn without_a_sidecar_damage_is_found_at_once() {
    let (disk, batches) = filled();
    let paths = segment_paths(&disk);
    for (number, path) in paths.iter().enumerate() {
        for byte in (0..disk.contents(path).expect("there").len()).step_by(13) {
            let lost = hit(&disk, number, byte, &batches);
            let damaged = disk.kill();
            for sidecar in file_named(&damaged, ".index") {
                damaged.shared().remove(&dir().join(sidecar)).expect("removed");
            }
            damaged.flip_bit(path, byte * 8);
            let again = damaged.kill();
            let (_, report) = open(&damaged, small_segments());
            assert_eq!(report.damaged.len(), usize::from(lost.is_some()), "{report:?}");
            assert_eq!(report.indexes_rebuilt.len(), paths.len() - 1);
            check_all_but(&again, &batches, lost, &format!("segment {number}, byte {byte}"));
        }
    }
}

#[test]
fn a_damaged_sidecar_is_built_again() {
    let (disk, batches) = filled();
    for sidecar in file_named(&disk, ".index") {
        let path = dir().join(&sidecar);
        for bit in (0..disk.contents(&path).expect("there").len() * 8).step_by(37) {
            let damaged = disk.kill();
            damaged.flip_bit(&path, bit);
            let (log, report) = open(&damaged, small_segments());
            assert_eq!(report.indexes_rebuilt.len(), 1, "{sidecar}, bit {bit}");
            assert!(report.is_clean() && read_good(&log).len() == batches.len());
        }
    }
}

#[test]
fn an_acknowledged_tail_that_is_gone_is_reported_and_its_offsets_are_not_reused() {
    let (disk, batches) = filled();
    let paths = segment_paths(&disk);
    let last = paths.last().expect("some");
    let size = disk.contents(last).expect("there").len();
    for left in 0..size {
        let damaged = disk.kill();
        damaged.cut(last, left);
        let (log, report) = open(&damaged, small_segments());
        let (read, damages) = read_all(&log);
        let lost = read.len() < batches.len();
        assert_eq!(report.damaged.len(), usize::from(lost), "cut at {left}: {report:?}");
        assert_eq!(damages.len(), usize::from(lost), "cut at {left}");
        assert_eq!(log.bounds().end_offset, Offset(38), "cut at {left}");
        assert!(report.torn.is_none());
        append(&log, vec![records(20, 1, 2, 20)]).expect("the log goes on");
        log.close();
        let (log, _) = open(&damaged, small_segments());
        assert_eq!(log.bounds().end_offset, Offset(40), "cut at {left}");
        assert_eq!(read_all(&log).0.len(), read.len() + 1, "cut at {left}");
    }
}

#[test]
fn a_missing_segment_is_reported_and_gone_around() {
    let (disk, batches) = filled();
    let paths = segment_paths(&disk);
    for (gone, path) in paths.iter().enumerate() {
        let damaged = disk.kill();
        damaged.shared().remove(path).expect("removed");
        let (log, report) = open(&damaged, small_segments());
        assert_eq!(report.damaged.len(), 1, "without segment {gone}: {report:?}");
        assert!(report.damaged[0].from < report.damaged[0].resume);
        let bounds = log.bounds();
        assert_eq!(
            (bounds.end_offset, bounds.start_offset),
            (Offset(38), report_start(gone, &report))
        );
        if gone > 0 {
            let (read, damages) = read_all(&log);
            assert_eq!(damages, [(report.damaged[0].from, report.damaged[0].resume)]);
            assert!(read.len() < batches.len());
        }
        append(&log, vec![records(20, 1, 2, 20)]).expect("the log goes on");
    }
}

/// Without its first segment a log that was never purged begins where the second does.
fn report_start(gone: usize, report: &aklight_log::OpenReport) -> Offset {
    if gone == 0 { report.damaged[0].resume } else { Offset(0) }
}

#[test]
fn a_log_whose_segments_are_all_gone_goes_on_behind_them() {
    let (disk, _) = filled();
    for path in segment_paths(&disk) {
        disk.shared().remove(&path).expect("removed");
    }
    let refused =
        Log::open(disk.shared(), dir(), small(), aklight_common::clock::ManualClock::at(1));
    let (log, report) = refused.expect("opens");
    assert_eq!((report.damaged[0].from, report.damaged[0].resume), (Offset(0), Offset(38)));
    append(&log, vec![records(20, 1, 2, 20)]).expect("the log goes on");
    assert_eq!(log.read_offsets(Offset(38), Offset(40), 1).expect("read").len(), 1);
}

#[test]
fn an_unfinished_write_is_cut_off_and_not_called_damage() {
    let mut torn = 0;
    for seed in 0..200 {
        let disk = MemoryDisk::new();
        let (log, _) = open(&disk, LogOptions { preallocate_bytes: 4096, ..small() });
        append(&log, vec![records(0, 1, 2, 400), records(1, 1, 2, 400)]).expect("appended");
        disk.hold_syncs();
        let batches: Vec<_> = (2..5).map(|index| records(index, 1, 2, 300)).collect();
        log.append(batches, Box::new(|_| {})).expect("taken");
        disk.wait_for_held_sync();
        let after = disk.crash(seed);
        disk.release_syncs();
        let (log, report) = open(&after, small());
        assert!(report.is_clean(), "seed {seed}: {report:?}");
        torn += usize::from(report.torn.is_some());
        let read = read_good(&log);
        assert!((2..=5).contains(&read.len()), "seed {seed}");
        append(&log, vec![records(read.len() as u64, 1, 1, 10)]).expect("appended");
        log.close();
        assert_eq!(read_good(&open(&after, small()).0).len(), read.len() + 1, "seed {seed}");
    }
    assert!(torn > 20, "crashes tear: {torn}");
}

#[test]
fn a_hole_before_what_vouches_for_it_is_damage_even_without_the_hint() {
    let (disk, batches) = filled();
    let path = segment_paths(&disk).pop().expect("some");
    // The first batch of the open segment: later ones were written after its sync.
    disk.flip_bit(&path, 300);
    for slot in [0, 4096] {
        disk.flip_bit(&dir().join("committed"), (slot + 5) * 8);
    }
    let (log, report) = open(&disk, small_segments());
    assert!(report.hint_lost && !report.is_clean());
    assert_eq!((report.damaged.len(), report.torn), (1, None));
    assert_eq!(read_all(&log).0.len(), batches.len() - 1);
}

#[test]
fn a_vote_beyond_reading_keeps_the_log_closed_and_says_why() {
    for name in ["vote", "purged"] {
        let (disk, _) = filled();
        for slot in [0, 4096] {
            disk.flip_bit(&dir().join(name), (slot + 5) * 8);
        }
        let clock = aklight_common::clock::ManualClock::at(1);
        let refused = Log::open(disk.shared(), dir(), small(), clock).expect_err("refused");
        assert!(matches!(&refused, OpenError::SlotsDamaged { path } if path.ends_with(name)));
        assert!(refused.to_string().contains("restore the file from a backup"), "{refused}");
    }
}

#[test]
fn an_open_that_fails_says_what_and_where_and_may_be_tried_again() {
    for kind in ["create", "write", "sync", "rename", "sync names"] {
        let disk = MemoryDisk::new();
        disk.fail(kind, "", 0, io::ErrorKind::PermissionDenied);
        let clock = aklight_common::clock::ManualClock::at(1);
        let refused = Log::open(disk.shared(), dir(), small(), clock).expect_err("refused");
        let OpenError::Io { path, .. } = &refused else { panic!("{refused}") };
        assert!(path.starts_with(dir()), "{refused}");
        let (log, report) = open(&disk, small());
        assert!(report.is_clean(), "{kind}: {report:?}");
        append(&log, vec![blank(0, 1)]).expect("appended");
    }
}

#[test]
fn a_batch_in_the_wrong_place_is_damage_although_its_checksum_is_right() {
    let (disk, batches) = filled();
    let path = &segment_paths(&disk)[0];
    // Batches 1 to 3 have one length; the second is written over the third.
    let content = disk.contents(path).expect("there");
    let len = aklight_log::HEADER_BYTES + batches[1].body.len();
    let (from, to) = (64 + batches[0].body.len(), 64 + batches[0].body.len() + len);
    let file = disk.shared().open(path).expect("there");
    let copied = [io::IoSlice::new(&content[from..to])];
    assert_eq!(file.write_at(&copied, to as u64).expect("written"), len);
    check_all_but(&disk, &batches, Some(2), "misplaced");
}

#[test]
fn a_sidecar_of_another_segment_misleads_nobody() {
    let (disk, batches) = filled();
    let (log, _) = open(&disk, small_segments());
    let sidecars = file_named(&disk, ".index");
    let other = disk.contents(&dir().join(&sidecars[1])).expect("there");
    let file = disk.shared().create(&dir().join(&sidecars[0])).expect("created");
    file.write_at(&[io::IoSlice::new(&other)], 0).expect("written");
    let counts = log.topic_counts_before(RaftIndex(19)).expect("counted");
    assert_eq!(counts.values().sum::<u64>(), 38);
    assert!(read_good(&log).iter().zip(&batches).all(|(read, new)| is_same(read, new)));
    for offset in 0..38 {
        let next = log.next_with_topics(Offset(offset), Offset(38), &|_| true);
        assert_eq!(next, Offset(offset));
    }
}

#[test]
fn an_empty_log_behind_a_purge_survives_a_torn_first_write() {
    let mut torn = 0;
    for seed in 0..100 {
        let disk = MemoryDisk::new();
        let (log, _) = open(&disk, small());
        wait(|done| log.purge_to(Term(1), RaftIndex(5), Some(Offset(0)), done)).expect("purged");
        // The mark is written; the new segment behind it is not.
        disk.fail("sync", FIRST_BEHIND_5, 0, io::ErrorKind::Other);
        assert!(wait(|done| log.purge_to(Term(1), RaftIndex(6), Some(Offset(0)), done)).is_err());
        let killed = disk.kill();
        log.close();
        let (log, _) = open(&killed, small());
        killed.hold_syncs();
        let batches = vec![records(7, 1, 1, 700), records(8, 1, 1, 700)];
        log.append(batches, Box::new(|_| {})).expect("taken");
        killed.wait_for_held_sync();
        let crashed = killed.crash(seed);
        killed.release_syncs();
        let (log, report) = open(&crashed, small());
        assert!(report.is_clean(), "seed {seed}: {report:?}");
        let bounds = log.bounds();
        assert_eq!(bounds.purged, Some((Term(1), RaftIndex(6))), "seed {seed}");
        let last = bounds.last.expect("the purged one at least").1;
        assert!((RaftIndex(6)..=RaftIndex(8)).contains(&last), "seed {seed}: {last}");
        torn += usize::from(report.torn.is_some() && last == RaftIndex(6));
        append(&log, vec![records(last.0 + 1, 1, 1, 10)]).expect("appended");
    }
    assert!(torn > 5, "{torn}");
}

/// Appends behind whatever is there, in term 2, and sees what a loss of power leaves of it: what was cut
/// off before does not come back behind what came since.
fn check_cut_stays(disk: &MemoryDisk, options: &LogOptions, seed: u64) {
    let (log, _) = open(disk, options.clone());
    let next = log.bounds().last.map_or(0, |(_, last)| last.0 + 1);
    for index in next..next + 4 {
        append(&log, vec![records(index, 2, 1, 900)]).expect("written");
    }
    let (log, report) = open(&disk.crash(seed), options.clone());
    let terms: Vec<_> = read_all(&log).0.iter().map(|batch| batch.header.term).collect();
    assert!(terms.is_sorted(), "seed {seed}: {terms:?}, {report:?}");
    log.close();
}

fn twelve(options: &LogOptions, synced: u64) -> (MemoryDisk, Log) {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk, options.clone());
    for index in 0..12 {
        append(&log, vec![records(index, 1, 1, 900)]).expect("written");
        if index + 1 == synced {
            log.save_checkpoint(RaftIndex(index), Vec::new()).expect("synced");
        }
    }
    (disk, log)
}

#[test]
fn a_truncation_that_was_not_synced_stays_where_no_append_waits_for_a_sync() {
    let options = LogOptions { fsync: Fsync::Never, segment_bytes: 1 << 20, ..small() };
    for seed in 0..100 {
        let (disk, log) = twelve(&options, 12);
        disk.fail("sync", FIRST, 0, io::ErrorKind::Other);
        assert!(truncate(&log, Some(0)).is_err());
        let mut disk = disk.kill();
        if seed % 2 == 0 {
            // One more that dies before its sync.
            disk.fail("sync", FIRST, 0, io::ErrorKind::Other);
            let opened =
                Log::open(disk.shared(), dir(), options.clone(), ManualClock::at(1_000_000));
            assert!(opened.is_err(), "what was cut off is synced at the start");
            disk = disk.kill();
        }
        check_cut_stays(&disk, &options, seed);
    }
}

#[test]
fn a_torn_end_that_was_cut_off_stays_where_no_append_waits_for_a_sync() {
    let options = LogOptions { fsync: Fsync::Never, segment_bytes: 1 << 20, ..small() };
    let (mut cut_twice, mut waits) = (0, 0);
    for seed in 0..300 {
        let (disk, _log) = twelve(&options, 1);
        let disk = disk.crash(seed);
        disk.fail_always(&["sync"], FIRST, io::ErrorKind::Other);
        let opened = Log::open(disk.shared(), dir(), options.clone(), ManualClock::at(1_000_000));
        let is_cut = disk.take_trace().iter().any(|op| op.to_string().starts_with("size"));
        assert!(opened.is_err() || !is_cut, "seed {seed}: what was cut off is synced");
        waits += usize::from(opened.is_ok());
        cut_twice += usize::from(is_cut);
        disk.clear_faults();
        check_cut_stays(&disk.kill(), &options, seed);
    }
    assert!(cut_twice > 20 && waits > 20, "{cut_twice} {waits}");
}

#[test]
fn what_a_purge_could_not_remove_does_not_come_back_behind_what_was_appended_since() {
    for end_offset in [4, 40, 400] {
        let (disk, _) = filled();
        let (log, _) = open(&disk, small_segments());
        disk.fail("remove", ".log", 0, io::ErrorKind::Other);
        let purge_to = |done| log.purge_to(Term(1), RaftIndex(30), Some(Offset(end_offset)), done);
        assert!(wait(purge_to).is_err());
        let new: Vec<_> = (31..60).map(|index| records(index, 1, 2, 20)).collect();
        if append_if_taken(&log, &new) {
            log.close();
            let (log, report) = open(&disk, small_segments());
            assert!(report.is_clean(), "{report:?}");
            let read = read_good(&log);
            assert!(read.len() == new.len() && read[0].header.base_offset == Offset(end_offset));
        } else {
            // It had to truncate first, and could not: as after any failed truncation.
            assert_eq!(end_offset, 4);
            log.close();
            assert!(open(&disk, small_segments()).1.is_clean());
        }
    }
}

#[test]
fn what_is_truncated_behind_a_purge_past_the_end_ends_with_what_was_purged() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk, small());
    // The mark is written; the segment behind it is not begun.
    disk.fail("sync", FIRST, 0, io::ErrorKind::Other);
    assert!(wait(|done| log.purge_to(Term(1), RaftIndex(0), Some(Offset(7)), done)).is_err());
    log.close();
    let (log, report) = open(&disk, small());
    assert!(report.is_clean(), "{report:?}");
    append(&log, vec![records(1, 1, 1, 10)]).expect("appended");
    truncate(&log, Some(0)).expect("truncated");
    let bounds = log.bounds();
    assert_eq!(bounds.last, Some((Term(1), RaftIndex(0))));
    assert_eq!((bounds.start_offset, bounds.end_offset), (Offset(7), Offset(7)));
}

#[test]
fn a_damaged_tail_before_the_purge_does_not_say_where_the_log_ends() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk, LogOptions { preallocate_bytes: 0, ..small() });
    append(&log, (0..4).map(|index| records(index, 1, 2, 50)).collect()).expect("appended");
    disk.fail("create", "30.log", 0, io::ErrorKind::Other);
    assert!(wait(|done| log.purge_to(Term(1), RaftIndex(9), Some(Offset(30)), done)).is_err());
    log.close();
    let path = dir().join(FIRST);
    disk.cut(&path, disk.contents(&path).expect("there").len() - 10);
    let (log, report) = open(&disk, small());
    assert!(report.torn.is_some(), "{report:?}");
    append(&log, vec![records(10, 1, 1, 10)]).expect("appended");
    truncate(&log, Some(9)).expect("truncated");
    let bounds = log.bounds();
    assert_eq!(bounds.last, Some((Term(1), RaftIndex(9))));
    assert_eq!((bounds.start_offset, bounds.end_offset), (Offset(30), Offset(30)));
}

fn append_if_taken(log: &Log, batches: &[NewBatch]) -> bool {
    log.health() == Health::Writable && append(log, batches.to_vec()).is_ok()
}

#[test]
fn a_tail_cut_before_the_purge_is_set_aside_and_not_gone_on_in() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk, LogOptions { preallocate_bytes: 0, ..small() });
    append(&log, (0..10).map(|index| records(index, 1, 2, 50)).collect()).expect("appended");
    purge(&log, 7).expect("purged");
    log.close();
    let path = dir().join(FIRST);
    let size = disk.contents(&path).expect("there").len();
    // Entries 0 to 3, and a piece of the next.
    disk.cut(&path, size * 4 / 10 + 100);
    for round in 0..2 {
        let (log, report) = open(&disk, small());
        assert_eq!(report.damaged.len(), 1, "round {round}: {report:?}");
        assert_eq!(read_all(&log).1, [(Offset(16), Offset(20))], "round {round}");
        let bounds = log.bounds();
        assert_eq!(bounds.last.map(|last| last.1), Some(RaftIndex(9)));
        assert_eq!((bounds.start_offset, bounds.end_offset), (Offset(16), Offset(20)));
        assert_eq!(file_named(&disk, ".damaged-").len(), 1, "set aside");
        log.close();
    }
    let (log, _) = open(&disk, small());
    append(&log, vec![records(10, 1, 2, 50)]).expect("the log goes on");
    let read = log.read_offsets(Offset(20), Offset(22), 1).expect("read");
    assert!(is_same(&read[0], &records(10, 1, 2, 50)));
}
