//! A folder is read through and nothing of it is touched; what is wrong is said, and nothing else.

mod support;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use aklight_common::{Offset, RaftIndex, Term};
use aklight_log::{
    Disk, DiskFile, Entries, Entry, Log, LogOptions, MemoryDisk, NewBatch, OpenError, ProblemKind,
    RealDisk, Verified, verify,
};
use support::*;

fn small_segments() -> LogOptions {
    LogOptions { segment_bytes: 800, preallocate_bytes: 512, ..small() }
}

fn batches(count: u64, term: u64) -> Vec<NewBatch> {
    (0..count).map(|n| if n == 4 { blank(n, term) } else { records(n, term, 2, 20) }).collect()
}

/// A log of twenty batches, each acknowledged on its own, closed well.
fn filled(term: u64) -> MemoryDisk {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk, small_segments());
    for batch in batches(20, term) {
        append(&log, vec![batch]).expect("appended");
    }
    wait(|done| log.save_vote(vec![1], done)).expect("saved");
    log.save_checkpoint(RaftIndex(9), b"state".to_vec()).expect("saved");
    log.save_committed(b"so far".to_vec());
    log.close();
    disk
}

fn segment_paths(disk: &MemoryDisk) -> Vec<PathBuf> {
    let files = disk.files().into_iter().map(|(path, _)| path);
    files.filter(|path| path.extension().is_some_and(|e| e == "log")).collect()
}

fn verified(disk: &MemoryDisk) -> Verified {
    verify(&*disk.shared(), dir()).expect("there is a log")
}

fn kinds(disk: &MemoryDisk) -> Vec<ProblemKind> {
    verified(disk).problems.into_iter().map(|problem| problem.kind).collect()
}

fn entries(disk: &MemoryDisk) -> Vec<Entry> {
    let disk = disk.shared();
    let walk = Entries::open(&*disk, dir()).expect("there is a log");
    walk.map(|found| found.expect("no problem")).collect()
}

#[test]
fn a_good_folder_is_counted_and_not_touched_even_while_a_log_has_it_open() {
    let disk = filled(1);
    let (log, _) = open(&disk, small_segments());
    purge(&log, 7).expect("purged");
    disk.take_trace();
    for _ in 0..2 {
        let found = verified(&disk);
        assert_eq!(found.problems, []);
        assert_eq!((found.entries, found.records), (12, 24));
        assert_eq!(found.bounds, log.bounds_after_purge(found.bounds.bytes));
        assert_eq!(found.committed, Some(b"so far".to_vec()));
        assert!(disk.take_trace().is_empty());
        log.close();
        disk.take_trace();
    }
    let nothing = verify(&MemoryDisk::new(), dir());
    assert!(matches!(nothing, Err(OpenError::Io { .. })), "{nothing:?}");
}

trait BoundsOf {
    fn bounds_after_purge(&self, bytes: u64) -> aklight_log::Bounds;
}

impl BoundsOf for aklight_log::Log {
    /// The log counts what is purged and still in its segments, as the folder does.
    fn bounds_after_purge(&self, bytes: u64) -> aklight_log::Bounds {
        let bounds = self.bounds();
        assert_eq!(bounds.bytes, bytes);
        bounds
    }
}

#[test]
fn every_flipped_bit_of_a_batch_is_told_with_its_place() {
    let disk = filled(1);
    let whole = entries(&disk);
    let mut told = 0;
    for path in segment_paths(&disk) {
        for byte in (0..disk.contents(&path).expect("there").len()).step_by(7) {
            let damaged = disk.kill();
            damaged.flip_bit(&path, byte * 8 + byte % 8);
            let found = verified(&damaged);
            let is_batch = found.entries < 20;
            assert_eq!(found.problems.is_empty(), !is_batch, "{byte}: {found:?}");
            if !is_batch {
                continue;
            }
            told += 1;
            let problem = &found.problems[0];
            assert_eq!((problem.kind.clone(), &problem.file), (ProblemKind::Damaged, &path));
            let reach = problem.position..problem.position + problem.bytes;
            assert!(reach.contains(&(byte as u64)), "{byte}: {problem}");
            let lost = whole.iter().find(|entry| entry.index == problem.from.0).expect("one");
            assert_eq!(problem.from.1, lost.base_offset);
            assert!(problem.to_string().contains("entry"));
        }
    }
    assert!(told > 200, "{told}");
}

#[test]
fn missing_and_cut_segments_are_told() {
    let disk = filled(1);
    let paths = segment_paths(&disk);
    for (number, path) in paths.iter().enumerate() {
        let damaged = disk.kill();
        damaged.shared().remove(path).expect("removed");
        let expect =
            if number + 1 == paths.len() { ProblemKind::LostEnd } else { ProblemKind::Missing };
        assert_eq!(kinds(&damaged), [expect], "segment {number}");
        for left in (0..500).step_by(23) {
            let damaged = disk.kill();
            damaged.cut(path, left);
            assert!(!kinds(&damaged).is_empty(), "segment {number} cut at {left}");
        }
    }
    for path in &paths {
        disk.shared().remove(path).expect("removed");
    }
    assert_eq!(kinds(&disk), [ProblemKind::LostEnd]);
}

#[test]
fn what_is_half_written_behind_the_acknowledged_end_is_no_problem() {
    for seed in 0..60 {
        let disk = MemoryDisk::new();
        let (log, _) = open(&disk, LogOptions { preallocate_bytes: 4096, ..small() });
        append(&log, vec![records(0, 1, 2, 400), records(1, 1, 2, 400)]).expect("appended");
        disk.hold_syncs();
        let more: Vec<_> = (2..5).map(|index| records(index, 1, 2, 300)).collect();
        log.append(more, Box::new(|_| {})).expect("taken");
        disk.wait_for_held_sync();
        let after = disk.crash(seed);
        disk.release_syncs();
        let found = verified(&after);
        assert_eq!(found.problems, [], "seed {seed}");
        assert!(found.entries >= 2);
    }
}

#[test]
fn segments_of_another_log_do_not_pass() {
    let (old, new) = (filled(1), filled(5));
    let paths = segment_paths(&new);
    let put = |path: &Path, from: &MemoryDisk, source: &Path| {
        let disk = new.kill();
        let content = from.contents(source).expect("there");
        let file = disk.shared().create(path).expect("created");
        file.write_at(&[std::io::IoSlice::new(&content)], 0).expect("written");
        kinds(&disk)
    };
    assert_eq!(put(&paths[1], &old, &paths[1]), [ProblemKind::TermFalls]);
    let again = put(&paths[2], &new, &paths[1]);
    assert_eq!(again, [ProblemKind::OutOfOrder, ProblemKind::Missing]);
}

#[test]
fn damaged_small_files_are_told() {
    let disk = filled(1);
    for name in ["vote", "purged", "committed"] {
        let damaged = disk.kill();
        for slot in [0, 4096] {
            damaged.flip_bit(&dir().join(name), (slot + 5) * 8);
        }
        let found = verified(&damaged);
        assert_eq!(found.problems.len(), 1, "{name}: {found:?}");
        assert_eq!(found.problems[0].kind, ProblemKind::SmallFile);
        assert_eq!(found.problems[0].file, dir().join(name));
        damaged.shared().remove(&dir().join(name)).expect("removed");
        assert_eq!(kinds(&damaged), [ProblemKind::SmallFile]);
    }
    disk.flip_bit(&dir().join("checkpoint"), 200);
    assert_eq!(kinds(&disk), [ProblemKind::SmallFile]);
    disk.shared().remove(&dir().join("checkpoint")).expect("removed");
    assert_eq!(kinds(&disk), [], "there need not be one");
}

#[test]
fn replicas_are_alike_however_they_were_written_and_differ_where_they_differ() {
    let one = filled(1);
    let two = MemoryDisk::new();
    let (log, _) = open(&two, LogOptions { segment_bytes: 2000, ..small() });
    append(&log, batches(20, 1)).expect("appended at once");
    assert_eq!(entries(&one), entries(&two));
    assert_eq!(entries(&one).last().map(Entry::end_offset), Some(Offset(38)));
    truncate(&log, Some(11)).expect("truncated");
    let mut other = records(12, 1, 2, 20);
    let mut body = other.body.to_vec();
    *body.last_mut().expect("some") ^= 1;
    other.body = body.into();
    append(&log, vec![other]).expect("appended");
    let (one, two) = (entries(&one), entries(&two));
    assert_eq!(one[..12], two[..12]);
    assert_eq!((one[12].term, two[12].index), (Term(1), RaftIndex(12)));
    assert_ne!(one[12].body_crc, two[12].body_crc);
}

/// A disk on which something is done to the log just before its n-th file is opened for reading.
struct Meddled {
    disk: MemoryDisk,
    opened: AtomicUsize,
    at: usize,
    meddle: Box<dyn Fn() + Send + Sync>,
}

impl Disk for Meddled {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir_all(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }
    fn open(&self, _: &Path) -> io::Result<Arc<dyn DiskFile>> {
        panic!("nothing is opened for writing")
    }
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        if self.opened.fetch_add(1, Ordering::SeqCst) == self.at {
            (self.meddle)();
        }
        self.disk.open_read(path)
    }
    fn create(&self, _: &Path) -> io::Result<Arc<dyn DiskFile>> {
        panic!("nothing is made")
    }
    fn remove(&self, _: &Path) -> io::Result<()> {
        panic!("nothing is removed")
    }
    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        panic!("nothing is renamed")
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        panic!("nothing is synced")
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.disk.free_bytes(dir)
    }
    fn lock(&self, _: &Path) -> io::Result<Box<dyn aklight_log::disk::DiskLock>> {
        panic!("nothing is locked")
    }
}

#[test]
fn what_changes_between_two_reads_is_no_problem_but_damage_stays_one() {
    type Meddle = fn(&Log);
    let more = |log: &Log, term| {
        let next = log.bounds().last.map_or(0, |last| last.1.0 + 1);
        append(log, (next..next + 15).map(|n| records(n, term, 1, 60)).collect())
            .expect("appended");
    };
    let meddles: [Meddle; 4] = [
        |log| purge(log, 13).expect("purged"),
        |log| truncate(log, Some(5)).expect("truncated"),
        |_| {},
        |log| {
            wait(|done| log.purge_to(Term(3), RaftIndex(90), Some(Offset(7)), done)).expect("done")
        },
    ];
    for (kind, meddle) in meddles.into_iter().enumerate() {
        for at in 0..20 {
            for grows in [false, true] {
                let disk = filled(1);
                let is_damaged = at == 7 && kind == 2;
                if is_damaged {
                    disk.flip_bit(&segment_paths(&disk)[0], 8 * 200);
                }
                let (log, _) = open(&disk, small_segments());
                let meddled = log.clone();
                let meddle = Box::new(move || {
                    meddle(&meddled);
                    if grows {
                        more(&meddled, 4);
                    }
                });
                let disk = Meddled { disk, opened: AtomicUsize::new(0), at, meddle };
                let expect = usize::from(is_damaged);
                if kind < 2 && !grows {
                    // One walk is enough to tell what went away from what is damaged.
                    let walk = Entries::open(&disk, dir()).expect("there is a log");
                    let problems: Vec<_> = walk.filter_map(Result::err).collect();
                    assert_eq!(problems, [], "{kind} at {at}");
                }
                let found = verify(&disk, dir()).expect("there is a log");
                assert_eq!(found.problems.len(), expect, "{kind} at {at}, {grows}: {found:?}");
                log.close();
            }
        }
    }
}

/// Appends that a log sees while it is looked through once, with the truncations and purges among them.
const CHANGES_A_LOOK: u64 = 30;

#[test]
fn a_log_that_is_written_truncated_and_purged_meanwhile_shows_no_problem() {
    let folder = tempfile::tempdir().expect("a folder");
    let (log, _) = open_real(folder.path(), LogOptions { segment_bytes: 4000, ..small() });
    append(&log, (0..20).map(|n| records(n, 1, 2, 50)).collect()).expect("appended");
    let stop = Arc::new(AtomicBool::new(false));
    let looked = Arc::new(AtomicU64::new(0));
    let (writing, stopped, followed) = (log.clone(), stop.clone(), looked.clone());
    let writer = std::thread::spawn(move || {
        let mut term = 1;
        for round in 0_u64.. {
            // On a quick disk a look would be overtaken by hundreds of changes, and never come to an end.
            while round > CHANGES_A_LOOK * (followed.load(Ordering::Relaxed) + 1)
                && !stopped.load(Ordering::Relaxed)
            {
                std::thread::yield_now();
            }
            if stopped.load(Ordering::Relaxed) {
                break;
            }
            let end = writing.bounds().last.expect("some").1.0;
            let more = (end + 1..end + 12).map(|n| records(n, term, 2, 50)).collect();
            append(&writing, more).expect("appended");
            if round % 5 == 4 {
                term += 1;
                truncate(&writing, Some(end - 3)).expect("truncated");
            }
            if round % 7 == 6 {
                purge(&writing, end - 40.min(end)).expect("purged");
            }
        }
    });
    for round in 0..300 {
        let found = verify(&RealDisk, folder.path()).expect("there is a log");
        assert_eq!(found.problems, [], "round {round}");
        looked.fetch_add(1, Ordering::Relaxed);
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().expect("no panic");
    log.close();
    let found = verify(&RealDisk, folder.path()).expect("there is a log");
    assert_eq!((found.problems, found.bounds.last), (Vec::new(), log.bounds().last));
}
