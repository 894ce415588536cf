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
        let (mut holes_max, mut in_front) = (HOLES_MAX, 1);
        // Reads the whole log: once, and again after holes that were filled, however often the
        // others have to be asked.
        let mut lacking = self.write(dir, Vec::new()).await?;
        while !lacking.left.is_empty() {
            let why = match self.fetch(id, &lacking, holes_max, in_front).await {
                Ok(fetched) => {
                    let runs = fetched.iter().map(|filling| filling.batches.clone());
                    match self.write(dir, runs.collect()).await {
                        Ok(done) => {
                            self.tell_mended(id, &fetched, &done);
                            (holes_max, in_front) = (HOLES_MAX, 1);
                            lacking = self.write(dir, Vec::new()).await?;
                            continue;
                        }
                        Err(error @ (MendError::Open(_) | MendError::Io { .. })) => {
                            return Err(error);
                        }
                        Err(error) => {
                            if holes_max == 1 && matches!(error, MendError::Differs(_)) {
                                in_front *= 2;
                            }
                            // Which of them does not fit is not told: one after the other.
                            holes_max = 1;
                            error.to_string()
                        }
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

    /// The entries of the first holes, and some in front of each, from whoever has all of them.
    async fn fetch(
        &self,
        id: GroupId,
        lacking: &MendReport,
        holes_max: usize,
        in_front: u64,
    ) -> Result<Vec<Filling>, String> {
        let (mut fetched, mut bytes) = (Vec::new(), 0);
        let mut why = "no other broker is known".to_owned();
        for hole in &lacking.left {
            if bytes >= FETCH_BYTES || fetched.len() >= holes_max {
                break;
            }
            let lost_end = lacking.lost_end.filter(|lost| lost.from_index == hole.from_index);
            let from = hole.from_index.0.saturating_sub(in_front).max(lacking.first.0);
            let wanted = Wanted { from, upto: hole.resume_index.0, lost_end };
            let mut filling = None;
            for peer in self.peers.others() {
                match self.fetch_from(peer.id, id, wanted).await {
                    Ok(batches) => {
                        filling = Some(Filling { hole: hole.clone(), from: peer.id, batches });
                        break;
                    }
                    Err(error) => why = format!("broker {} {error}", peer.id),
                }
            }
            // Nobody has it now: the next would make everybody wait as long again.
            let Some(filling) = filling else { break };
            bytes += filling.batches.iter().map(|batch| batch.body.len()).sum::<usize>();
            fetched.push(filling);
        }
        if fetched.is_empty() { Err(why) } else { Ok(fetched) }
    }

    async fn fetch_from(
        &self,
        from: BrokerId,
        id: GroupId,
        wanted: Wanted,
    ) -> Result<Vec<Batch>, PeerError> {
        let Wanted { from: first, upto, lost_end } = wanted;
        // With the one behind the hole, if it is committed.
        let end = if lost_end.is_some() { u64::MAX } else { upto + 1 };
        let mut batches: Vec<Batch> = Vec::new();
        loop {
            let next = batches.last().map_or(first, |last| last.header.index.0 + 1);
            if next >= end || lost_end.is_some_and(|lost| makes_up(&batches, lost)) {
                return Ok(batches);
            }
            let body = to_json(&EntriesWanted { from: next, to: end })?;
            let answer = self.peers.call(from, id, Kind::Entries, body, ANSWER_WAIT).await?;
            let more = decode_entries(answer).map_err(|e| PeerError::Refused(e.to_string()))?;
            if more.is_empty() && lost_end.is_none() && next >= upto {
                return Ok(batches);
            }
            if more.is_empty() {
                return Err(PeerError::Refused(format!(
                    "knows nothing committed from entry {next} on yet"
                )));
            }
            batches.extend(more);
            if let Some(lost) = lost_end {
                let enough = (1..=batches.len()).find(|n| makes_up(&batches[..*n], lost));
                batches.truncate(enough.unwrap_or(batches.len()));
            }
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

/// The entries that are asked for.
#[derive(Clone, Copy)]
struct Wanted {
    /// The first of them: one that the log still has, where there is one before the hole.
    from: u64,
    /// The first behind the hole.
    upto: u64,
    /// The hole is the log's end, and others may have come in place of what was there.
    lost_end: Option<LostEnd>,
}

/// What fills a hole, and who gave it.
struct Filling {
    hole: Damage,
    from: BrokerId,
    batches: Vec<Batch>,
}

/// Whether a log that ends with these entries is at least as up to date, in Raft's sense, as the
/// one that was lost.
fn makes_up(batches: &[Batch], lost: LostEnd) -> bool {
    batches
        .last()
        .is_some_and(|last| (last.header.term, last.header.index) >= (lost.term, lost.upto_index))
}
