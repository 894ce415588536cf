//! The backlog: samples that wait for a broker, in the order of their sequences.
//!
//! ```text
//!  push ──► memory ──settle──► spool ──a segment at a time──► sending ──take──► link
//!              └────────────── (no disk) ──────────────────────────────────────►
//! ```
//!
//! A sample goes to disk at once where there is one. While the disk takes nothing (full, gone,
//! never there) samples stay in memory, as many as [`MEMORY_RECORDS_MAX`], and follow as soon as
//! the disk takes them again. What does not fit is lost, the oldest first, and counted.
//!
//! Invariant: sequences in `sending` < those on disk and not in `sending` < those in `memory`.

use std::collections::VecDeque;

use tracing::{info, warn};

use crate::outgoing::Outgoing;
use crate::spool::Spool;

/// Samples kept in memory without a disk: two hours of four samples a second, about 10 MiB.
pub const MEMORY_RECORDS_MAX: usize = 32_768;

/// Samples that no broker was handed yet.
#[derive(Debug)]
pub struct Backlog {
    spool: Option<Spool>,
    sending: VecDeque<Outgoing>,
    memory: VecDeque<Outgoing>,
    lost: u64,
    disk_failing: bool,
}

/// A sample taken out of the backlog.
#[derive(Debug, PartialEq, Eq)]
pub struct Taken {
    /// The sample.
    pub record: Outgoing,
    /// Whether the spool has it and wants to be told when it is done.
    pub spooled: bool,
}

impl Backlog {
    /// A backlog with what the spool holds; without a spool it lives in memory only.
    #[must_use]
    pub fn new(spool: Option<Spool>) -> Self {
        Self {
            spool,
            sending: VecDeque::new(),
            memory: VecDeque::new(),
            lost: 0,
            disk_failing: false,
        }
    }

    /// Adds the newest sample.
    pub fn push(&mut self, record: Outgoing) {
        self.memory.push_back(record);
        self.settle();
        while self.memory.len() > MEMORY_RECORDS_MAX {
            self.memory.pop_front();
            self.count_lost(1);
        }
    }

    /// Takes the oldest sample out.
    pub fn take_oldest(&mut self) -> Option<Taken> {
        if self.sending.is_empty()
            && let Some(spool) = &mut self.spool
        {
            self.sending = spool.load_next().into();
        }
        if let Some(record) = self.sending.pop_front() {
            return Some(Taken { record, spooled: true });
        }
        self.memory.pop_front().map(|record| Taken { record, spooled: false })
    }

    /// Puts back what [`Self::take_oldest`] gave last and nobody could take.
    pub fn put_back(&mut self, taken: Taken) {
        let queue = if taken.spooled { &mut self.sending } else { &mut self.memory };
        queue.push_front(taken.record);
    }

    /// Whether no sample waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sending.is_empty()
            && self.memory.is_empty()
            && !self.spool.as_ref().is_some_and(Spool::has_unloaded)
    }

    /// How many samples wait.
    #[must_use]
    pub fn len(&self) -> u64 {
        let on_disk = self.spool.as_ref().map_or(0, Spool::unloaded);
        on_disk + (self.sending.len() + self.memory.len()) as u64
    }

    /// How many samples no disk has.
    #[must_use]
    pub fn in_memory(&self) -> u64 {
        self.memory.len() as u64
    }

    /// A broker has answered for a spooled sample.
    pub fn done(&mut self, sequence: u64) {
        if let Some(spool) = &mut self.spool {
            spool.done(sequence);
        }
    }

    /// Writes samples to disk that the link holds, so that they survive this process. Answers
    /// whether they are there.
    pub fn keep_sent(&mut self, records: &[Outgoing]) -> bool {
        let Some(spool) = &mut self.spool else { return false };
        let kept = spool.keep_sent(records);
        self.count_evicted();
        self.note_disk(kept)
    }

    /// How many samples were lost since this was asked last.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    fn settle(&mut self) {
        while let (Some(spool), Some(oldest)) = (&mut self.spool, self.memory.front()) {
            let written = spool.append(oldest);
            self.count_evicted();
            if !self.note_disk(written) {
                return;
            }
            self.memory.pop_front();
        }
    }

    /// Says once that the disk fails, and once that it works again.
    fn note_disk(&mut self, written: std::io::Result<()>) -> bool {
        match written {
            Ok(()) => {
                if std::mem::take(&mut self.disk_failing) {
                    info!("the spool takes samples again");
                }
                true
            }
            Err(error) => {
                if !std::mem::replace(&mut self.disk_failing, true) {
                    warn!(
                        "the spool takes no sample ({error}): keeping them in memory, free some space"
                    );
                }
                false
            }
        }
    }

    fn count_evicted(&mut self) {
        let evicted = self.spool.as_mut().map(Spool::take_evicted).unwrap_or_default();
        for segment in evicted {
            let unsent = self.sending.len();
            self.sending.retain(|record| record.sequence > segment.last);
            self.count_lost(segment.unloaded + (unsent - self.sending.len()) as u64);
        }
    }

    fn count_lost(&mut self, lost: u64) {
        if lost > 0 && self.lost == 0 {
            warn!("no room for more samples: the oldest go from now on, and are counted");
        }
        self.lost += lost;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::spool::SPOOL_BYTES_MIN;

    fn record(sequence: u64) -> Outgoing {
        Outgoing {
            sequence,
            topic: "metrics/docker/p/cpu".to_owned(),
            key: "p".to_owned(),
            payload: format!("{{\"ts\":{sequence}}}").into_bytes(),
        }
    }

    fn on(folder: &Path) -> Backlog {
        Backlog::new(Some(Spool::open(folder, SPOOL_BYTES_MIN).expect("opened")))
    }

    fn take_all(backlog: &mut Backlog) -> Vec<(u64, bool)> {
        std::iter::from_fn(|| backlog.take_oldest())
            .map(|taken| (taken.record.sequence, taken.spooled))
            .collect()
    }

    #[test]
    fn samples_come_out_in_order_while_others_come_in() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut backlog = on(folder.path());
        (1..=3).for_each(|n| backlog.push(record(n)));
        assert_eq!(backlog.len(), 3);
        let first = backlog.take_oldest().expect("a sample");
        assert_eq!(first.record.sequence, 1);
        backlog.put_back(first);
        backlog.push(record(4));
        assert_eq!(backlog.len(), 4);
        assert_eq!(take_all(&mut backlog), [(1, true), (2, true), (3, true), (4, true)]);
        assert!(backlog.is_empty());
    }

    #[test]
    fn without_a_disk_memory_keeps_the_newest_and_counts_the_lost() {
        let mut backlog = Backlog::new(None);
        let pushed = MEMORY_RECORDS_MAX as u64 + 10;
        (1..=pushed).for_each(|n| backlog.push(record(n)));
        assert_eq!(backlog.take_lost(), 10);
        assert_eq!(backlog.take_lost(), 0);
        assert_eq!(backlog.take_oldest(), Some(Taken { record: record(11), spooled: false }));
        assert_eq!(backlog.len(), pushed - 11);
    }

    #[test]
    fn a_disk_that_fails_for_a_while_costs_nothing_and_keeps_the_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("spool");
        let mut backlog = on(&place);
        backlog.push(record(1));
        // The segment must be closed for the next sample to need a new file.
        assert_eq!(backlog.take_oldest().map(|taken| taken.record.sequence), Some(1));
        std::fs::rename(&place, folder.path().join("away")).expect("moved");
        backlog.push(record(2));
        backlog.push(record(3));
        assert_eq!(backlog.len(), 2);
        std::fs::rename(folder.path().join("away"), &place).expect("back");
        backlog.push(record(4));
        assert_eq!(take_all(&mut backlog), [(2, true), (3, true), (4, true)]);
        assert_eq!(backlog.take_lost(), 0);
    }

    #[test]
    fn what_is_evicted_under_the_sender_is_counted_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut backlog = on(folder.path());
        (1..=10).for_each(|n| backlog.push(record(n)));
        assert_eq!(backlog.take_oldest().map(|taken| taken.record.sequence), Some(1));
        (11..=3000).for_each(|n| backlog.push(record(n)));
        let left = take_all(&mut backlog);
        assert_eq!(backlog.take_lost() + left.len() as u64, 2999);
        assert_eq!(left.last(), Some(&(3000, true)));
        assert!(left.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0));
    }
}
