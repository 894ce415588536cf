//! Opening a node's logs, and noting that they are here.
//!
//! Opening waits for the disk and for nobody else. So all logs that are sure to be wanted are opened at
//! once, before it is known how many partitions there are: those that have a folder, and those of a
//! broker alone that begins.

use std::io;
use std::path::Path;
use std::sync::Arc;

use aklight_common::PartitionId;
use aklight_log::{Log, OpenError, OpenReport};
use futures_util::future::{try_join, try_join_all};

use super::{Foundation, NodeError};
use crate::config::PARTITIONS_DEFAULT;
use crate::data_dir::DataDir;
use crate::replication::{GroupId, off_the_runtime};

/// The logs of a node.
pub(super) struct Logs {
    pub(super) metadata: (Log, OpenReport),
    /// From partition 0 on: those that were opened before anybody asked for them.
    pub(super) partitions: Vec<(Log, OpenReport)>,
}

impl Logs {
    /// How many partitions have been here, by those that hold something: a first start that was cut off
    /// before the cluster was created leaves empty logs, and says nothing.
    pub(super) fn partitions_kept(&self) -> u32 {
        let holds = |(log, report): &(Log, OpenReport)| {
            let bounds = log.bounds();
            let is_blank = bounds.last.is_none() && bounds.purged.is_none();
            !is_blank || !report.damaged.is_empty() || report.lost_end.is_some()
        };
        let last = self.partitions.iter().rposition(holds);
        last.map_or(0, |last| u32::try_from(last + 1).unwrap_or(u32::MAX))
    }
}

impl Foundation<'_> {
    /// Opens the metadata's log, and those of partitions that are sure to be wanted.
    pub(super) async fn open_logs(&self, has_others: bool) -> Result<Logs, NodeError> {
        let dir = self.data_dir.metadata();
        let is_new = !has_others && !self.data_dir.holds(&dir);
        let partitions = match self.data_dir.partitions_found() {
            0 if is_new => self.config.partitions.unwrap_or(PARTITIONS_DEFAULT),
            found => found,
        };
        let partitions = (0..partitions).map(PartitionId).map(|id| async move {
            self.open(&GroupId::Partition(id).to_string(), &self.data_dir.partition(id)).await
        });
        let metadata = async { self.open(&GroupId::Metadata.to_string(), &dir).await };
        let (metadata, partitions) = try_join(metadata, try_join_all(partitions)).await?;
        Ok(Logs { metadata, partitions })
    }

    pub(super) async fn open(
        &self,
        name: &str,
        dir: &Path,
    ) -> Result<(Log, OpenReport), NodeError> {
        let open_log = self.environment.open_log.clone();
        let (path, options) = (dir.to_owned(), self.config.log.clone());
        let opened = off_the_runtime(move || Ok(open_log(&path, options))).await;
        let died = |source| OpenError::Io { what: "open", path: dir.to_owned(), source };
        let (log, report) = opened
            .map_err(died)
            .flatten()
            .map_err(|cause| NodeError::Log { name: name.to_owned(), cause })?;
        self.tell(name, &report);
        Ok((log, report))
    }

    /// Tells what opening a log found.
    fn tell(&self, name: &str, report: &OpenReport) {
        for damage in &report.damaged {
            self.events.error(
                "damage",
                format!(
                    "{name}: {} is damaged at byte {} for {} bytes: offsets {} to {} (the last not included) are lost here; what is left of them is in {}",
                    damage.segment.display(),
                    damage.position,
                    damage.bytes,
                    damage.from,
                    damage.resume,
                    damage.file.display(),
                ),
            );
        }
        if let Some(torn) = &report.torn {
            let text = format!(
                "{name}: {} ended in {} bytes of an unfinished write at byte {}, which were cut off; nothing of it was acknowledged",
                torn.segment.display(),
                torn.bytes,
                torn.position
            );
            self.events.info("torn_tail", text);
        }
        if report.hint_lost {
            let text = format!(
                "{name}: the note of how far the log was acknowledged is missing or damaged: a loss at its end could not be told from an unfinished write"
            );
            self.events.warn("damage", text);
        }
    }
}

/// Notes that the log of every partition has been here. Others rely on that from the first vote on; a
/// broker without any goes on at once, and after a crash in between notes it at its next start.
pub(super) fn note_complete(data_dir: &Arc<DataDir>, has_others: bool) -> Result<(), NodeError> {
    if has_others {
        return Ok(data_dir.set_complete()?);
    }
    let noted = data_dir.clone();
    tokio::spawn(async move {
        let note = move || noted.set_complete().map_err(io::Error::other);
        if let Err(error) = off_the_runtime(note).await {
            tracing::warn!(%error, "that every partition's log was here is not noted");
        }
    });
    Ok(())
}
