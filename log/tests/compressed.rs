//! Compressed segments say what they said before, take less, and lose no more than others to damage.

mod support;

use std::io;

use aklight_common::clock::ManualClock;
use aklight_common::{Offset, RaftIndex};
use aklight_log::disk::DiskOp;
use aklight_log::{Batch, Log, LogOptions, MemoryDisk, NewBatch, Retention, mend, verify};
use support::*;

/// Three segments of some blocks each, and an open one.
fn several_blocks() -> LogOptions {
    LogOptions { segment_bytes: 60_000, ..small() }
}

/// Records as a producer sends them: alike, and each another.
fn samples(count: u64) -> Vec<NewBatch> {
    let batch = |n: u64| {
        let topic = format!("metrics/docker/web{}/cpu", n % 7);
        records_on(&topic, n, 1 + n / 500, 4, 30 + (n % 11) as usize)
    };
    (0..count).map(batch).collect()
}

/// A log on a simulated disk, and what it holds, from before it was compressed.
fn compressed() -> (MemoryDisk, Vec<Batch>) {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk, several_blocks());
    for batches in samples(900).chunks(30) {
        append(&log, batches.to_vec()).expect("appended");
    }
    let stored = read_good(&log);
    let before = log.bounds().bytes;
    assert!(compress(&log).expect("compressed") >= 3);
    assert!(log.bounds().bytes * 2 < before, "{} of {before}", log.bounds().bytes);
    log.close();
    (disk, stored)
}

#[test]
fn what_is_compressed_reads_as_it_did_by_entries_offsets_topics_and_times() {
    let (disk, stored) = compressed();
    for round in 0..2 {
        let (log, report) = open(&disk, several_blocks());
        assert!(report.is_clean() && report.indexes_rebuilt.is_empty(), "{round}: {report:?}");
        assert_eq!(read_good(&log), stored);
        let end = log.bounds().end_offset;
        for batch in &stored {
            let (index, offset) = (batch.header.index, batch.header.base_offset);
            let one = log.read_indexes(index, index.next(), 0).expect("read");
            assert_eq!(one, std::slice::from_ref(batch));
            let one = log.read_offsets(offset, end, 0).expect("read");
            assert_eq!(one, std::slice::from_ref(batch));
            assert_eq!(log.offset_of(index), Some(offset));
        }
        let is_three = |topic: &str| topic.ends_with("web3/cpu");
        let mut at = Offset(0);
        let mut found = 0;
        while at < end {
            at = log.next_with_topics(at, end, &is_three);
            if at < end {
                at = log.read_offsets(at, end, 0).expect("read")[0].header.end_offset();
                found += 1;
            }
        }
        assert!(found > 900 / 7, "{found}");
        let counts = log.topic_counts_before(RaftIndex(899)).expect("counted");
        assert_eq!(counts.values().sum::<u64>(), 3600);
        log.close();
        // The second time without the indexes: segments are read through.
        for (path, _) in disk.files() {
            if round == 0 && path.extension().is_some_and(|kind| kind == "index") {
                remove_file(&disk, &path);
                assert!(verify(&*disk.shared(), dir()).expect("verified").problems.is_empty());
            }
        }
        if round == 0 {
            let (log, report) = open(&disk, several_blocks());
            assert!(report.is_clean() && report.indexes_rebuilt.len() >= 3, "{report:?}");
            log.close();
        }
    }
}

#[test]
fn what_saves_too_little_stays_as_it_is_and_is_not_tried_again() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk, several_blocks());
    let mut state = 1_u64;
    let mut noise = |len: usize| -> Vec<u8> {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        };
        (0..len).map(|_| next()).collect()
    };
    for index in 0..100 {
        let mut batch = blank(index, 1);
        batch.kind = aklight_log::BatchKind::Command;
        batch.body = noise(2000).into();
        append(&log, vec![batch]).expect("appended");
    }
    let before = disk.files();
    disk.take_trace();
    assert_eq!(compress(&log).expect("tried"), 0);
    assert_eq!(disk.take_trace().len(), 0, "nothing was written");
    assert_eq!(disk.files(), before);
}

#[test]
fn only_what_is_safe_from_truncation_is_compressed() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk, several_blocks());
    append(&log, samples(900)).expect("appended");
    assert_eq!(log.compress_next(RaftIndex(10)).expect("looked"), None);
    let first = log.compress_next(RaftIndex(600)).expect("compressed");
    assert!(first.is_some());
}

#[test]
fn a_compressed_segment_can_be_truncated_and_appended_to_again() {
    for last in [0, 1, 100, 299, 300, 301, 640] {
        for crash in [None, Some(1), Some(2)] {
            let (disk, mut stored) = compressed();
            let (log, _) = open(&disk, several_blocks());
            truncate(&log, Some(last)).expect("truncated");
            stored.truncate(last as usize + 1);
            assert_eq!(read_good(&log), stored, "{last}");
            append(&log, vec![records(last + 1, 9, 3, 40)]).expect("appended");
            log.close();
            let disk = crash.map_or(disk.kill(), |seed| disk.crash(seed));
            let (log, report) = open(&disk, several_blocks());
            assert!(report.is_clean(), "{last}: {report:?}");
            let read = read_good(&log);
            assert_eq!(read[..stored.len()], stored, "{last}");
            assert_eq!(read.len(), stored.len() + 1, "{last}");
        }
    }
}

#[test]
fn retention_counts_what_the_disk_has() {
    let (disk, _) = compressed();
    let (log, _) = open(&disk, several_blocks());
    let bytes = log.bounds().bytes;
    let on_disk: u64 = segment_paths(&disk).iter().map(|path| size(&disk, path)).sum();
    assert!(bytes <= on_disk && on_disk <= bytes + 1024, "{bytes} of {on_disk}");
    let keep = |bytes| log.expired(0, &Retention { bytes: Some(bytes), age_us: None });
    assert_eq!(keep(bytes), None);
    // So many segments must go for the others to fit, and no more.
    let paths = segment_paths(&disk);
    let mut kept_bytes = bytes;
    for (gone, path) in (1..).zip(&paths[..paths.len() - 1]) {
        let last = keep(kept_bytes - 1).expect("one is too much");
        let behind = log.offset_of(last.next()).expect("there are others");
        let next = paths[gone].file_stem().expect("a name").to_string_lossy();
        assert_eq!(next.parse(), Ok(behind.0), "{gone}");
        kept_bytes -= size(&disk, path);
    }
    let first = keep(bytes - 1).expect("one is too much");
    purge(&log, first.0).expect("purged");
    assert!(log.bounds().bytes < bytes);
    assert_eq!(keep(bytes - 1), None);
    assert_eq!(log.bounds().first, first.next());
}

fn size(disk: &MemoryDisk, path: &std::path::Path) -> u64 {
    disk.contents(path).map_or(0, |bytes| bytes.len() as u64)
}

/// A bit anywhere costs at most what its block holds, and never makes another record of one.
#[test]
fn damage_costs_its_block_at_most_and_is_told() {
    let (healthy, stored) = compressed();
    let path = segment_paths(&healthy).remove(0);
    let bits = size(&healthy, &path) as usize * 8;
    let mut lost_most = 0;
    let (begin, end) = (0..32, bits - 60 * 8..bits);
    for bit in begin.chain((32..bits).step_by(2003)).chain(end.step_by(7)) {
        let disk = healthy.kill();
        disk.flip_bit(&path, bit);
        let (log, _) = open(&disk, several_blocks());
        let (read, damages) = read_all(&log);
        assert!(read.iter().all(|batch| stored[batch.header.index.0 as usize] == *batch), "{bit}");
        let lost = stored.len() - read.len();
        let told: u64 = damages.iter().map(|(from, resume)| resume.0 - from.0).sum();
        assert_eq!(told, lost as u64 * 4, "{bit}");
        let is_outside_blocks = bit < 24 * 8 || bit >= bits - 24 * 8 - 4 * 8 * 8;
        assert!(!is_outside_blocks || lost == 0, "{bit}: ends and table are there twice");
        lost_most = lost_most.max(lost);
        log.close();
    }
    // A batch takes some 350 bytes, and one may begin in the block before.
    assert!(lost_most > 0 && lost_most <= 16_384 / 250 + 2, "{lost_most}");
}

#[test]
fn a_damaged_segment_is_left_as_it_is_and_what_was_not_known_is_told() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk, several_blocks());
    append(&log, samples(900)).expect("appended");
    let path = segment_paths(&disk).remove(0);
    disk.flip_bit(&path, 300_000);
    let before = disk.contents(&path);
    assert!(!log.has_found_damage());
    assert_eq!(compress(&log).expect("the others"), segment_paths(&disk).len() - 2);
    assert_eq!(disk.contents(&path), before, "evidence");
    assert!(log.has_found_damage());
    assert_eq!(read_all(&log).1.len(), 1);
}

#[test]
fn what_stands_before_missing_segments_is_left_as_it_is() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk, several_blocks());
    append(&log, samples(900)).expect("appended");
    log.close();
    let paths = segment_paths(&disk);
    remove_file(&disk, &paths[1]);
    let before = disk.contents(&paths[0]);
    let (log, report) = open(&disk, several_blocks());
    assert!(!report.is_clean());
    // Ends, with the others.
    assert_eq!(compress(&log).expect("compressed"), paths.len() - 3);
    assert_eq!(disk.contents(&paths[0]), before);
}

#[test]
fn a_damaged_compressed_segment_is_mended_from_a_copy() {
    let (disk, stored) = compressed();
    let path = segment_paths(&disk).remove(1);
    disk.flip_bit(&path, size(&disk, &path) as usize * 4);
    let lacking = mend(&*disk.shared(), dir(), &[], RaftIndex(0)).expect("read through");
    assert!(!lacking.left.is_empty());
    let run = |hole: &aklight_log::Damage| -> Vec<Batch> {
        let range = hole.from_index.0 - 1..=hole.resume_index.0;
        stored.iter().filter(|batch| range.contains(&batch.header.index.0)).cloned().collect()
    };
    let runs: Vec<_> = lacking.left.iter().map(run).collect();
    mend(&*disk.shared(), dir(), &runs, RaftIndex(0)).expect("mended");
    let (log, report) = open(&disk, several_blocks());
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(read_good(&log), stored);
    assert_eq!(compress(&log).expect("compressed"), 1, "the one that was written anew");
    assert_eq!(read_good(&log), stored);
}

#[test]
fn a_log_goes_on_behind_a_compressed_segment_whose_followers_are_gone() {
    let (disk, stored) = compressed();
    let mut paths = segment_paths(&disk);
    let gone = paths.split_off(1);
    gone.iter().for_each(|path| remove_file(&disk, path));
    let (log, report) = open(&disk, several_blocks());
    assert!(!report.is_clean(), "what is gone was acknowledged");
    let (read, _) = read_all(&log);
    assert!(read.len() > 100 && stored.starts_with(&read), "{}", read.len());
    let next = log.bounds().last.map_or(0, |last| last.1.0 + 1);
    append(&log, vec![records(next, 9, 3, 40)]).expect("appended");
    log.close();
    let (log, _) = open(&disk, several_blocks());
    assert_eq!(read_all(&log).0.len(), read.len() + 1);
}

#[test]
fn a_disk_that_fails_meanwhile_leaves_the_log_as_it_was() {
    let (disk, stored) = {
        let disk = MemoryDisk::new();
        let (log, _) = open(&disk, several_blocks());
        append(&log, samples(900)).expect("appended");
        let stored = read_good(&log);
        log.close();
        (disk, stored)
    };
    for kind in ["create", "write", "sync", "rename", "sync names"] {
        for crash in [false, true] {
            let disk = disk.kill();
            let (log, _) = open(&disk, several_blocks());
            disk.fail(kind, "", 0, io::ErrorKind::Other);
            compress(&log).expect_err(kind);
            let is_left = |disk: &MemoryDisk| {
                disk.files().iter().any(|(path, _)| path.extension().is_some_and(|e| e == "new"))
            };
            assert!(!is_left(&disk), "{kind}");
            // One that failed is left, and holds up no other.
            assert!(compress(&log).expect("the others") >= 1, "{kind}");
            assert_eq!(read_good(&log), stored, "{kind}");
            append(&log, vec![records(900, 9, 3, 40)]).expect("the log takes records all the same");
            let disk = if crash { disk.crash(7) } else { disk.clone() };
            log.close();
            let (log, report) = open(&disk, several_blocks());
            assert!(report.is_clean(), "{kind}: {report:?}");
            assert_eq!(read_good(&log)[..900], stored, "{kind}");
            let again = compress(&log).expect("nothing fails now");
            assert_eq!(again, usize::from(kind != "sync names"), "{kind}");
            assert!(!is_left(&disk), "{kind}");
        }
    }
}

/// Whoever opens the folder next must find nothing of ours in it.
#[test]
fn a_closed_log_compresses_nothing() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk, several_blocks());
    append(&log, samples(900)).expect("appended");
    log.close();
    disk.take_trace();
    assert_eq!(compress(&log).expect("nothing to do"), 0);
    assert_eq!(disk.take_trace().len(), 0);
}

/// A broker that starts anew within its process may have an earlier log's work still under way.
#[test]
fn two_logs_of_one_folder_do_not_write_to_one_file() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk, several_blocks());
    append(&log, samples(900)).expect("appended");
    log.close();
    let names = |now_us: u64| {
        let disk = disk.kill();
        let clock = ManualClock::at(now_us);
        let (log, _) = Log::open(disk.shared(), dir(), several_blocks(), clock).expect("opens");
        disk.take_trace();
        compress(&log).expect("compressed");
        let created = disk.take_trace().into_iter().filter_map(|op| match op {
            DiskOp::Create(name) => Some(name),
            _ => None,
        });
        created.collect::<Vec<_>>()
    };
    let (one, other) = (names(1), names(2));
    assert!(!one.is_empty() && one.iter().all(|name| !other.contains(name)), "{one:?} {other:?}");
}

#[test]
fn a_full_disk_is_left_to_records() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk, LogOptions { reserve_bytes: 1000, ..several_blocks() });
    append(&log, samples(900)).expect("appended");
    disk.limit(20_000);
    assert_eq!(compress(&log).expect("no failure"), 0);
    disk.lift_limit();
    assert!(compress(&log).expect("now there is room") >= 3);
}
