//! A broker's disk: a disk in memory, traced, as fast as it is told to be, and lying where a bug
//! is planted.
//!
//! What was not synced may be lost at a crash: see [`MemoryDisk`]. How long a sync takes is not the
//! disk's business in one thread: the log's driver sleeps before each turn ([`Pace`]).

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aklight_common::clock::SharedClock;
use aklight_log::disk::{Disk, DiskFile, DiskLock, MemoryDisk};
use aklight_log::{Log, LogOptions, OpenError, OpenReport};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Duration, sleep};

use crate::dice::Dice;
use crate::plants::Plants;
use crate::trace::Trace;

/// How fast a disk is.
#[derive(Clone)]
pub struct Pace {
    inner: Arc<Mutex<PaceInner>>,
}

struct PaceInner {
    dice: Dice,
    slowest_us: u64,
}

/// A sync of a good disk.
const SYNC_US_MAX: u64 = 4000;

impl Pace {
    /// A good disk's.
    #[must_use]
    pub fn new(seed: u64, broker: u64) -> Self {
        let dice = Dice::named(seed, &format!("pace {broker}"));
        Self { inner: Arc::new(Mutex::new(PaceInner { dice, slowest_us: SYNC_US_MAX })) }
    }

    /// Syncs may take so long from now on; `None` for a good disk.
    pub fn slow_down(&self, slowest_us: Option<u64>) {
        self.inner.lock().slowest_us = slowest_us.unwrap_or(SYNC_US_MAX);
    }

    fn next(&self) -> Duration {
        let mut inner = self.inner.lock();
        let slowest_us = inner.slowest_us;
        // A cache in the disk: often it is as if there were no sync at all.
        let us = if inner.dice.once_in(3) { 0 } else { inner.dice.between(200, slowest_us) };
        Duration::from_micros(us)
    }
}

/// The disk of one broker.
#[derive(Clone)]
pub struct SimDisk {
    under: MemoryDisk,
    broker: u64,
    trace: Trace,
    plants: Plants,
}

impl SimDisk {
    /// A disk that is traced.
    #[must_use]
    pub fn new(under: MemoryDisk, broker: u64, trace: Trace, plants: Plants) -> Self {
        Self { under, broker, trace, plants }
    }

    /// Opens the log in a folder of it; its writer works on the runtime that this is called on.
    ///
    /// # Errors
    /// As [`Log::open_driven`].
    pub fn open_log(
        &self,
        dir: &Path,
        options: LogOptions,
        clock: SharedClock,
        pace: &Pace,
    ) -> Result<(Log, OpenReport), OpenError> {
        let work = Arc::new(Notify::new());
        let wake = {
            let work = work.clone();
            Arc::new(move || work.notify_one())
        };
        let disk = Arc::new(self.clone());
        let (log, report, mut driver) = Log::open_driven(disk, dir, options, clock, wake)?;
        let pace = pace.clone();
        tokio::spawn(async move {
            loop {
                work.notified().await;
                sleep(pace.next()).await;
                if !driver.turn() {
                    return;
                }
            }
        });
        Ok((log, report))
    }

    fn note(&self, what: &str, path: &Path, numbers: [u64; 2]) {
        let name = path.file_name().unwrap_or_default();
        // It holds the number of this process, which is another each time.
        if name != "lock" {
            let name = u64::from(crc32c::crc32c(path.as_os_str().as_encoded_bytes()));
            self.trace.note(what, &[self.broker, name, numbers[0], numbers[1]]);
        }
    }

    fn file(&self, path: &Path, under: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        let (disk, path) = (self.clone(), path.to_owned());
        Arc::new(SimFile { disk, path, under, owes_sync: AtomicBool::new(false) })
    }
}

impl Disk for SimDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.under.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.under.list(dir)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.under.open(path).map(|file| self.file(path, file))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.note("create", path, [0; 2]);
        self.under.create(path).map(|file| self.file(path, file))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.note("remove", path, [0; 2]);
        self.under.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note("rename", to, [0; 2]);
        self.under.rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.note("sync names", dir, [0; 2]);
        self.under.sync_dir(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.under.free_bytes(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        self.under.lock(path)
    }
}

struct SimFile {
    disk: SimDisk,
    path: PathBuf,
    under: Arc<dyn DiskFile>,
    /// The last sync was said to be done, and is done before the next write.
    owes_sync: AtomicBool,
}

impl SimFile {
    fn is(&self, wanted: &str) -> bool {
        self.path.file_name().is_some_and(|name| name == wanted)
    }

    /// Whether a sync of this file is said to be done and never is.
    fn forgets(&self) -> bool {
        self.disk.plants.forgotten_vote && self.is("vote")
    }

    /// Whether a sync of this file is said to be done before it is.
    fn is_early(&self) -> bool {
        let is_segment = self.path.extension().is_some_and(|extension| extension == "log");
        self.disk.plants.early_sync && (is_segment || self.is("committed"))
    }
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        self.under.size()
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.under.read_at(buffer, at)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        let digest = parts.iter().fold(0, |digest, part| crc32c::crc32c_append(digest, part));
        self.disk.note("write", &self.path, [at, u64::from(digest)]);
        if self.owes_sync.swap(false, Ordering::Relaxed) {
            self.under.sync()?;
        }
        self.under.write_at(parts, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.note("sync", &self.path, [0; 2]);
        if self.is_early() {
            self.owes_sync.store(true, Ordering::Relaxed);
        }
        if self.is_early() || self.forgets() { Ok(()) } else { self.under.sync() }
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        self.disk.note("size", &self.path, [bytes, 0]);
        self.under.set_size(bytes)
    }

    fn preallocate(&self, from: u64, bytes: u64) -> io::Result<()> {
        self.disk.note("reserve", &self.path, [from, bytes]);
        self.under.preallocate(from, bytes)
    }
}
