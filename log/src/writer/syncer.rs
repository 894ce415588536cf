//! The thread that syncs beside the writer.

use std::io;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::disk::DiskFile;

/// Where the result of a sync comes from.
pub(crate) type Told = Receiver<io::Result<()>>;

/// A file to be synced, and who is told.
struct Wanted {
    file: Arc<dyn DiskFile>,
    teller: Sender<io::Result<()>>,
}

/// The thread, as the writer knows it. It ends with the writer.
pub(crate) struct Syncer(Sender<Wanted>);

impl Syncer {
    pub(crate) fn spawn() -> io::Result<Self> {
        let (files, queue) = bounded::<Wanted>(1);
        let sync = move || {
            for Wanted { file, teller } in queue {
                // A writer that has gone asks for nothing.
                let _ = teller.send(file.sync());
            }
        };
        std::thread::Builder::new().name("log syncer".to_owned()).spawn(sync)?;
        Ok(Self(files))
    }

    /// Begins to sync a file. One at a time: nobody waits here.
    pub(super) fn sync(&self, file: Arc<dyn DiskFile>) -> io::Result<Told> {
        let (teller, told) = bounded(1);
        self.0.send(Wanted { file, teller }).map_err(|_| gone())?;
        Ok(told)
    }
}

pub(super) fn gone() -> io::Error {
    io::Error::other("the thread that syncs is gone")
}
