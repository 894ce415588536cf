//! What was lost is put back from a copy, or refused with a reason; a crash leaves one or the other.

mod support;

use std::io;
use std::path::PathBuf;

use aklight_common::clock::ManualClock;
use aklight_common::{Offset, RaftIndex, Term};
use aklight_log::{
    Batch, Damage, HEADER_BYTES, Log, LogOptions, LostEnd, MemoryDisk, MendError, MendReport,
    NewBatch, mend, verify,
};
use support::*;

fn small_segments() -> LogOptions {
    LogOptions { segment_bytes: 800, preallocate_bytes: 512, ..small() }
}

/// Batches of 2 records, some blank ones, in terms 1 to 4; about six a segment.
fn batches(count: u64) -> Vec<NewBatch> {
    let batch = |n: u64| match n % 7 {
        4 | 5 => blank(n, 1 + n / 6),
        _ => records(n, 1 + n / 6, 2, 20),
    };
    (0..count).map(batch).collect()
}

/// A log of twenty batches, each acknowledged on its own, closed well.
fn filled() -> (MemoryDisk, Vec<Batch>) {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk, small_segments());
    for batch in batches(20) {
        append(&log, vec![batch]).expect("appended");
    }
    let stored = read_good(&log);
    log.close();
    (disk, stored)
}

fn aside(disk: &MemoryDisk) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let files = disk.files().into_iter().map(|(path, _)| path);
    let aside = files.filter(|path| path.to_string_lossy().contains(".damaged-"));
    aside.map(|path| (path.clone(), disk.contents(&path))).collect()
}

/// Of nothing is known whether it was committed.
fn mend_with(disk: &MemoryDisk, runs: &[Vec<Batch>]) -> Result<MendReport, MendError> {
    mend(disk, dir(), runs, RaftIndex(0))
}

/// What the log lacks, by reading all of it.
fn lacks(disk: &MemoryDisk) -> MendReport {
    mend_with(disk, &[]).expect("read through")
}

/// The entries of a hole from a copy, with those beside it.
fn run_for(hole: &Damage, copy: &[Batch]) -> Vec<Batch> {
    let range = hole.from_index.0.saturating_sub(1)..=hole.resume_index.0;
    copy.iter().filter(|batch| range.contains(&batch.header.index.0)).cloned().collect()
}

/// The entries of every hole.
fn runs_for(report: &MendReport, copy: &[Batch]) -> Vec<Vec<Batch>> {
    report.left.iter().map(|hole| run_for(hole, copy)).collect()
}

/// Opens a mended log and sees that it is the healthy one, and goes on.
fn check_whole(disk: &MemoryDisk, healthy: &[Batch], what: &str) {
    for round in 0..2 {
        let (log, report) = open(disk, small_segments());
        assert!(report.is_clean() && report.lost_end.is_none(), "{what}, {round}: {report:?}");
        assert!(report.torn.is_none(), "{what}: {report:?}");
        assert_eq!(read_good(&log), healthy, "{what}");
        let last = healthy[healthy.len() - 1].header;
        let bounds = log.bounds();
        assert_eq!(bounds.last, Some((last.term, last.index)), "{what}");
        assert_eq!(bounds.end_offset, last.end_offset(), "{what}");
        let counts = log.topic_counts_before(last.index).expect("counted");
        assert_eq!(counts.values().sum::<u64>(), last.end_offset().0, "{what}");
        log.close();
    }
    assert_eq!(lacks(disk), MendReport::default(), "{what}");
    let disk = disk.kill();
    let (log, _) = open(&disk, small_segments());
    let next = healthy.len() as u64;
    append(&log, (next..next + 20).map(|n| records(n, 9, 2, 20)).collect()).expect("appended");
    log.close();
    assert_eq!(read_good(&open(&disk, small_segments()).0).len() as u64, next + 20, "{what}");
}

/// Mends a log of everything it lacks, and checks it.
fn mend_and_check(disk: &MemoryDisk, healthy: &[Batch], what: &str) {
    let before = lacks(disk);
    assert!(!before.left.is_empty(), "{what}: there was something to mend");
    let kept = aside(disk);
    let mended = mend_with(disk, &runs_for(&before, healthy)).unwrap_or_else(|error| {
        panic!("{what}: {error} {before:?}");
    });
    let stretch = |hole: &aklight_log::Damage| (hole.from_index, hole.resume_index, hole.resume);
    assert_eq!(
        mended.mended.iter().map(stretch).collect::<Vec<_>>(),
        before.left.iter().map(stretch).collect::<Vec<_>>(),
        "{what}"
    );
    assert_eq!(mended.left, [], "{what}");
    assert_eq!(mended.lost_end, None, "{what}");
    check_whole(disk, healthy, what);
    assert_eq!(aside(disk), kept, "{what}: evidence stays");
}

#[test]
fn a_loss_is_told_though_the_power_once_took_the_note_of_what_was_acknowledged() {
    for seed in 0..40 {
        let disk = MemoryDisk::new();
        let (log, _) = open(&disk, small());
        for batch in batches(4) {
            append(&log, vec![batch]).expect("appended");
        }
        // The note is not synced at each acknowledgement: an older one may be found.
        let disk = disk.crash(seed);
        let (log, _) = open(&disk, small());
        let kept = read_good(&log);
        assert_eq!(kept.len(), 4, "seed {seed}: all was acknowledged");
        let disk = disk.kill();
        let upto = kept[..3].iter().map(|b| HEADER_BYTES + b.header.body_len as usize).sum();
        disk.cut(&segment_paths(&disk)[0], upto);
        let (_, report) = open(&disk, small());
        let lost = report.lost_end.map(|lost| lost.upto_index);
        assert_eq!(lost, Some(kept[3].header.index), "seed {seed}: {report:?}");
    }
}

#[test]
fn bytes_between_two_entries_that_are_none_are_cut_out() {
    let (disk, healthy) = filled();
    let path = segment_paths(&disk)[0].clone();
    let first = HEADER_BYTES + healthy[0].header.body_len as usize;
    let mut bytes = disk.contents(&path).expect("there");
    bytes.splice(first..first, *b"nine here");
    let file = disk.shared().open(&path).expect("opened");
    file.write_at(&[io::IoSlice::new(&bytes)], 0).expect("written");
    // Not even an index may say that nothing is wrong.
    disk.shared().remove(&path.with_extension("index")).expect("removed");
    let (log, report) = open(&disk, small_segments());
    assert_eq!(report.damaged.len(), 1, "{report:?}");
    log.close();
    let done = mend_with(&disk, &[]).expect("mended");
    assert_eq!((done.mended.len(), done.left.len()), (1, 0), "{done:?}");
    check_whole(&disk, &healthy, "without the bytes");
}

#[test]
fn flipped_bits_anywhere_are_mended() {
    let (disk, healthy) = filled();
    let mut mended = 0;
    for (number, path) in segment_paths(&disk).iter().enumerate() {
        for byte in (0..disk.contents(path).expect("there").len()).step_by(19) {
            let damaged = disk.kill();
            damaged.flip_bit(path, byte * 8 + byte % 8);
            if !lacks(&damaged).left.is_empty() {
                mend_and_check(&damaged, &healthy, &format!("segment {number}, byte {byte}"));
                mended += 1;
            }
        }
    }
    assert!(mended > 50, "{mended}");
}

#[test]
fn many_holes_are_mended_at_once_or_one_by_one() {
    let (disk, healthy) = filled();
    let paths = segment_paths(&disk);
    for path in &paths {
        disk.flip_bit(path, 8 * 180);
        disk.flip_bit(path, 8 * 500);
    }
    remove_file(&disk, &paths[1]);
    let before = lacks(&disk);
    assert!(before.left.len() >= 5, "{before:?}");
    mend_and_check(&disk.kill(), &healthy, "at once");
    for (done, hole) in before.left.iter().enumerate() {
        let report = mend_with(&disk, &[run_for(hole, &healthy)]).expect("mended");
        assert_eq!(report.mended, std::slice::from_ref(hole));
        assert_eq!(report.left.len(), before.left.len() - done - 1, "{report:?}");
    }
    check_whole(&disk, &healthy, "one by one");
}

#[test]
fn missing_and_cut_segments_are_mended_wherever_they_were() {
    let (disk, healthy) = filled();
    let paths = segment_paths(&disk);
    assert!(paths.len() >= 4);
    for first in 0..paths.len() {
        for last in first..paths.len() {
            let damaged = disk.kill();
            for path in &paths[first..=last] {
                remove_file(&damaged, path);
            }
            mend_and_check(&damaged, &healthy, &format!("without segments {first} to {last}"));
        }
        let size = disk.contents(&paths[first]).expect("there").len();
        for left in (0..size).step_by(61) {
            let damaged = disk.kill();
            damaged.cut(&paths[first], left);
            if !lacks(&damaged).left.is_empty() {
                mend_and_check(&damaged, &healthy, &format!("segment {first} cut at {left}"));
            }
        }
    }
}

#[test]
fn a_purged_log_is_mended_behind_the_purge() {
    let (disk, healthy) = filled();
    let (log, _) = open(&disk, small_segments());
    purge(&log, 7).expect("purged");
    log.close();
    let kept = &healthy[8..];
    let paths = segment_paths(&disk);
    for first in 0..paths.len() {
        let damaged = disk.kill();
        for path in &paths[first..] {
            remove_file(&damaged, path);
        }
        let before = lacks(&damaged);
        let mended = mend_with(&damaged, &runs_for(&before, &healthy)).expect("mended");
        assert!(mended.left.is_empty(), "{mended:?}");
        let (log, report) = open(&damaged, small_segments());
        assert!(report.is_clean() && report.lost_end.is_none(), "{first}: {report:?}");
        assert_eq!(read_good(&log), kept, "{first}");
        assert_eq!(log.bounds().start_offset, kept[0].header.base_offset);
    }
}

#[test]
fn an_acknowledged_end_that_is_gone_is_named_and_mended() {
    let (disk, healthy) = filled();
    let path = segment_paths(&disk).pop().expect("some");
    let size = disk.contents(&path).expect("there").len();
    let mut lost_ends = 0;
    for left in 0..size {
        let damaged = disk.kill();
        damaged.cut(&path, left);
        for round in 0..2 {
            let (log, report) = open(&damaged, small_segments());
            let (read, _) = read_all(&log);
            let expect = (read.len() < healthy.len()).then_some(LostEnd {
                from_index: RaftIndex(read.len() as u64),
                upto_index: RaftIndex(19),
                term: Term(4),
            });
            assert_eq!(report.lost_end, expect, "cut at {left}, round {round}");
            // To whoever asks for a vote it is as long as what it acknowledged.
            assert_eq!(log.bounds().last, Some((Term(4), RaftIndex(19))));
            lost_ends += usize::from(expect.is_some());
        }
        if !lacks(&damaged).left.is_empty() {
            mend_and_check(&damaged, &healthy, &format!("cut at {left}"));
        }
    }
    assert!(lost_ends > 100, "{lost_ends}");
}

#[test]
fn the_proof_that_an_end_is_lost_outlives_a_loss_of_power() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk, small_segments());
    for batch in batches(20) {
        append(&log, vec![batch]).expect("appended");
    }
    let healthy = read_good(&log);
    let paths = segment_paths(&disk);
    let [.., before, last] = &paths[..] else { panic!("too few: {paths:?}") };
    let (mut olds, mut all) = (0, 0);
    for (path, left) in [(last, 0), (last, 90), (before, 280), (before, 0)] {
        // The process dies without having synced its note.
        let start = disk.kill();
        start.cut(path, left);
        if path == before {
            remove_file(&start, last);
        }
        let lost = lacks(&start.kill()).lost_end;
        assert_eq!(lost.map(|lost| lost.upto_index), Some(RaftIndex(19)));
        for step in 0.. {
            let trial = start.kill();
            trial.stop_after(step);
            let opened = Log::open(trial.shared(), dir(), small_segments(), ManualClock::at(1));
            for seed in 0..12 {
                let what = format!("{left} bytes left, step {step}, seed {seed}");
                let after = trial.crash(seed);
                let found = lacks(&after).lost_end;
                if opened.is_ok() {
                    assert_eq!(found, lost, "{what}");
                }
                // Before, the power may take the note, and an older one stands. But what is found
                // together can be mended.
                let Some(found) = found else { continue };
                mend_and_check(&after, &healthy[..=found.upto_index.0 as usize], &what);
                olds += usize::from(Some(found) != lost);
                all += 1;
            }
            if opened.is_ok() {
                break;
            }
        }
    }
    assert!(olds > 5 && all > 400, "{olds} of {all}");
}

#[test]
fn so_does_the_proof_that_a_place_in_the_middle_had_been_durable() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk, LogOptions { preallocate_bytes: 0, ..small() });
    append(&log, vec![records(0, 1, 1, 50)]).expect("appended");
    // In one wave: none of them says of another that it was durable before.
    append(&log, (1..6).map(|n| records(n, 1, 1, 50)).collect()).expect("appended");
    let healthy = read_good(&log);
    let start = disk.kill();
    let path = &segment_paths(&start)[0];
    let bytes: u64 = healthy[..2].iter().map(|batch| batch.header.stored_len()).sum();
    start.flip_bit(path, (bytes as usize + HEADER_BYTES) * 8);
    let (_log, report) = open(&start, small());
    assert_eq!(report.damaged.len(), 1, "{report:?}");
    for seed in 0..64 {
        let after = start.crash(seed);
        let (log, report) = open(&after, small());
        let end = log.bounds().last;
        assert_eq!((report.damaged.len(), end), (1, Some((Term(1), RaftIndex(5)))), "seed {seed}");
        log.close();
        mend_and_check(&after, &healthy, &format!("seed {seed}"));
    }
}

#[test]
fn entries_without_records_are_missed_though_nothing_is_left_of_the_log() {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk, small_segments());
    append(&log, (0..3).map(|n| blank(n, 1)).collect()).expect("appended");
    let healthy = read_good(&log);
    log.close();
    disk.cut(&segment_paths(&disk)[0], 0);
    let lost = LostEnd { from_index: RaftIndex(0), upto_index: RaftIndex(2), term: Term(1) };
    for round in 0..2 {
        let (log, report) = open(&disk, small_segments());
        assert_eq!(report.lost_end, Some(lost), "round {round}: {report:?}");
        log.close();
    }
    let forgetful = disk.kill();
    mend_and_check(&disk, &healthy, "all is missing");
    // Others behind them do not hide that.
    let (log, _) = open(&forgetful, small_segments());
    append(&log, vec![blank(3, 1)]).expect("appended");
    let all: Vec<_> = healthy.iter().cloned().chain(read_all(&log).0).collect();
    log.close();
    let (log, report) = open(&forgetful, small_segments());
    assert_eq!(report.damaged.len(), 1, "{report:?}");
    log.close();
    let problems = verify(&forgetful, dir()).expect("read").problems;
    assert!(!problems.is_empty());
    mend_and_check(&forgetful, &all, "the first are missing");
}

#[test]
fn entries_without_records_are_missed_where_their_segment_is_gone() {
    let disk = MemoryDisk::new();
    let options = LogOptions { segment_bytes: 200, ..small_segments() };
    let (log, _) = open(&disk, options.clone());
    for n in 0..8 {
        append(&log, vec![blank(n, 1)]).expect("appended");
    }
    let healthy = read_good(&log);
    log.close();
    let paths = segment_paths(&disk);
    let first = paths.iter().find(|path| path.ends_with("00000000000000000000.log"));
    remove_file(&disk, first.expect("there"));
    assert!(!verify(&disk, dir()).expect("read").problems.is_empty());
    let (log, report) = open(&disk, options);
    assert_eq!(report.damaged.len(), 1, "{report:?}");
    log.close();
    mend_and_check(&disk, &healthy, "the first segment is missing");
}

/// The healthy log up to an entry, then others of a later term: what a new leader made of it.
fn replaced_from(healthy: &[Batch], from: u64, count: u64, term: u64) -> Vec<Batch> {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk, small_segments());
    let kept = batches(20).into_iter().take(from as usize);
    let new = (from..from + count).map(|n| records(n, term, 1, 10));
    append(&log, kept.chain(new).collect()).expect("appended");
    let stored = read_good(&log);
    assert_eq!(stored[..from as usize], healthy[..from as usize]);
    stored
}

#[test]
fn an_end_that_a_later_leader_replaced_is_mended_with_what_took_its_place() {
    let (disk, healthy) = filled();
    let paths = segment_paths(&disk);
    remove_file(&disk, &paths[paths.len() - 1]);
    disk.cut(&paths[paths.len() - 2], 280);
    let lost = lacks(&disk).lost_end.expect("lost");
    let from = lost.from_index.0;
    // Of the same term too few: that could be voted down.
    let all = run_for(&lacks(&disk).left[0], &healthy);
    let short = mend_with(&disk, &[all[..all.len() - 1].to_vec()]);
    assert!(matches!(short, Err(MendError::FallsShort { lost: l, .. }) if l == lost), "{short:?}");
    for (count, term) in [(1, 5), (2, 5), (9, 5), (30, 7)] {
        let replaced = replaced_from(&healthy, from, count, term);
        let disk = disk.kill();
        let report = mend_with(&disk, &[replaced[from as usize - 1..].to_vec()]).expect("mended");
        assert!(report.left.is_empty() && report.lost_end.is_none());
        let what = format!("{count} of term {term}");
        check_whole(&disk, &replaced, &what);
        // What is acknowledged now is what counts.
        disk.cut(&segment_paths(&disk).pop().expect("some"), 0);
        let lost = lacks(&disk).lost_end.expect("lost again");
        assert_eq!((lost.upto_index.0, lost.term.0), (from + count - 1, term), "{what}");
    }
}

#[test]
fn a_crash_while_the_end_is_replaced_leaves_it_lost_or_replaced() {
    let (disk, healthy) = filled();
    let paths = segment_paths(&disk);
    remove_file(&disk, &paths[paths.len() - 1]);
    disk.cut(&paths[paths.len() - 2], 280);
    let lost = lacks(&disk).lost_end.expect("lost");
    let from = lost.from_index.0;
    let replaced = replaced_from(&healthy, from, 1, 5);
    let start = disk.crash(0);
    let (mut olds, mut news) = (0, 0);
    for step in 0.. {
        let trial = start.kill();
        trial.stop_after(step);
        let result = mend_with(&trial, &[replaced[from as usize - 1..].to_vec()]);
        for seed in 0..8 {
            let after = if seed == 0 { trial.kill() } else { trial.crash(seed) };
            let found = lacks(&after);
            if found.left.is_empty() {
                check_whole(&after, &replaced, &format!("step {step}"));
                news += 1;
            } else {
                assert_eq!(found.lost_end, Some(lost), "step {step}: {found:?}");
                olds += 1;
            }
        }
        if result.is_ok() {
            break;
        }
    }
    assert!(olds > 30 && news > 10, "{olds}, {news}");
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_changes() {
    let (disk, healthy) = filled();
    let paths = segment_paths(&disk);
    remove_file(&disk, &paths[1]);
    disk.flip_bit(&paths[2], 8 * 200);
    let before = lacks(&disk);
    let (gap, good) = (&before.left[0], runs_for(&before, &healthy));
    let whole =
        || disk.files().iter().map(|(p, _)| (p.clone(), disk.contents(p))).collect::<Vec<_>>();
    let first = gap.from_index.0 as usize;
    let len = (gap.resume_index.0 - gap.from_index.0) as usize;
    // The first run changed at one of the gap's entries, counted from there.
    let changed = |at: usize, change: &dyn Fn(&mut Batch)| {
        let mut given = good.clone();
        change(&mut given[0][at + 1]);
        given
    };
    let untouched = whole();
    let refused = |given: Vec<Vec<Batch>>| {
        let error = mend_with(&disk, &given).expect_err("refused");
        assert_eq!(whole(), untouched, "{error}");
        error
    };
    let others = healthy[..2].to_vec();
    assert!(matches!(refused(vec![others]), MendError::NoHole(RaftIndex(0))));
    assert!(matches!(refused(vec![good[0][2..].to_vec()]), MendError::NoHole(_)));
    assert!(matches!(refused(vec![good[0][1..].to_vec()]), MendError::DoesNotFit { .. }));
    let short = good[0][..len].to_vec();
    assert!(matches!(refused(vec![short]), MendError::DoesNotFill { .. }));
    let over = healthy[first - 1..=first + len + 1].to_vec();
    assert!(matches!(refused(vec![over]), MendError::DoesNotFill { .. }));
    let mut other = good[0].clone();
    other[0].header.term = Term(0);
    let differs = RaftIndex(first as u64 - 1);
    assert!(matches!(refused(vec![other]), MendError::Differs(index) if index == differs));
    for (given, at) in [
        (changed(0, &|b| b.header.base_offset = Offset(b.header.base_offset.0 + 1)), 0),
        (changed(1, &|b| b.header.base_offset = Offset(b.header.base_offset.0 - 1)), 1),
        (changed(0, &|b| b.header.term = Term(0)), 0),
        (changed(1, &|b| b.header.term = Term(0)), 1),
        (changed(1, &|b| b.header.body_len += 1), 1),
    ] {
        let error = refused(given);
        let index = good[0][at + 1].header.index;
        assert!(matches!(&error, MendError::DoesNotFit { index: i, .. } if *i == index), "{error}");
    }
    let (log, _) = open(&disk, small_segments());
    assert!(matches!(mend_with(&disk, &good), Err(MendError::Open(_))), "in use");
    log.close();
    mend_and_check(&disk, &healthy, "after all that");
}

/// Each place where a hole can be, in a log whose end nobody else has: what a later leader put in its
/// place from any entry on, before the hole, in it, or behind it.
#[test]
fn what_a_later_leader_replaced_around_a_hole_goes() {
    let (disk, healthy) = filled();
    let (mut before, mut behind) = (0, 0);
    for from in 10..20 {
        let committed = replaced_from(&healthy, from, 30 - from, 5);
        for path in segment_paths(&disk) {
            for byte in (0..disk.contents(&path).expect("there").len()).step_by(61) {
                let damaged = disk.kill();
                damaged.flip_bit(&path, byte * 8);
                let lacking = lacks(&damaged);
                let Some(hole) = lacking.left.first() else { continue };
                let what = format!("replaced from {from}, hole at {}", hole.from_index);
                let mut in_front = 1;
                let done = loop {
                    let start = hole.from_index.0.saturating_sub(in_front) as usize;
                    let upto = hole.resume_index.0 as usize;
                    match mend_with(&damaged, &[committed[start..=upto].to_vec()]) {
                        Err(MendError::Differs(_)) => in_front *= 2,
                        done => break done.unwrap_or_else(|e| panic!("{what}: {e}")),
                    }
                };
                assert_eq!((done.left, done.lost_end), (vec![], None), "{what}");
                let (log, report) = open(&damaged, small_segments());
                assert!(report.is_clean() && report.lost_end.is_none(), "{what}: {report:?}");
                let kept = read_good(&log);
                log.close();
                match done.replaced.map(|index| index.0) {
                    Some(index) => {
                        assert!(index >= from, "{what}: nothing that is right goes");
                        assert_eq!(kept, committed[..kept.len()], "{what}");
                        assert!(kept.len() as u64 >= hole.resume_index.0, "{what}");
                        before += u32::from(index < hole.from_index.0);
                        behind += u32::from(index > hole.from_index.0);
                    }
                    // The end, or a hole behind which nothing that was given differs.
                    None if lacking.lost_end.is_some() => {
                        assert!(kept == committed[..kept.len()], "{what}");
                    }
                    None => {
                        assert!(kept == healthy && from > hole.resume_index.0, "{what}");
                    }
                }
            }
        }
    }
    assert!(before > 20 && behind > 20, "{before}, {behind}");
}

#[test]
fn an_end_with_a_stretch_before_it_that_was_replaced_goes_with_it() {
    let (disk, healthy) = filled();
    disk.cut(segment_paths(&disk).last().expect("some"), 100);
    let lost = lacks(&disk).lost_end.expect("lost");
    let (from, start) = (lost.from_index.0 as usize, lost.from_index.0 as usize - 8);
    let committed = replaced_from(&healthy, from as u64 - 3, 4, 5);
    let given = |start: usize| mend_with(&disk, &[committed[start..].to_vec()]);
    assert!(matches!(given(from - 1), Err(MendError::Differs(_))));
    let known = mend(&disk, dir(), &[committed[start..].to_vec()], RaftIndex(from as u64));
    assert!(matches!(known, Err(MendError::DoesNotFit { .. })), "what is committed stays");
    assert_eq!(given(start).expect("mended").replaced, Some(RaftIndex(from as u64 - 3)));
    check_whole(&disk, &committed, "replaced");
}

#[test]
fn a_crash_while_a_stretch_is_replaced_leaves_what_can_be_mended() {
    let (disk, healthy) = filled();
    let paths = segment_paths(&disk);
    disk.flip_bit(&paths[1], 8 * 300);
    let hole = lacks(&disk).left[0].clone();
    let committed = replaced_from(&healthy, hole.from_index.0 - 2, 20, 5);
    let start = hole.from_index.0 as usize - 4;
    let given = |report: &MendReport| {
        let upto = report.left[0].resume_index.0 as usize;
        vec![committed[start..=upto.min(committed.len() - 1)].to_vec()]
    };
    let disk = disk.crash(0);
    let (mut again, mut through) = (0, 0);
    for step in 0.. {
        let trial = disk.kill();
        trial.stop_after(step);
        let result = mend_with(&trial, &given(&lacks(&disk)));
        for seed in 0..8 {
            let after = if seed == 0 { trial.kill() } else { trial.crash(seed) };
            let mut found = lacks(&after);
            through += usize::from(found.left.is_empty());
            while !found.left.is_empty() {
                let done = mend_with(&after, &given(&found));
                done.unwrap_or_else(|e| panic!("step {step}, {seed}: {e} {found:?}"));
                found = lacks(&after);
                again += 1;
            }
            let (log, report) = open(&after, small_segments());
            assert!(report.is_clean() && report.lost_end.is_none(), "{step}: {report:?}");
            let kept = read_good(&log);
            assert_eq!(kept, committed[..kept.len()], "step {step}, {seed}");
            assert!(kept.len() as u64 >= hole.resume_index.0, "step {step}, {seed}");
            log.close();
        }
        if result.is_ok() {
            break;
        }
    }
    assert!(again > 50 && through > 5, "{again}, {through}");
}

#[test]
fn a_crash_at_any_step_leaves_each_hole_as_it_was_or_mended() {
    let (disk, healthy) = filled();
    let paths = segment_paths(&disk);
    disk.flip_bit(&paths[0], 8 * 300);
    remove_file(&disk, &paths[1]);
    disk.cut(paths.last().expect("some"), 100);
    let before = lacks(&disk);
    assert_eq!(before.left.len(), 3, "{before:?}");
    let given = runs_for(&before, &healthy);
    let start = disk.crash(0);
    let (mut steps, mut mended_by_crash) = (0, 0);
    for step in 0.. {
        let trial = start.kill();
        trial.stop_after(step);
        let result = mend_with(&trial, &given);
        for seed in 0..8 {
            let after = if seed == 0 { trial.kill() } else { trial.crash(seed) };
            let found = lacks(&after);
            let is_known = |hole: &&aklight_log::Damage| {
                let indexes = (hole.from_index, hole.resume_index);
                before.left.iter().any(|b| (b.from_index, b.resume_index) == indexes)
            };
            assert!(found.left.iter().all(|hole| is_known(&hole)), "step {step}: {found:?}");
            let (log, _) = open(&after, small_segments());
            let (read, damages) = read_all(&log);
            assert!(read.iter().all(|batch| healthy.contains(batch)), "step {step}");
            assert_eq!(damages.len(), found.left.len(), "step {step}");
            log.close();
            mended_by_crash += usize::from(found.left.is_empty() && result.is_err());
            if found.left.is_empty() {
                check_whole(&after, &healthy, &format!("step {step}"));
            } else {
                mend_and_check(&after, &healthy, &format!("step {step}, again"));
            }
        }
        if result.is_ok() {
            steps = step;
            break;
        }
    }
    assert!(steps > 15 && mended_by_crash > 0, "{steps} steps, {mended_by_crash}");
}

#[test]
fn damage_that_a_reader_finds_is_reported_at_the_next_opening() {
    let (disk, healthy) = filled();
    let path = &segment_paths(&disk)[1];
    disk.flip_bit(path, 8 * 200);
    let (log, report) = open(&disk, small_segments());
    assert!(report.is_clean(), "its sidecar is believed");
    assert_eq!(read_all(&log).1.len(), 1);
    log.close();
    let (log, report) = open(&disk, small_segments());
    assert_eq!(report.damaged.len(), 1);
    log.close();
    mend_and_check(&disk, &healthy, "found by a reader");
}

#[test]
fn a_second_damage_of_one_place_is_kept_beside_the_first() {
    let (disk, healthy) = filled();
    let path = &segment_paths(&disk)[0];
    for (round, bit) in [8 * 200, 8 * 201].into_iter().enumerate() {
        disk.flip_bit(path, bit);
        let lacking = lacks(&disk);
        let damaged = disk.contents(path).expect("there");
        let (at, len) = (lacking.left[0].position as usize, lacking.left[0].bytes as usize);
        let copy = disk.contents(&lacking.left[0].file).expect("set aside");
        assert_eq!(copy, damaged[at..at + len], "round {round}");
        assert_eq!(aside(&disk).len(), round + 1);
        mend_and_check(&disk, &healthy, "again");
    }
}

#[test]
fn a_truncation_is_no_loss_wherever_the_power_goes() {
    for kept in [0_u64, 3, 9, 14, 18] {
        for step in 0.. {
            let (disk, _) = filled();
            let (log, _) = open(&disk, small_segments());
            disk.stop_after(step);
            let done = truncate(&log, Some(kept)).is_ok();
            for seed in 0..8 {
                let after = if seed == 0 { disk.kill() } else { disk.crash(seed) };
                let (log, report) = open(&after, small_segments());
                assert!(
                    report.is_clean() && report.lost_end.is_none(),
                    "{kept} {step}: {report:?}"
                );
                let last = log.bounds().last.expect("some").1.0;
                assert!((kept..20).contains(&last) && (!done || last == kept), "{kept} {step}");
                // Others come in their place; what of them is lost later is no longer hidden.
                let new = (last + 1..last + 4).map(|n| records(n, 9, 1, 10)).collect();
                append(&log, new).expect("appended");
                log.close();
                let path = segment_paths(&after).pop().expect("some");
                after.cut(&path, 10);
                let lost = open(&after, small_segments()).1.lost_end.expect("lost");
                assert_eq!((lost.term, lost.upto_index), (Term(9), RaftIndex(last + 3)));
            }
            log.close();
            if done {
                break;
            }
        }
    }
}

#[test]
fn a_real_disk_is_mended_too() {
    let (healthy_dir, dir) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two"));
    for folder in [&healthy_dir, &dir] {
        let (log, _) = open_real(folder.path(), small_segments());
        append(&log, batches(20)).expect("appended");
        log.close();
    }
    let mut segments: Vec<_> = std::fs::read_dir(dir.path())
        .expect("there")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|e| e == "log"))
        .collect();
    segments.sort();
    std::fs::remove_file(&segments[1]).expect("removed");
    let last = segments.last().expect("some");
    std::fs::OpenOptions::new().write(true).open(last).expect("there").set_len(70).expect("cut");
    let (log, report) = open_real(dir.path(), small_segments());
    assert_eq!(report.damaged.len(), 2);
    assert!(report.lost_end.is_some());
    log.close();
    let (healthy, _): (Log, _) = open_real(healthy_dir.path(), small_segments());
    let copy = read_good(&healthy);
    let runs: Vec<_> = report.damaged.iter().map(|hole| run_for(hole, &copy)).collect();
    let report = mend(&aklight_log::RealDisk, dir.path(), &runs, RaftIndex(0)).expect("mended");
    assert_eq!((report.mended.len(), report.left.len()), (2, 0));
    let (log, report) = open_real(dir.path(), small_segments());
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(read_good(&log), read_good(&healthy));
}
