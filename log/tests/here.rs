//! What is written, and sometimes synced, in the thread of the caller who appends.

mod support;

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::ThreadId;
use std::time::Duration;

use aklight_common::clock::{Clock, ManualClock, SystemClock};
use aklight_common::{Offset, RaftIndex};
use aklight_log::disk::{DiskFile, DiskLock};
use aklight_log::{Disk, Fsync, Health, Log, LogOptions, MemoryDisk, NewBatch};
use crossbeam_channel::{Receiver, Sender, unbounded};
use support::*;

const SEGMENT: &str = "00000000000000000000.log";

/// Who answered which append, in the order of the answers.
struct Answers {
    sender: Sender<(u64, ThreadId, bool)>,
    received: Receiver<(u64, ThreadId, bool)>,
}

impl Answers {
    fn new() -> Self {
        let (sender, received) = unbounded();
        Self { sender, received }
    }

    fn done(&self, index: u64) -> aklight_log::Done {
        let sender = self.sender.clone();
        Box::new(move |result| {
            let answer = (index, std::thread::current().id(), result.is_ok());
            sender.send(answer).expect("somebody waits");
        })
    }

    /// Whether the append of `index` was answered well, and in this very thread.
    fn is_from_here(&self, index: u64) -> bool {
        let (answered, thread, is_ok) = self.received.recv_timeout(PATIENCE).expect("answered");
        assert_eq!((answered, is_ok), (index, true));
        thread == std::thread::current().id()
    }
}

/// A disk whose writes and syncs take so many microseconds of a clock that is set by hand.
struct Slow {
    disk: Arc<dyn Disk>,
    clock: Arc<ManualClock>,
    write_us: AtomicU64,
    sync_us: AtomicU64,
}

struct SlowFile(Arc<dyn DiskFile>, Arc<Slow>);

/// So that files can hold their disk.
struct SlowDisk(Arc<Slow>);

impl SlowDisk {
    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(SlowFile(file, self.0.clone()))
    }
}

impl Disk for SlowDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.0.disk.create_dir_all(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.disk.list(dir)
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.0.disk.open(path)?))
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.0.disk.create(path)?))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.disk.remove(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.disk.rename(from, to)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.disk.sync_dir(dir)
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.0.disk.free_bytes(dir)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        self.0.disk.lock(path)
    }
}

impl DiskFile for SlowFile {
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.0.read_at(buffer, at)
    }
    fn write_at(&self, parts: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        self.1.clock.advance_us(self.1.write_us.load(Ordering::SeqCst));
        self.0.write_at(parts, at)
    }
    fn sync(&self) -> io::Result<()> {
        self.1.clock.advance_us(self.1.sync_us.load(Ordering::SeqCst));
        self.0.sync()
    }
    fn set_size(&self, bytes: u64) -> io::Result<()> {
        self.0.set_size(bytes)
    }
    fn preallocate(&self, from: u64, bytes: u64) -> io::Result<()> {
        self.0.preallocate(from, bytes)
    }
}

fn on_slow_disk(fsync: Fsync) -> (Log, Arc<Slow>) {
    let clock = ManualClock::at(1_000_000);
    let slow = Arc::new(Slow {
        disk: MemoryDisk::new().shared(),
        clock: clock.clone(),
        write_us: AtomicU64::new(0),
        sync_us: AtomicU64::new(0),
    });
    let options = LogOptions { fsync, ..LogOptions::default() };
    let disk = Arc::new(SlowDisk(slow.clone()));
    let (log, _) = Log::open(disk, dir(), options, clock).expect("opens");
    (log, slow)
}

fn record(index: u64) -> Vec<NewBatch> {
    vec![records(index, 1, 1, 10)]
}

/// Appends until it is done in this thread, as it is when the log's own looks for nothing just then;
/// returns the next index.
fn settle(log: &Log, answers: &Answers) -> u64 {
    let mut next = 0;
    until("written by who appends", || {
        log.append_here(record(next), answers.done(next)).expect("taken");
        next += 1;
        answers.is_from_here(next - 1)
    });
    next
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = SystemClock::new();
    while !is_so() {
        assert!(started.monotonic_us() < PATIENCE.as_micros() as u64, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn what_needs_no_sync_is_written_and_answered_by_who_appends() {
    let disk = MemoryDisk::new();
    let options = LogOptions { fsync: Fsync::Never, ..LogOptions::default() };
    let (log, _) = open(&disk, options);
    let answers = Answers::new();
    let mut next = settle(&log, &answers);
    until("and the next one too", || {
        disk.take_trace();
        log.append(record(next), answers.done(next)).expect("taken");
        let is_written = disk.take_trace().iter().any(|op| op.to_string().contains(SEGMENT));
        next += 1;
        answers.is_from_here(next - 1) && is_written
    });
    let read = log.read_offsets(Offset(0), Offset(next), 1 << 20).expect("read");
    assert_eq!(read.len() as u64, next);
}

#[test]
fn what_comes_while_the_thread_is_at_work_waits_behind_it_and_order_is_kept() {
    let disk = MemoryDisk::new();
    let options = LogOptions { fsync: Fsync::Never, ..LogOptions::default() };
    let (log, _) = open(&disk, options);
    let answers = Answers::new();
    let first = settle(&log, &answers);
    disk.hold_syncs();
    log.save_vote(vec![1], answers.done(0));
    disk.wait_for_held_sync();
    for index in first..first + 3 {
        log.append(record(index), answers.done(index)).expect("taken");
    }
    assert!(answers.received.is_empty(), "the vote is not saved yet, and what follows waits");
    disk.release_syncs();
    for number in [0, first, first + 1, first + 2] {
        assert!(!answers.is_from_here(number), "the thread's own work");
    }
    // The last answer comes from the middle of the thread's turn.
    let mut next = first + 3;
    until("the thread is done, and writes are made here again", || {
        log.append(record(next), answers.done(next)).expect("taken");
        next += 1;
        answers.is_from_here(next - 1)
    });
}

fn syncing_later() -> LogOptions {
    LogOptions { fsync: Fsync::Interval(Duration::from_millis(5)), ..small() }
}

#[test]
fn what_was_written_here_is_synced_by_the_thread_in_its_time() {
    let disk = MemoryDisk::new();
    let clock = ManualClock::at(1_000_000);
    let (log, _) = Log::open(disk.shared(), dir(), syncing_later(), clock.clone()).expect("opens");
    let answers = Answers::new();
    for index in 0..3 {
        disk.take_trace();
        log.append(record(index), answers.done(index)).expect("taken");
        let mut seen = disk.take_trace();
        let _ = answers.is_from_here(index);
        clock.advance_us(5_000);
        until("synced when the interval is over", || {
            seen.extend(disk.take_trace());
            seen.iter().any(|op| op.to_string() == format!("sync {SEGMENT}"))
        });
    }
}

/// A log with a record whose sync, that of its interval, is held up.
fn with_a_held_sync() -> (MemoryDisk, Arc<ManualClock>, Log) {
    let disk = MemoryDisk::new();
    let clock = ManualClock::at(1_000_000);
    let (log, _) = Log::open(disk.shared(), dir(), syncing_later(), clock.clone()).expect("opens");
    append(&log, record(0)).expect("written");
    disk.hold_syncs();
    clock.advance_us(5_000);
    disk.wait_for_held_sync();
    (disk, clock, log)
}

#[test]
fn nobody_waits_for_a_sync_by_which_nothing_is_acknowledged() {
    let (disk, _clock, log) = with_a_held_sync();
    for index in 1..4 {
        append(&log, record(index)).expect("written while the disk is busy");
    }
    // Who wants to have it durable waits, for a sync that begins behind what was written.
    let saving = log.clone();
    let checkpoint =
        std::thread::spawn(move || saving.save_checkpoint(RaftIndex(3), b"state".to_vec()));
    append(&log, record(4)).expect("written while the disk is busy");
    assert!(!checkpoint.is_finished());
    disk.release_syncs();
    checkpoint.join().expect("it ends").expect("saved");
    for seed in 0..8 {
        let (log, report) = open(&disk.crash(seed), syncing_later());
        assert!(report.damaged.is_empty(), "seed {seed}: {report:?}");
        assert!(read_good(&log).len() >= 4, "seed {seed}");
    }
}

#[test]
fn whoever_waits_for_a_sync_is_told_of_that_one() {
    let disk = MemoryDisk::new();
    let options = LogOptions { fsync: Fsync::Never, ..small() };
    let (log, _) = open(&disk, options);
    let save = |log: &Log| {
        let log = log.clone();
        std::thread::spawn(move || log.save_checkpoint(RaftIndex(0), Vec::new()))
    };
    append(&log, record(0)).expect("written");
    disk.hold_syncs();
    let first = save(&log);
    disk.wait_for_held_sync();
    append(&log, record(1)).expect("written meanwhile");
    // The one behind it.
    disk.fail("sync", SEGMENT, 1, io::ErrorKind::Other);
    let second = save(&log);
    disk.release_syncs();
    assert!(second.join().expect("it ends").is_err());
    first.join().expect("it ends").expect("saved");
    assert!(log.health() != Health::Writable && log.append(record(2), Box::new(|_| {})).is_err());
    assert!(log.save_checkpoint(RaftIndex(0), Vec::new()).is_err());
    log.close();
}

#[test]
fn a_disk_that_hangs_is_waited_for() {
    let (disk, clock, log) = with_a_held_sync();
    clock.advance_us(1_900_000);
    append(&log, record(1)).expect("written while the disk is busy");
    clock.advance_us(200_000);
    let (sender, answer) = crossbeam_channel::bounded(1);
    log.append(record(2), Box::new(move |result| sender.send(result).expect("waits")))
        .expect("taken");
    let written = || disk.contents(&dir().join(SEGMENT)).expect("there").len();
    let before = written();
    let real = SystemClock::new();
    while real.monotonic_us() < 20_000 {
        std::thread::yield_now();
    }
    assert!(answer.is_empty() && written() == before, "nothing is taken in any more");
    disk.release_syncs();
    answer.recv_timeout(PATIENCE).expect("answered").expect("written");
}

/// What a batch says of itself: its place, and how far from it the bytes begin that it does not vouch for.
fn vouched(disk: &MemoryDisk, log: &Log, at: usize) -> u64 {
    let batches = read_good(log);
    let position: u64 = batches[..at].iter().map(|batch| batch.header.stored_len()).sum();
    let bytes = disk.contents(&dir().join(SEGMENT)).expect("there");
    let unsynced = &bytes[position as usize + 44..][..4];
    position - u64::from(u32::from_le_bytes(unsynced.try_into().expect("four")))
}

#[test]
fn nothing_is_vouched_for_that_came_during_a_sync() {
    let (disk, _clock, log) = with_a_held_sync();
    append(&log, record(1)).expect("written meanwhile");
    disk.release_syncs();
    let first = read_good(&log)[0].header.stored_len();
    let mut next = 2;
    until("the sync is known to have ended", || {
        append(&log, record(next)).expect("written");
        next += 1;
        vouched(&disk, &log, next as usize - 1) > 0
    });
    assert_eq!(vouched(&disk, &log, next as usize - 1), first);
}

/// Long enough behind a sync that nobody has waited for it.
const PAUSE_US: u64 = 100;

#[test]
fn a_quick_sync_is_made_by_a_caller_who_may_wait_for_it() {
    let (log, slow) = on_slow_disk(Fsync::Always);
    let answers = Answers::new();
    slow.sync_us.store(300, Ordering::SeqCst);
    log.append_here(record(0), answers.done(0)).expect("taken");
    assert!(!answers.is_from_here(0), "nobody knows yet how long a sync takes");
    let mut next = 1;
    until("syncs are known to be quick", || {
        slow.clock.advance_us(PAUSE_US);
        log.append_here(record(next), answers.done(next)).expect("taken");
        next += 1;
        answers.is_from_here(next - 1)
    });
    log.append_here(record(next), answers.done(next)).expect("taken");
    assert!(!answers.is_from_here(next), "right behind a sync others may wait to share the next");
    next += 1;
    slow.clock.advance_us(PAUSE_US);
    log.append(record(next), answers.done(next)).expect("taken");
    assert!(!answers.is_from_here(next), "who does not say so is not kept waiting");
    next += 1;
    slow.clock.advance_us(PAUSE_US);
    let long = vec![records(next, 1, 1, 100_000)];
    log.append_here(long, answers.done(next)).expect("taken");
    assert!(!answers.is_from_here(next), "nor for much");
}

#[test]
fn callers_do_not_wait_for_a_disk_that_has_become_slow() {
    for fsync in [Fsync::Always, Fsync::Never] {
        let (log, slow) = on_slow_disk(fsync);
        let answers = Answers::new();
        let mut next = 0;
        let mut append = || {
            slow.clock.advance_us(PAUSE_US);
            log.append_here(record(next), answers.done(next)).expect("taken");
            next += 1;
            answers.is_from_here(next - 1)
        };
        until("quick at first", &mut append);
        slow.write_us.store(3_000, Ordering::SeqCst);
        until("one of them was slow", &mut append);
        assert!(!append(), "{fsync:?}: the next is left to the thread");
        slow.write_us.store(0, Ordering::SeqCst);
        assert!(!append(), "{fsync:?}: and so for a while");
        slow.clock.advance_us(1_000_000);
        until("then it is tried again", &mut append);
    }
}

#[test]
fn the_hint_says_what_was_written_here_once_it_is_committed() {
    let disk = MemoryDisk::new();
    let options = LogOptions { fsync: Fsync::Never, ..LogOptions::default() };
    let (log, _) = open(&disk, options.clone());
    let answers = Answers::new();
    let mut next = settle(&log, &answers);
    until("one write tells what is written and what is committed", || {
        log.append(record(next), answers.done(next)).expect("taken");
        let is_from_here = answers.is_from_here(next);
        next += 1;
        disk.take_trace();
        log.save_committed(b"all".to_vec());
        let trace: Vec<_> = disk.take_trace().iter().map(ToString::to_string).collect();
        is_from_here && trace.len() == 1 && trace[0].starts_with("write committed")
    });
    let killed = disk.kill();
    drop(log);
    let (log, _) = open(&killed, options);
    assert_eq!(log.read_committed().as_deref(), Some(&b"all"[..]));
    assert_eq!(log.bounds().flushed, Some(RaftIndex(next - 1)));
}

/// Counts how often it is asked.
struct Asked(Arc<ManualClock>, AtomicU64);

impl Clock for Asked {
    fn wall_us(&self) -> u64 {
        self.0.wall_us()
    }
    fn monotonic_us(&self) -> u64 {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.monotonic_us()
    }
}

#[test]
fn after_a_failed_sync_the_thread_rests() {
    let disk = MemoryDisk::new();
    let manual = ManualClock::at(1_000_000);
    let clock = Arc::new(Asked(manual.clone(), AtomicU64::new(0)));
    let (log, _) = Log::open(disk.shared(), dir(), syncing_later(), clock.clone()).expect("opens");
    let answers = Answers::new();
    disk.fail_always(&["sync"], SEGMENT, io::ErrorKind::Other);
    log.append(record(0), answers.done(0)).expect("taken");
    assert!(answers.received.recv_timeout(PATIENCE).expect("answered").2, "it is written");
    manual.advance_us(5_000);
    until("the sync has failed", || log.health() != Health::Writable);
    until("nobody looks at the clock any more", || {
        let (real, before) = (SystemClock::new(), clock.1.load(Ordering::SeqCst));
        while real.monotonic_us() < 20_000 {
            std::thread::yield_now();
        }
        clock.1.load(Ordering::SeqCst) == before
    });
}
