//! What this broker's disk has lost is asked of the others, before its copy takes part again.
//!
//! A log that opened around damage, or that is shorter than what it once acknowledged, is closed
//! again, and its copy stays out of every vote: elected with a hole it would lead with less than
//! was promised. Each hole's entries are fetched from a broker that knows them to be committed
//! (committed entries are the same everywhere), with the one before it, which tells whether the two
//! logs are the same up to there. They are written into their place, and the log is opened anew. The
//! damaged bytes stay beside it as evidence.
//!
//! Left out: a hole whose entries nobody keeps any more. Such a copy is begun anew, under a new
//! number (`aklight cluster replace`).

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aklight_common::{BrokerId, RaftIndex};
use aklight_log::{Batch, Damage, Disk, LostEnd, MendError, MendReport};
use tokio::time::{Instant, sleep};

use super::door::{EntriesWanted, to_json};
use crate::events::Events;
use crate::replication::{GroupId, Kind, PeerError, Peers, decode_entries, off_the_runtime};

/// Longest wait for one answer: some MiB from another broker's disk.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Pause between two rounds of asking.
const PAUSE: Duration = Duration::from_millis(500);

/// Bytes of entries that are fetched before they are written: each writing reads the whole log and
/// writes every damaged segment anew, so many holes are filled at once.
const FETCH_BYTES: usize = 32 << 20;

/// Most holes that are filled at once, for the same reason: of a disk with thousands of bad places
/// some are mended soon.
const HOLES_MAX: usize = 1000;

/// How often a broker that cannot mend says what it waits for.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Mends closed logs.
pub struct Mender<'a> {
    /// Where they lie.
    pub disk: &'a Arc<dyn Disk>,
    /// Who may have what is lost.
    pub peers: &'a Peers,
    /// Who is told.
    pub events: &'a Events,
    /// The first entry that is not known here to be committed.
    pub committed: RaftIndex,
}

impl Mender<'_> {
    /// Mends the log of a group, however long the others take to answer.
    ///
    /// # Errors
    /// When this broker's own disk refuses.
    pub async fn mend(&self, id: GroupId, dir: &Path) -> Result<(), MendError> {
        let mut told_at: Option<Instant> = None;
        // How many entries in front of the first hole are asked for, to find where the logs part.
        let mut in_front = 1;
        // What was of no use, and why; the whole log is not read again for the same.
        let mut useless = None;
        // Reads the whole log: once, and again after holes that were filled, however often the
        // others have to be asked.
        let mut lacking = self.write(dir, Vec::new()).await?;
        while !lacking.left.is_empty() {
            let why = match self.fetch(id, &lacking, in_front).await {
                Ok(fetched) => {
                    let given = (in_front, fetched[0].hole.clone(), fetched[0].upto());
                    match &useless {
                        Some((known, why)) if *known == given => String::clone(why),
                        _ => match self.try_filling(id, dir, &fetched).await? {
                            Filled::Some => {
                                (in_front, useless) = (1, None);
                                lacking = self.write(dir, Vec::new()).await?;
                                continue;
                            }
                            Filled::AskFurtherInFront => {
                                in_front = in_front.saturating_mul(2);
                                continue;
                            }
                            Filled::None(why) => {
                                useless = Some((given, why.clone()));
                                // An opening may find less than the one before.
                                lacking = self.write(dir, Vec::new()).await?;
                                why
                            }
                        },
                    }
                }
                Err(why) => why,
            };
            let now = Instant::now();
            if told_at.is_none_or(|at| now.duration_since(at) >= TELL_EVERY) {
                told_at = Some(now);
                self.events.warn(
                    "mend",
                    format!(
                        "{id} is damaged here and takes no part until another broker gives what is lost: {why}; if that never comes, replace this broker: aklight cluster replace {0} NEW@HOST:PORT",
                        self.peers.me()
                    ),
                );
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Fills holes with what the others gave, if it is of use.
    async fn try_filling(
        &self,
        id: GroupId,
        dir: &Path,
        fetched: &[Filling],
    ) -> Result<Filled, MendError> {
        let runs = fetched.iter().map(|filling| filling.batches.clone());
        match self.write(dir, runs.collect()).await {
            Ok(done) if !done.mended.is_empty() => {
                self.tell_mended(id, fetched, &done);
                Ok(Filled::Some)
            }
            Ok(_) => Ok(Filled::None("what the others gave fills nothing".to_owned())),
            Err(MendError::Differs(_)) => Ok(Filled::AskFurtherInFront),
            Err(error @ (MendError::Open(_) | MendError::Io { .. })) => Err(error),
            Err(_) if !fetched[0].is_whole => {
                let (from, upto) = (fetched[0].from, fetched[0].upto());
                let why = format!("broker {from} knows nothing committed behind entry {upto} yet");
                Ok(Filled::None(why))
            }
            Err(error) => Ok(Filled::None(error.to_string())),
        }
    }

    async fn write(&self, dir: &Path, runs: Vec<Vec<Batch>>) -> Result<MendReport, MendError> {
        let (disk, dir, committed) = (self.disk.clone(), dir.to_owned(), self.committed);
        // The errors of the work itself come back inside.
        let work = move || Ok(aklight_log::mend(&*disk, &dir, &runs, committed));
        let done = off_the_runtime(work).await;
        done.unwrap_or_else(|source| {
            let path = "the log".into();
            Err(MendError::Io { what: "mend", path, source })
        })
    }

    /// The entries of the first holes, from whoever has all of them; of the very first, where nobody
    /// has all, those that are there: they may show that others came in place of what stands here.
    async fn fetch(
        &self,
        id: GroupId,
        lacking: &MendReport,
        in_front: u64,
    ) -> Result<Vec<Filling>, String> {
        let (mut fetched, mut bytes) = (Vec::new(), 0);
        let mut why = "no other broker is known".to_owned();
        // Asked once, not for each hole: an answer is waited for.
        let mut silent = BTreeSet::new();
        for hole in lacking.left.iter().take(HOLES_MAX) {
            let in_front = if fetched.is_empty() { in_front } else { 1 };
            let wanted = self.wanted(lacking, hole, in_front);
            let mut filling: Option<Filling> = None;
            for peer in self.peers.others() {
                if silent.contains(&peer.id) {
                    continue;
                }
                match self.fetch_from(peer.id, id, &wanted).await {
                    Ok(more) if filling.as_ref().is_none_or(|known| known.upto() < more.upto()) => {
                        filling = Some(more);
                    }
                    Ok(_) => {}
                    Err(error) => {
                        if !matches!(error, PeerError::Refused(_)) {
                            silent.insert(peer.id);
                        }
                        why = format!("broker {} {error}", peer.id);
                    }
                }
                if filling.as_ref().is_some_and(|filling| filling.is_whole) {
                    break;
                }
            }
            // Nobody has it now: the next would make everybody wait as long again.
            let Some(filling) = filling.filter(|f| f.is_whole || fetched.is_empty()) else { break };
            bytes += filling.batches.iter().map(|batch| batch.body.len()).sum::<usize>();
            let is_last = !filling.is_whole || bytes >= FETCH_BYTES;
            fetched.push(filling);
            if is_last {
                break;
            }
        }
        if fetched.is_empty() { Err(why) } else { Ok(fetched) }
    }

    fn wanted<'a>(&self, lacking: &MendReport, hole: &'a Damage, in_front: u64) -> Wanted<'a> {
        // What is committed is the same everywhere: nothing in front of it has to be compared.
        let first = lacking.first.max(self.committed).min(hole.from_index);
        Wanted {
            hole,
            lost_end: lacking.lost_end.filter(|lost| lost.from_index == hole.from_index),
            first: first.0,
            from: hole.from_index.0.saturating_sub(in_front).max(first.0),
        }
    }

    /// The entries that are wanted, as far as another broker has them; those further in front, where
    /// it has none of these.
    async fn fetch_from(
        &self,
        peer: BrokerId,
        id: GroupId,
        wanted: &Wanted<'_>,
    ) -> Result<Filling, PeerError> {
        let Wanted { hole, first, .. } = *wanted;
        let mut from = wanted.from;
        loop {
            let batches = self.entries_of(peer, id, wanted, from).await?;
            if !batches.is_empty() {
                let is_whole = wanted.has_all(&batches);
                return Ok(Filling { hole: hole.clone(), from: peer, batches, is_whole });
            }
            if from == first {
                return Err(PeerError::Refused(format!(
                    "knows nothing committed from entry {from} on yet"
                )));
            }
            let in_front = hole.from_index.0 - from;
            from = hole.from_index.0.saturating_sub(2 * in_front.max(1)).max(first);
        }
    }

    async fn entries_of(
        &self,
        peer: BrokerId,
        id: GroupId,
        wanted: &Wanted<'_>,
        from: u64,
    ) -> Result<Vec<Batch>, PeerError> {
        let mut batches: Vec<Batch> = Vec::new();
        loop {
            let next = batches.last().map_or(from, |last| last.header.index.0 + 1);
            if next >= wanted.end() || wanted.has_end(&batches) {
                return Ok(batches);
            }
            let body = to_json(&EntriesWanted { from: next, to: wanted.end() })?;
            let answer = match self.peers.call(peer, id, Kind::Entries, body, ANSWER_WAIT).await {
                // The one behind the hole may be damaged there, and is not needed.
                Err(_) if wanted.has_all(&batches) => return Ok(batches),
                answer => answer?,
            };
            let more = decode_entries(answer).map_err(|e| PeerError::Refused(e.to_string()))?;
            if more.is_empty() {
                return Ok(batches);
            }
            batches.extend(more);
            let enough = (1..=batches.len()).find(|n| wanted.has_end(&batches[..*n]));
            batches.truncate(enough.unwrap_or(batches.len()));
        }
    }

    fn tell_mended(&self, id: GroupId, fetched: &[Filling], done: &MendReport) {
        if let Some(index) = done.replaced {
            let text = format!(
                "{id}: entries from {index} on were never committed, and others came in their place while this broker was away: they are gone"
            );
            self.events.info("mend", text);
        }
        for hole in &done.mended {
            let Some(filling) = fetched.iter().find(|filling| filling.hole == *hole) else {
                continue;
            };
            self.events.info(
                "mend",
                format!(
                    "{id}: {} is whole again: offsets {} to {} (the last not included), from broker {}; the damaged bytes are kept in {}",
                    hole.segment.display(),
                    hole.from,
                    hole.resume,
                    filling.from,
                    hole.file.display(),
                ),
            );
        }
    }
}

/// What came of entries that were given.
enum Filled {
    /// Holes are filled.
    Some,
    /// The two logs part further in front.
    AskFurtherInFront,
    /// Nothing, and why.
    None(String),
}

/// The entries that are asked for.
struct Wanted<'a> {
    hole: &'a Damage,
    /// The hole is the log's end, and others may have come in place of what was there.
    lost_end: Option<LostEnd>,
    /// The first of the log, before which nothing can be compared.
    first: u64,
    /// The first that is asked for: one that the log still has, where there is one before the hole.
    from: u64,
}

impl Wanted<'_> {
    /// Where it ends: with the one behind the hole, if that is committed.
    fn end(&self) -> u64 {
        if self.lost_end.is_some() { u64::MAX } else { self.hole.resume_index.0 + 1 }
    }

    /// Whether a log that ends with these entries is at least as up to date, in Raft's sense, as the
    /// one that was lost.
    fn has_end(&self, batches: &[Batch]) -> bool {
        let last = batches.last().map(|batch| batch.header);
        self.lost_end
            .zip(last)
            .is_some_and(|(lost, last)| (last.term, last.index) >= (lost.term, lost.upto_index))
    }

    /// Whether nothing of the hole is left out.
    fn has_all(&self, batches: &[Batch]) -> bool {
        let next = batches.last().map(|batch| batch.header.index.next());
        match self.lost_end {
            Some(_) => self.has_end(batches),
            None => next >= Some(self.hole.resume_index),
        }
    }
}

/// What fills a hole, and who gave it.
struct Filling {
    hole: Damage,
    from: BrokerId,
    /// At least one.
    batches: Vec<Batch>,
    is_whole: bool,
}

impl Filling {
    fn upto(&self) -> RaftIndex {
        self.batches.last().map_or(RaftIndex(0), |batch| batch.header.index)
    }
}
