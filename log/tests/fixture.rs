//! Data directories of earlier versions open for ever: `tests/fixtures/v1` was written once, by
//! the first version of the format, and is never written again.
//!
//! It holds what [`entry`] gives for the entries 0 to 59, in segments of 2 KiB, purged up to
//! entry 7, with a vote, a committed hint and a checkpoint.

mod support;

use std::path::{Path, PathBuf};

use aklight_common::{Offset, RaftIndex, Term};
use aklight_log::{BatchKind, LogOptions, NewBatch};
use support::*;

const ENTRIES: u64 = 60;
const PURGED: u64 = 7;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1")
}

/// What was appended as entry `index`.
fn entry(index: u64) -> NewBatch {
    let term = 1 + index / 20;
    match index % 10 {
        0 => blank(index, term),
        5 => NewBatch {
            kind: BatchKind::Membership,
            body: format!("members {index}").into(),
            ..blank(index, term)
        },
        7 => NewBatch {
            kind: BatchKind::Command,
            body: format!("command {index}").into(),
            first_time_us: index * 1000,
            last_time_us: index * 1000,
            ..blank(index, term)
        },
        n => records_on(&format!("fixture/topic{n}"), index, term, 3, 40),
    }
}

fn options() -> LogOptions {
    LogOptions { segment_bytes: 2048, preallocate_bytes: 0, ..LogOptions::default() }
}

fn records_before(index: u64) -> u64 {
    (0..index).map(|index| u64::from(entry(index).records)).sum()
}

/// The fixture in a folder of its own: opening a log writes to it.
fn copy() -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a folder");
    for file in std::fs::read_dir(folder()).expect("the fixture is there") {
        let path = file.expect("readable").path();
        let name = path.file_name().expect("a file");
        std::fs::copy(&path, copy.path().join(name)).expect("copied");
    }
    copy
}

#[test]
fn a_folder_of_version_1_opens_reads_and_goes_on() {
    let copy = copy();
    let (log, report) = open_real(copy.path(), options());
    assert!(report.is_clean() && report.torn.is_none(), "{report:?}");
    assert_eq!(report.indexes_rebuilt, Vec::<PathBuf>::new(), "its sidecars are believed");
    assert!(report.segments >= 3);

    let bounds = log.bounds();
    assert_eq!(bounds.purged, Some((Term(1), RaftIndex(PURGED))));
    assert_eq!(bounds.last, Some((Term(3), RaftIndex(ENTRIES - 1))));
    assert_eq!(bounds.start_offset, Offset(records_before(PURGED + 1)));
    assert_eq!(bounds.end_offset, Offset(records_before(ENTRIES)));
    let read = read_good(&log);
    assert_eq!(read.len() as u64, ENTRIES - 1 - PURGED);
    for (index, batch) in (PURGED + 1..).zip(&read) {
        assert!(is_same(batch, &entry(index)), "entry {index}");
        assert_eq!(batch.header.base_offset, Offset(records_before(index)));
        assert_eq!(batch.records().count() as u64, u64::from(entry(index).records));
    }
    assert_eq!(log.read_vote().expect("readable"), Some(b"vote of version 1".to_vec()));
    assert_eq!(log.read_committed(), Some(b"committed 59".to_vec()));
    let checkpoint = log.read_checkpoint().expect("readable");
    assert_eq!(checkpoint, Some((RaftIndex(50), b"checkpoint of version 1".to_vec())));
    let counts = log.topic_counts_before(RaftIndex(ENTRIES)).expect("counted");
    assert_eq!(counts.get("fixture/topic3"), Some(&15));

    append(&log, (ENTRIES..ENTRIES + 40).map(entry).collect()).expect("appended");
    log.close();
    let (log, report) = open_real(copy.path(), options());
    assert!(report.is_clean());
    assert_eq!(read_good(&log).len() as u64, ENTRIES + 39 - PURGED);
}

#[test]
fn its_sidecars_are_what_would_be_built_today() {
    let with = copy();
    let without = copy();
    let sidecars = |folder: &Path| -> Vec<(PathBuf, Vec<u8>)> {
        let files = std::fs::read_dir(folder).expect("there").map(|f| f.expect("readable").path());
        let mut found: Vec<_> = files
            .filter(|path| path.extension().is_some_and(|e| e == "index"))
            .map(|path| {
                (path.file_name().expect("a file").into(), std::fs::read(&path).expect("read"))
            })
            .collect();
        found.sort();
        found
    };
    let before = sidecars(with.path());
    assert!(before.len() >= 2);
    for (name, _) in &before {
        std::fs::remove_file(without.path().join(name)).expect("removed");
    }
    let (_, report) = open_real(without.path(), options());
    assert_eq!(report.indexes_rebuilt.len(), before.len());
    assert_eq!(sidecars(without.path()), before);
}
