//! Data directories: every batch of every log, and replicas against each other.
//!
//! Each folder `….log` of a directory is read through ([`aklight_log::verify`]): checksums, order,
//! terms, gaps, and the small files. Then the folders of one name, one from each directory, are
//! walked side by side, entry by entry. Two replicas must hold the same at an index when both know
//! it to be committed, and also when their entries are of one term, for a term has one leader.
//! Else a difference is none: what a broker has behind its own committed mark may still be cut off
//! when it meets the others. What one lacks at its end is none either, it may be behind; what it
//! lacks of what it acknowledged was told before.
//!
//! Nothing is written, locked or waited for: the brokers may run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use aklight_broker::replication::committed_index;
use aklight_common::RaftIndex;
use aklight_log::{Disk, Entries, Entry, RealDisk, Verified};
use anyhow::{Context, bail};

use super::findings::Findings;

/// What was looked at.
#[derive(Debug, Default, Clone, Copy)]
pub struct Checked {
    /// Folders of logs.
    pub logs: u64,
    /// Batches in them.
    pub batches: u64,
    /// Records in those.
    pub records: u64,
    /// Bytes of the batches.
    pub bytes: u64,
    /// Entries that were held against those of other directories.
    pub compared: u64,
}

/// One replica of a log.
struct Replica {
    folder: PathBuf,
    verified: Verified,
}

/// Checks these directories.
///
/// # Errors
/// One of them holds no log, or cannot be listed: then nothing is known.
pub fn check(dirs: &[PathBuf], findings: &mut Findings) -> anyhow::Result<Checked> {
    let disk = RealDisk;
    let mut checked = Checked::default();
    let mut groups: BTreeMap<String, Vec<Replica>> = BTreeMap::new();
    for dir in dirs {
        for (name, folder) in logs(dir)? {
            let verified = aklight_log::verify(&disk, &folder)?;
            checked.logs += 1;
            checked.batches += verified.entries;
            checked.records += verified.records;
            checked.bytes += verified.bounds.bytes;
            verified.problems.iter().for_each(|problem| findings.add(problem.to_string()));
            groups.entry(name).or_default().push(Replica { folder, verified });
        }
    }
    for (name, replicas) in &groups {
        if replicas.len() < dirs.len() {
            let lacking = dirs
                .iter()
                .filter(|dir| !replicas.iter().any(|replica| replica.folder.starts_with(dir)));
            lacking.for_each(|dir| findings.add(format!("{} has no {name}", dir.display())));
        }
        checked.compared += compare(&disk, replicas, findings)?;
    }
    Ok(checked)
}

/// The folders of logs in a directory, by name.
fn logs(dir: &Path) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let unreadable = || format!("{} cannot be listed", dir.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        let is_log = path.extension().is_some_and(|extension| extension == "log") && path.is_dir();
        if let (true, Some(name)) = (is_log, path.file_name().and_then(|name| name.to_str())) {
            found.push((name.to_owned(), path));
        }
    }
    if found.is_empty() {
        bail!("{} holds no log: name the data directory of a broker", dir.display());
    }
    found.sort();
    Ok(found)
}

/// Walks replicas side by side; gives at how many indexes entries were held against each other.
fn compare(disk: &dyn Disk, replicas: &[Replica], findings: &mut Findings) -> anyhow::Result<u64> {
    let mut walks = Vec::new();
    for Replica { folder, verified } in replicas {
        let committed = verified.committed.as_ref().and_then(|stored| committed_index(stored));
        walks.push(Walk::open(disk, folder, committed)?);
    }
    let (mut compared, mut differing) = (0, 0);
    let mut first_difference = None;
    while let Some(index) = walks.iter().filter_map(Walk::index).min() {
        let here: Vec<_> = walks.iter().filter_map(|walk| walk.at(index)).collect();
        compared += u64::from(here.len() > 1);
        if let Some((one, other)) = conflict(&here) {
            differing += 1;
            first_difference.get_or_insert_with(|| {
                let (here, there) = (one.folder.display(), other.folder.display());
                let (one, other) = (told(&one.entry), told(&other.entry));
                format!("entry {index} is {one} in {here}, and {other} in {there}")
            });
        }
        walks.iter_mut().filter(|walk| walk.index() == Some(index)).for_each(Walk::step);
    }
    if let Some(text) = first_difference {
        let more = differing - 1;
        findings.add(format!("{text}; {more} more entries differ there"));
    }
    Ok(compared)
}

/// An entry of one replica.
#[derive(Clone, Copy)]
struct Held<'a> {
    folder: &'a Path,
    entry: Entry,
    /// Whether the replica knows it to be committed.
    is_committed: bool,
}

/// Two replicas that must hold the same at one index, and do not.
fn conflict<'h>(here: &'h [Held<'h>]) -> Option<(&'h Held<'h>, &'h Held<'h>)> {
    here.iter().enumerate().find_map(|(n, one)| {
        let other = here[n + 1..].iter().find(|other| {
            let both = one.is_committed && other.is_committed;
            one.entry != other.entry && (both || one.entry.term == other.entry.term)
        })?;
        Some((one, other))
    })
}

fn told(entry: &Entry) -> String {
    format!(
        "{:?} of term {} with offsets {} to {} (not included), {} bytes, crc32c {:08x}",
        entry.kind,
        entry.term,
        entry.base_offset,
        entry.end_offset(),
        entry.body_bytes,
        entry.body_crc
    )
}

/// A walk that stands on an entry. What is damaged was told when the folder was verified.
struct Walk<'a> {
    folder: &'a Path,
    committed: Option<RaftIndex>,
    entries: Entries<'a>,
    entry: Option<Entry>,
}

impl<'a> Walk<'a> {
    fn open(
        disk: &'a dyn Disk,
        folder: &'a Path,
        committed: Option<RaftIndex>,
    ) -> anyhow::Result<Self> {
        let entries = Entries::open(disk, folder)?;
        let mut walk = Self { folder, committed, entries, entry: None };
        walk.step();
        Ok(walk)
    }

    fn index(&self) -> Option<RaftIndex> {
        self.entry.map(|entry| entry.index)
    }

    fn at(&self, index: RaftIndex) -> Option<Held<'_>> {
        let entry = self.entry.filter(|entry| entry.index == index)?;
        let is_committed = self.committed.is_some_and(|committed| index <= committed);
        Some(Held { folder: self.folder, entry, is_committed })
    }

    fn step(&mut self) {
        self.entry = self.entries.by_ref().find_map(Result::ok);
    }
}

#[cfg(test)]
mod tests {
    use aklight_common::{Offset, Term};
    use aklight_log::BatchKind;

    use super::*;

    fn held(term: u64, body_crc: u32, is_committed: bool) -> Held<'static> {
        let entry = Entry {
            index: RaftIndex(7),
            term: Term(term),
            kind: BatchKind::Records,
            base_offset: Offset(3),
            records: 1,
            body_bytes: 9,
            body_crc,
        };
        Held { folder: Path::new("x"), entry, is_committed }
    }

    #[test]
    fn only_what_can_be_cut_off_may_differ() {
        let differ = |here: &[Held<'_>]| conflict(here).is_some();
        assert!(!differ(&[held(1, 1, true), held(1, 1, false), held(1, 1, true)]));
        assert!(!differ(&[held(3, 1, false), held(4, 2, true), held(4, 2, true)]));
        assert!(!differ(&[held(3, 1, false), held(4, 2, false)]), "neither is committed");
        assert!(differ(&[held(3, 1, true), held(9, 9, false), held(4, 2, true)]));
        assert!(differ(&[held(3, 1, false), held(4, 2, true), held(3, 2, false)]), "one leader");
        assert!(!differ(&[held(3, 1, true)]));
    }
}
