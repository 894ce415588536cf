//! Random operations, crashes and faults against the plainest log there is: a `Vec`.
//!
//! The model knows what was acknowledged and what was only asked for. After every crash the log
//! must hold all of the first and a prefix of the second, with dense offsets, and must not call
//! any of it damage.
//!
//! Where acknowledged means written, a loss of power takes what came after the last sync: any part of
//! it. Then the log must hold what came before, and name what it knows to be lost, and be whole again
//! with what another broker has of that.

mod support;

use std::io;
use std::time::Duration;

use aklight_common::{Offset, RaftIndex, Term};
use aklight_log::{
    Batch, BatchHeader, BatchKind, Damage, Fsync, Log, LogOptions, MemoryDisk, NewBatch, mend,
};
use proptest::prelude::*;
use support::*;

#[derive(Debug, Clone)]
enum Step {
    /// Appended and waited for: (records, payload bytes) of each batch.
    Append(Vec<(u32, usize)>),
    /// Truncated to a part of the kept entries, in 256ths.
    Truncate(u8),
    /// Purged up to a part of the kept entries, in 256ths.
    Purge(u8),
    PurgePast(u8),
    Vote(u8),
    /// Every sealed segment is compressed, as far as that saves something.
    Compress,
    Reopen,
    Kill,
    Crash(u64),
    /// The power goes, without a checkpoint before it.
    Lose(u64),
    /// Appended, and the power goes before anything is acknowledged.
    AppendAndCrash(Vec<(u32, usize)>, u64),
    /// The n-th disk operation of a kind fails; then the power goes, or only the process.
    Fault {
        kind: &'static str,
        after: usize,
        work: Box<Step>,
        crash: Option<u64>,
    },
}

fn appended() -> impl Strategy<Value = Vec<(u32, usize)>> {
    prop::collection::vec((0_u32..4, 0_usize..300), 1..6)
}

fn changing() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => appended().prop_map(Step::Append),
        1 => any::<u8>().prop_map(Step::Truncate),
        1 => any::<u8>().prop_map(Step::Purge),
        1 => any::<u8>().prop_map(Step::PurgePast),
        1 => any::<u8>().prop_map(Step::Vote),
        1 => Just(Step::Compress),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop::sample::select(vec![
        "write",
        "sync",
        "create",
        "remove",
        "rename",
        "size",
        "reserve",
        "sync names",
    ]);
    let fault = (kind, 0_usize..4, changing(), prop::option::of(any::<u64>())).prop_map(
        |(kind, after, work, crash)| Step::Fault { kind, after, work: Box::new(work), crash },
    );
    prop_oneof![
        8 => changing(),
        1 => Just(Step::Reopen),
        1 => Just(Step::Kill),
        2 => any::<u64>().prop_map(Step::Crash),
        3 => any::<u64>().prop_map(Step::Lose),
        3 => (appended(), any::<u64>()).prop_map(|(batches, seed)| Step::AppendAndCrash(batches, seed)),
        3 => fault,
    ]
}

/// What the log should hold.
#[derive(Debug, Default, Clone, PartialEq)]
struct Model {
    /// From entry 0 on, purged ones included.
    entries: Vec<NewBatch>,
    /// How many of them are purged.
    purged: usize,
    vote: Option<Vec<u8>>,
    term: u64,
}

impl Model {
    fn next(&self, shapes: &[(u32, usize)]) -> Vec<NewBatch> {
        let first = self.entries.len() as u64;
        let new = shapes.iter().zip(first..).map(|((count, payload), index)| match count {
            0 => blank(index, self.term),
            _ => records(index, self.term, *count, *payload),
        });
        new.collect()
    }

    fn offset_before(&self, entry: usize) -> Offset {
        Offset(self.entries[..entry].iter().map(|batch| u64::from(batch.records)).sum())
    }

    /// The entries that are kept, as another broker has them.
    fn batches(&self) -> Vec<Batch> {
        let batch = |at: usize| {
            let NewBatch { index, term, kind, records, first_time_us, last_time_us, body } =
                self.entries[at].clone();
            let (base_offset, body_len) = (self.offset_before(at), body.len() as u32);
            let header = BatchHeader {
                index,
                term,
                kind,
                base_offset,
                records,
                first_time_us,
                last_time_us,
                body_len,
            };
            Batch { header, body }
        };
        (self.purged..self.entries.len()).map(batch).collect()
    }

    /// The entries that a step may take away or forget, as a place between purged and end.
    fn place(&self, part: u8) -> usize {
        self.purged + (self.entries.len() - self.purged) * usize::from(part) / 256
    }
}

/// The log and the disk it is on.
struct World {
    disk: MemoryDisk,
    log: Log,
    options: LogOptions,
    /// How many entries no loss of power can take.
    durable: usize,
}

impl World {
    fn on(disk: MemoryDisk, options: LogOptions, durable: usize) -> Self {
        let (log, report) = open(&disk, options.clone());
        assert!(report.damaged.is_empty(), "{:?}", report.damaged);
        assert!(!report.hint_lost);
        Self { disk, log, options, durable }
    }

    fn check(&self, model: &Model) {
        let bounds = self.log.bounds();
        assert_eq!(first_index(&bounds), RaftIndex(model.purged as u64));
        assert_eq!(bounds.last.map_or(0, |last| last.1.0 + 1), model.entries.len() as u64);
        assert_eq!(bounds.start_offset, model.offset_before(model.purged));
        assert_eq!(bounds.end_offset, model.offset_before(model.entries.len()));
        let read = read_good(&self.log);
        assert_eq!(read.len(), model.entries.len() - model.purged);
        for (place, batch) in (model.purged..).zip(&read) {
            assert!(is_same(batch, &model.entries[place]), "entry {place}");
            assert_eq!(batch.header.base_offset, model.offset_before(place));
        }
        let by_offset = self
            .log
            .read_offsets(bounds.start_offset, bounds.end_offset, usize::MAX)
            .expect("readable");
        let counted: u64 = by_offset.iter().map(|batch| u64::from(batch.header.records)).sum();
        assert_eq!(counted, bounds.end_offset.0 - bounds.start_offset.0);
        assert_eq!(self.log.read_vote().expect("readable"), model.vote);
    }

    /// Opens what a crash left and takes the one of `possible` that it must be.
    fn settle(&mut self, disk: MemoryDisk, possible: &[Model]) -> Model {
        self.log.close();
        *self = Self::on(disk, self.options.clone(), self.durable);
        let bounds = self.log.bounds();
        let end = bounds.last.map_or(0, |last| last.1.0 + 1);
        let vote = self.log.read_vote().expect("readable");
        let found = possible.iter().find(|model| {
            model.entries.len() as u64 == end
                && model.purged as u64 == first_index(&bounds).0
                && model.vote == vote
        });
        let Some(found) = found else {
            let known: Vec<_> =
                possible.iter().map(|m| (m.purged, m.entries.len(), m.vote.clone())).collect();
            panic!("{bounds:?}, vote {vote:?} is none of {known:?}");
        };
        self.check(found);
        found.clone()
    }

    /// Does a step; answers with the model after it, and whether it was acknowledged.
    fn work(&self, step: &Step, model: &Model) -> (Model, io::Result<()>) {
        let mut after = model.clone();
        let done = match step {
            Step::Append(shapes) => {
                let batches = model.next(shapes);
                after.entries.extend(batches.iter().cloned());
                append(&self.log, batches)
            }
            Step::Truncate(part) => {
                let kept = model.place(*part);
                after.entries.truncate(kept);
                after.term += 1;
                truncate(&self.log, (kept as u64).checked_sub(1))
            }
            Step::Purge(part) if model.place(*part) > model.purged => {
                after.purged = model.place(*part);
                purge(&self.log, after.purged as u64 - 1)
            }
            Step::PurgePast(more) => {
                let upto = model.entries.len() + usize::from(*more % 8);
                // The records that a snapshot stands for are not in the log; their offsets count.
                let stood_for = |n: usize| NewBatch {
                    records: u32::from(*more / 8),
                    kind: BatchKind::Records,
                    ..blank(n as u64, 0)
                };
                if *more % 2 == 0 {
                    // And what was not committed here had other records than what was.
                    after.entries.truncate(model.purged);
                }
                after.entries.extend((after.entries.len()..=upto).map(stood_for));
                after.purged = upto + 1;
                let end_offset = Some(after.offset_before(upto + 1));
                let (term, upto) = (Term(model.term), RaftIndex(upto as u64));
                wait(|done| self.log.purge_to(term, upto, end_offset, done))
            }
            Step::Vote(vote) => {
                after.vote = Some(vec![*vote; 17]);
                wait(|done| self.log.save_vote(vec![*vote; 17], done))
            }
            Step::Compress => compress(&self.log).map(|_| ()),
            _ => Ok(()),
        };
        (after, done)
    }

    /// Opens what a loss of power left: the model up to some entry. What is told to be missing up to
    /// that is given by another broker.
    fn lose(&mut self, seed: u64, mut model: Model) -> Model {
        let disk = self.disk.crash(seed);
        self.log.close();
        let (log, report) = open(&disk, self.options.clone());
        assert!(!report.hint_lost);
        let end = log.bounds().last.map_or(0, |last| last.1.0 as usize + 1);
        log.close();
        assert!((self.durable..=model.entries.len()).contains(&end), "{end} of {}", self.durable);
        model.entries.truncate(end);
        if !report.damaged.is_empty() {
            let batches = model.batches();
            let run = |hole: &Damage| -> Vec<Batch> {
                let range = hole.from_index.0.saturating_sub(1)..=hole.resume_index.0;
                batches.iter().filter(|b| range.contains(&b.header.index.0)).cloned().collect()
            };
            let lacking = mend(&disk, dir(), &[], RaftIndex(0)).expect("read through");
            let runs: Vec<_> = lacking.left.iter().map(run).collect();
            let mended = mend(&disk, dir(), &runs, RaftIndex(0)).expect("mended");
            assert_eq!((mended.left, mended.lost_end), (Vec::new(), None), "{:?}", report.damaged);
        }
        // Who comes back after that leads in a new term only.
        model.term += 1;
        self.settle(disk, &[model])
    }

    fn syncs_later(&self) -> bool {
        self.options.fsync != Fsync::Always
    }

    /// Where acknowledged means written, a checkpoint makes it durable, and with it what was found at the
    /// start.
    fn make_durable(&self) {
        if self.syncs_later() {
            self.log.save_checkpoint(RaftIndex(0), Vec::new()).expect("no fault was ordered");
        }
    }

    /// Runs a step, and notes what is durable behind it.
    fn run(&mut self, step: &Step, model: Model) -> Model {
        let before = model.clone();
        let after = self.step(step, model);
        let goes_on = after.purged == before.purged && after.entries.starts_with(&before.entries);
        // What takes something away syncs what is left, and so does whoever starts on a cut.
        let syncs = matches!(
            step,
            Step::Reopen | Step::Crash(_) | Step::Lose(_) | Step::AppendAndCrash(..)
        );
        if syncs || !goes_on || !self.syncs_later() {
            self.durable = after.entries.len();
        }
        after
    }

    fn step(&mut self, step: &Step, model: Model) -> Model {
        match step {
            Step::Lose(seed) if self.syncs_later() => self.lose(*seed, model),
            Step::Lose(seed) => self.step(&Step::Crash(*seed), model),
            Step::Reopen => {
                self.log.close();
                self.settle(self.disk.clone(), &[model])
            }
            Step::Kill => self.settle(self.disk.kill(), &[model]),
            Step::Crash(seed) => {
                self.make_durable();
                self.settle(self.disk.crash(*seed), &[model])
            }
            Step::AppendAndCrash(shapes, seed) if self.syncs_later() => {
                let model = self.step(&Step::Append(shapes.clone()), model);
                self.step(&Step::Crash(*seed), model)
            }
            Step::AppendAndCrash(shapes, seed) => {
                self.disk.hold_syncs();
                let mut possible = vec![model];
                for shape in shapes {
                    let mut after = possible[possible.len() - 1].clone();
                    let batches = after.next(&[*shape]);
                    after.entries.extend(batches.iter().cloned());
                    self.log.append(batches, Box::new(|_| {})).expect("taken");
                    possible.push(after);
                }
                self.disk.wait_for_held_sync();
                let crashed = self.disk.crash(*seed);
                self.disk.release_syncs();
                self.settle(crashed, &possible)
            }
            Step::Fault { kind, after, work, crash } => {
                self.disk.fail(kind, "", *after, io::ErrorKind::Other);
                let (wanted, done) = self.work(work, &model);
                let possible =
                    if done.is_ok() { vec![wanted] } else { between(work, &model, &wanted) };
                let disk = match crash {
                    Some(seed) if !self.syncs_later() => self.disk.crash(*seed),
                    _ => self.disk.kill(),
                };
                self.settle(disk, &possible)
            }
            _ => {
                let (after, done) = self.work(step, &model);
                done.expect("no fault was ordered");
                self.check(&after);
                after
            }
        }
    }
}

/// What may be found when a step began and was not acknowledged.
fn between(step: &Step, before: &Model, wanted: &Model) -> Vec<Model> {
    let mut possible = vec![before.clone(), wanted.clone()];
    // Appends and truncations may come halfway.
    let (short, long) = match step {
        Step::Append(_) => (before, wanted),
        Step::Truncate(_) => (wanted, before),
        // What takes offsets back truncates first.
        Step::PurgePast(_) => {
            let mut truncated = before.clone();
            truncated.entries.truncate(before.purged);
            for len in before.purged..before.entries.len() {
                possible.push(truncated.clone());
                truncated.entries.push(before.entries[len].clone());
            }
            return possible;
        }
        _ => return possible,
    };
    for len in short.entries.len()..=long.entries.len() {
        let mut model = long.clone();
        model.entries.truncate(len);
        model.term = before.term.max(wanted.term);
        possible.push(model);
    }
    possible
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_acknowledged_survives_and_nothing_else_appears(
        steps in prop::collection::vec(step(), 1..25),
        segment_bytes in 300_u64..3000,
        preallocate_bytes in prop::sample::select(vec![0_u64, 256, 1024]),
        tail_cache_bytes in prop::sample::select(vec![0_usize, 1500]),
        fsync in prop::sample::select(vec![
            Fsync::Always,
            Fsync::Never,
            Fsync::Interval(Duration::ZERO),
        ]),
    ) {
        let options = LogOptions {
            segment_bytes,
            preallocate_bytes,
            tail_cache_bytes,
            fsync,
            ..LogOptions::default()
        };
        let mut world = World::on(MemoryDisk::new(), options, 0);
        let mut model = Model { term: 1, ..Model::default() };
        for step in &steps {
            model = world.run(step, model);
        }
    }
}
