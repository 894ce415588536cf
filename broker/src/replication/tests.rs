//! openraft's own storage suite, run against the segmented log on a real disk.

use std::io;
use std::sync::Arc;

use aklight_common::Offset;
use aklight_common::clock::SystemClock;
use aklight_log::{Log, LogOptions, RealDisk};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

use super::log_store::LogStore;
use super::state_machine::{Committed, Machine, StateMachine};
use super::types::Types;

/// A machine without a state: the suite looks at logs, votes, memberships and snapshots.
struct Nothing;

impl Machine for Nothing {
    fn apply(&self, _entry: &Committed<'_>) -> io::Result<()> {
        Ok(())
    }

    fn lose(&self, _upto: Offset) {}

    fn checkpoint(&self) -> io::Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn restore(&self, _next_offset: Offset, _checkpoint: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

struct OnDisk;

impl StoreBuilder<Types, LogStore, StateMachine, tempfile::TempDir> for OnDisk {
    async fn build(
        &self,
    ) -> Result<(tempfile::TempDir, LogStore, StateMachine), StorageError<Types>> {
        let folder = tempfile::tempdir().expect("a folder");
        let (log, _) = Log::open(
            RealDisk::shared(),
            &folder.path().join("partition_0.log"),
            LogOptions::default(),
            SystemClock::shared(),
        )
        .expect("an empty log opens");
        let state = StateMachine::open(Arc::new(Nothing), log.clone()).expect("opens");
        Ok((folder, LogStore::new(log, state.clone()), state))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openrafts_storage_suite_passes_on_the_segmented_log() {
    Suite::test_all(OnDisk).await.expect("the suite passes");
}
