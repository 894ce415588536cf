//! Logs with made-up histories and damage, by seed, mended with what a made-up peer has: each becomes
//! the peer's log, or keeps what it had, and never something else.

mod support;

use aklight_common::RaftIndex;
use aklight_log::{Batch, Damage, LogOptions, MemoryDisk, MendError, MendReport, NewBatch, mend};
use support::*;

/// Asked in vain so often, a log counts as one that cannot be mended.
const TRIES: usize = 80;

/// Numbers from a seed (xorshift64*, Vigna 2014).
struct Dice(u64);

impl Dice {
    fn of(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % end.max(1)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn entry(&mut self, index: u64, term: u64) -> NewBatch {
        if self.one_in(4) {
            return blank(index, term);
        }
        let (count, bytes) = (1 + self.below(3) as u32, 5 + self.below(60) as usize);
        records(index, term, count, bytes)
    }
}

/// A history of ours, and what of it was committed, with what a later leader added.
struct Story {
    own: Vec<NewBatch>,
    committed: Vec<NewBatch>,
    /// From here on ours were never committed.
    parting: u64,
}

fn story(dice: &mut Dice) -> Story {
    let count = 8 + dice.below(30);
    let mut term = 1;
    let mut own = Vec::new();
    for index in 0..count {
        term += u64::from(dice.one_in(6));
        own.push(dice.entry(index, term));
    }
    let parting = if dice.one_in(2) { count } else { 1 + dice.below(count) };
    let mut committed = own[..parting as usize].to_vec();
    let more = if dice.one_in(3) { 1 + dice.below(3) } else { count - parting + 3 + dice.below(9) };
    for index in parting..parting + more {
        committed.push(dice.entry(index, term + 1));
    }
    Story { own, committed, parting }
}

fn built(options: &LogOptions, entries: &[NewBatch]) -> (MemoryDisk, Vec<Batch>) {
    let disk = MemoryDisk::new();
    let (log, _) = open(&disk, options.clone());
    for entry in entries {
        append(&log, vec![entry.clone()]).expect("appended");
    }
    let stored = read_good(&log);
    log.close();
    (disk, stored)
}

fn damage(disk: &MemoryDisk, dice: &mut Dice) {
    for _ in 0..=dice.below(4) {
        let paths = segment_paths(disk);
        let Some(path) = paths.get(dice.below(paths.len() as u64) as usize) else { return };
        let len = disk.contents(path).expect("there").len() as u64;
        match dice.below(8) {
            _ if len == 0 => {}
            0..=3 => disk.flip_bit(path, (dice.below(len * 8)) as usize),
            4 => disk.cut(path, dice.below(len) as usize),
            5 => remove_file(disk, path),
            _ => {
                let at = dice.below(len);
                let zeros = vec![0; (1 + dice.below(200)).min(len - at) as usize];
                let file = disk.shared().open(path).expect("opened");
                file.write_at(&[std::io::IoSlice::new(&zeros)], at).expect("written");
                file.sync().expect("synced");
            }
        }
    }
}

/// What a broker asks a peer for, and is given (see `cluster/mend.rs` of the broker).
fn given(
    lacking: &MendReport,
    hole: &Damage,
    in_front: u64,
    peer: &[Batch],
    committed: u64,
) -> Vec<Batch> {
    let lost = lacking.lost_end.filter(|lost| lost.from_index == hole.from_index);
    let (mut in_front, from) = (in_front, hole.from_index.0);
    if from <= committed {
        in_front = 0;
    }
    let end = if lost.is_some() { u64::MAX } else { hole.resume_index.0 + 1 };
    let mut run = Vec::new();
    while run.is_empty() {
        let first = from.saturating_sub(in_front).max(lacking.first.0.max(committed).min(from));
        let range = first..end;
        run = peer.iter().filter(|b| range.contains(&b.header.index.0)).cloned().collect();
        if first <= lacking.first.0.max(committed) || from <= committed {
            break;
        }
        in_front = 2 * in_front.max(1);
    }
    let enough = |batch: &Batch| {
        lost.is_some_and(|lost| {
            (batch.header.term, batch.header.index) >= (lost.term, lost.upto_index)
        })
    };
    let count = run.iter().position(enough).map_or(run.len(), |at| at + 1);
    run.truncate(count);
    run
}

/// Mends until nothing is lacking; how often it was tried, or why it cannot be done.
fn mended(disk: &MemoryDisk, peer: &[Batch], committed: u64) -> Result<(), MendError> {
    let with = |runs: &[Vec<Batch>]| mend(disk, dir(), runs, RaftIndex(committed));
    let mut in_front = 1;
    for tries in 0.. {
        let lacking = with(&[])?;
        if lacking.left.is_empty() {
            break;
        }
        let runs = lacking.left.iter().enumerate().map(|(place, hole)| {
            given(&lacking, hole, if place == 0 { in_front } else { 1 }, peer, committed)
        });
        let runs: Vec<_> = runs.collect();
        match with(&runs) {
            Ok(done) if !done.mended.is_empty() => in_front = 1,
            Err(MendError::Differs(_)) => in_front *= 2,
            Err(error) if tries > TRIES => return Err(error),
            Ok(_) | Err(_) => assert!(tries < 2 * TRIES, "nothing is refused, and nothing done"),
        }
    }
    Ok(())
}

fn check(seed: u64, with_crashes: bool) -> bool {
    let mut dice = Dice::of(seed);
    let options =
        LogOptions { segment_bytes: 500 + dice.below(600), preallocate_bytes: 512, ..small() };
    let Story { own, committed, parting } = story(&mut dice);
    let (disk, own) = built(&options, &own);
    let (_, peer) = built(&options, &committed);
    if dice.one_in(2) {
        let (log, _) = open(&disk, options.clone());
        compress(&log).expect("compressed");
        log.close();
    }
    let known = dice.below(parting + 1);
    let mut start = 0;
    if known > 0 && dice.one_in(3) {
        let upto = dice.below(known);
        let (log, _) = open(&disk, options.clone());
        purge(&log, upto).expect("purged");
        log.close();
        start = upto as usize + 1;
    }
    damage(&disk, &mut dice);
    open(&disk, options.clone()).0.close();
    let mut disk = disk.kill();
    if with_crashes {
        for round in 0..3 {
            disk.stop_after(dice.below(40) as usize);
            let _ = mended(&disk, &peer, known);
            disk = disk.crash(seed + round);
        }
    }
    match mended(&disk, &peer, known) {
        Ok(()) => {}
        // The peer has less than was lost, and nothing of it differs: it is waited for.
        Err(
            MendError::FallsShort { .. } | MendError::NoHole(_) | MendError::DoesNotFill { .. },
        ) if (peer.len() as u64) < own.len() as u64 + 1 => {
            return false;
        }
        Err(error) => {
            let lacking = mend(&disk, dir(), &[], RaftIndex(known)).expect("read");
            let reaches_over_purge = |hole: &Damage| hole.from_index < lacking.first;
            assert!(lacking.left.iter().any(reaches_over_purge), "seed {seed}: {error}");
            return false;
        }
    }
    let (log, report) = open(&disk, options);
    // What is purged is missed by nobody.
    let is_clean = report.damaged.iter().all(|damage| damage.resume_index.0 <= start as u64);
    assert!(is_clean && report.lost_end.is_none(), "seed {seed}: {report:?}");
    let kept = read_good(&log);
    let kept = &kept[kept.partition_point(|batch| batch.header.index.0 < start as u64)..];
    let is_in = |whole: &[Batch]| whole[start.min(whole.len())..].starts_with(kept);
    assert!(is_in(&own) || is_in(&peer), "seed {seed}: of both a part");
    assert!((start + kept.len()) as u64 >= parting, "seed {seed}: what was committed is there");
    true
}

#[test]
fn damage_of_any_kind_is_mended_with_what_a_peer_has() {
    let mended = (0..300).filter(|seed| check(*seed, false)).count();
    assert!(mended > 260, "{mended}");
}

#[test]
fn so_it_is_with_crashes_in_between() {
    let mended = (0..60).filter(|seed| check(*seed, true)).count();
    assert!(mended > 50, "{mended}");
}
