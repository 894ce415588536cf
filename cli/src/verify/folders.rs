//! Data directories: every batch of every log, and replicas against each other.
//!
//! Each folder `….log` of a directory is read through ([`aklight_log::verify`]): checksums, order,
//! terms, gaps, and the small files. Then the folders of one name, one from each directory, are
//! walked side by side, entry by entry, over what all of them hold and at least one knows to be
//! committed: up to there they must hold the same. What one lacks at its end is no difference, it
//! may be behind; what it lacks of what it acknowledged was told before.
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

/// Walks replicas side by side; gives how many entries were held against each other.
fn compare(disk: &dyn Disk, replicas: &[Replica], findings: &mut Findings) -> anyhow::Result<u64> {
    let committed =
        replicas.iter().filter_map(|r| committed_index(r.verified.committed.as_ref()?)).max();
    let (Some(committed), true) = (committed, replicas.len() > 1) else { return Ok(0) };
    let mut walks = Vec::new();
    for Replica { folder, .. } in replicas {
        walks.push((folder, Walk::open(disk, folder)?));
    }
    let (mut compared, mut differing) = (0, 0);
    let mut first_difference = None;
    // To the next index that all of them hold, until one is at its end.
    while let Some(index) = walks.iter().map(|(_, walk)| walk.index()).max().flatten()
        && index <= committed
        && walks.iter().all(|(_, walk)| walk.entry.is_some())
    {
        walks.iter_mut().for_each(|(_, walk)| walk.advance_to(index));
        let here: Vec<_> = walks.iter().filter_map(|(f, walk)| Some((f, walk.entry?))).collect();
        let all_here = here.len() == walks.len() && here.iter().all(|(_, e)| e.index == index);
        if !all_here {
            continue;
        }
        compared += 1;
        let (one, entry) = here[0];
        if let Some((other, differs)) = here.iter().find(|(_, e)| *e != entry) {
            differing += 1;
            first_difference.get_or_insert_with(|| {
                format!(
                    "entry {index} is {} in {}, and {} in {}",
                    told(&entry),
                    one.display(),
                    told(differs),
                    other.display()
                )
            });
        }
        walks.iter_mut().for_each(|(_, walk)| walk.advance_to(index.next()));
    }
    if let Some(text) = first_difference {
        let more = differing - 1;
        findings.add(format!("{text}; {more} more committed entries differ there"));
    }
    Ok(compared)
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
    entries: Entries<'a>,
    entry: Option<Entry>,
}

impl<'a> Walk<'a> {
    fn open(disk: &'a dyn Disk, folder: &Path) -> anyhow::Result<Self> {
        let mut walk = Self { entries: Entries::open(disk, folder)?, entry: None };
        walk.step();
        Ok(walk)
    }

    fn index(&self) -> Option<RaftIndex> {
        self.entry.map(|entry| entry.index)
    }

    fn step(&mut self) {
        self.entry = self.entries.by_ref().find_map(Result::ok);
    }

    fn advance_to(&mut self, index: RaftIndex) {
        while self.index().is_some_and(|at| at < index) {
            self.step();
        }
    }
}
