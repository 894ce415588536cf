//! What the tests of the log share: batches whose content follows from their place, and waiting.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aklight_common::clock::{ManualClock, SystemClock};
use aklight_common::record::{BodyBuilder, Record};
use aklight_common::{Offset, RaftIndex, Term};
use aklight_log::{
    Batch, BatchKind, Bounds, Disk, Log, LogOptions, MemoryDisk, NewBatch, OpenReport, ReadError,
};
use bytes::Bytes;

pub const DIR: &str = "/data/partition_0.log";

/// Longer than any disk takes; a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn dir() -> &'static Path {
    Path::new(DIR)
}

/// A batch of records on `topic`, at the times `index · 1000 + n`.
pub fn records_on(topic: &str, index: u64, term: u64, records: u32, payload: usize) -> NewBatch {
    let mut builder = BodyBuilder::new();
    for n in 0..u64::from(records) {
        let payload = vec![b'a' + ((index + n) % 26) as u8; payload];
        let time_us = index * 1000 + n;
        builder.push(&Record { time_us, topic, key: b"k", payload: &payload, once: None });
    }
    let body = builder.finish();
    NewBatch {
        index: RaftIndex(index),
        term: Term(term),
        kind: BatchKind::Records,
        records,
        first_time_us: body.first_time_us,
        last_time_us: body.last_time_us,
        body: body.bytes,
    }
}

pub fn records(index: u64, term: u64, records: u32, payload: usize) -> NewBatch {
    records_on("metrics/docker/web/cpu", index, term, records, payload)
}

pub fn blank(index: u64, term: u64) -> NewBatch {
    NewBatch {
        index: RaftIndex(index),
        term: Term(term),
        kind: BatchKind::Blank,
        records: 0,
        first_time_us: 0,
        last_time_us: 0,
        body: Bytes::new(),
    }
}

/// Segments small enough that a test fills some, and nothing kept in memory that is on disk.
pub fn small() -> LogOptions {
    LogOptions {
        segment_bytes: 4096,
        preallocate_bytes: 1024,
        tail_cache_bytes: 0,
        ..LogOptions::default()
    }
}

pub fn open(disk: &MemoryDisk, options: LogOptions) -> (Log, OpenReport) {
    open_on(disk.shared(), dir(), options)
}

pub fn open_on(disk: Arc<dyn Disk>, dir: &Path, options: LogOptions) -> (Log, OpenReport) {
    Log::open(disk, dir, options, ManualClock::at(1)).expect("opens")
}

pub fn open_real(dir: &Path, options: LogOptions) -> (Log, OpenReport) {
    let disk = aklight_log::RealDisk::shared();
    Log::open(disk, dir, options, SystemClock::shared()).expect("opens")
}

/// Does something with a `done` and waits for its result.
pub fn wait(work: impl FnOnce(aklight_log::Done)) -> io::Result<()> {
    let (sender, receiver) = crossbeam_channel::bounded(1);
    work(Box::new(move |result| sender.send(result).expect("somebody waits")));
    receiver.recv_timeout(PATIENCE).expect("answered in time")
}

pub fn append(log: &Log, batches: Vec<NewBatch>) -> io::Result<()> {
    let (sender, receiver) = crossbeam_channel::bounded(1);
    let done = move |result| sender.send(result).expect("somebody waits");
    log.append(batches, Box::new(done)).map_err(io::Error::other)?;
    receiver.recv_timeout(PATIENCE).expect("answered in time")
}

pub fn truncate(log: &Log, last: Option<u64>) -> io::Result<()> {
    wait(|done| log.truncate_after(last.map(RaftIndex), done))
}

pub fn purge(log: &Log, upto: u64) -> io::Result<()> {
    wait(|done| log.purge(RaftIndex(upto), done))
}

/// Compresses every sealed segment that it saves something for; how many those are.
pub fn compress(log: &Log) -> io::Result<usize> {
    let mut count = 0;
    while let Some(made) = log.compress_next(RaftIndex(u64::MAX - 1))? {
        assert!(made.compressed_bytes < made.bytes && count < 1000, "{made:?}, again and again");
        count += 1;
    }
    Ok(count)
}

pub fn first_index(bounds: &Bounds) -> RaftIndex {
    bounds.purged.map_or(RaftIndex(0), |purged| purged.1.next())
}

/// Every batch that can be read, around damage, and the damages.
pub fn read_all(log: &Log) -> (Vec<Batch>, Vec<(Offset, Offset)>) {
    let bounds = log.bounds();
    let mut at = first_index(&bounds);
    let end = bounds.last.map_or(RaftIndex(0), |last| last.1.next());
    let (mut batches, mut damages) = (Vec::new(), Vec::new());
    while at < end {
        match log.read_indexes(at, end, 1000) {
            Ok(read) => {
                let last = read.last().expect("at least one");
                assert_eq!(read[0].header.index, at, "begins where it was asked to");
                at = last.header.index.next();
                batches.extend(read);
            }
            Err(ReadError::Damaged { from, resume, resume_index, .. }) => {
                assert!(resume_index > at, "damage ends behind its beginning");
                damages.push((from, resume));
                at = resume_index;
            }
            Err(error) => panic!("{error}"),
        }
    }
    (batches, damages)
}

/// The batches of an undamaged log.
pub fn read_good(log: &Log) -> Vec<Batch> {
    let (batches, damages) = read_all(log);
    assert_eq!(damages, [], "undamaged");
    batches
}

/// Whether a stored batch is the one that was appended.
pub fn is_same(stored: &Batch, new: &NewBatch) -> bool {
    stored.header.index == new.index
        && stored.header.term == new.term
        && stored.header.kind == new.kind
        && stored.header.records == new.records
        && stored.body == new.body
}

/// The segments of a log on a simulated disk, in order.
pub fn segment_paths(disk: &MemoryDisk) -> Vec<PathBuf> {
    let files = disk.files().into_iter().map(|(path, _)| path);
    files.filter(|path| path.extension().is_some_and(|e| e == "log")).collect()
}

/// A file is gone, durably.
pub fn remove_file(disk: &MemoryDisk, path: &Path) {
    disk.shared().remove(path).expect("there");
    disk.shared().sync_dir(dir()).expect("synced");
}
