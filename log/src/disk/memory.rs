//! A disk in memory that remembers what was synced, and that can fail: for tests and simulation.
//!
//! Each file is kept twice, as a process sees it and as the platter has it, with the changes
//! that lie between the two; names likewise. [`MemoryDisk::crash`] makes the disk that the next
//! start would find: of every file's unsynced changes, each 512-byte sector may or may not have
//! arrived; of the unsynced names, a prefix. The crashed disk's open files go on working for
//! whoever still holds them, and reach nobody.
//!
//! A failed sync does what Linux does: the bytes stay readable, but no later sync will save
//! them. (A file's length is another matter: it is in the file system's journal, and a journal that
//! fails ends every write there.)
//!
//! Left out: folders (every path's folder exists, durably), permissions, and damage other than
//! flipped bits and cut files.

mod change;
mod op;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::{Disk, DiskFile, DiskLock};
use change::{Change, Dice, FileState, NameChange};
pub use op::DiskOp;

/// A disk in memory. Clones share it.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    inner: Mutex<Inner>,
    gate: Condvar,
}

#[derive(Default)]
struct Inner {
    files: HashMap<u64, FileState>,
    next_id: u64,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    pending_names: Vec<NameChange>,
    locks: HashSet<PathBuf>,
    trace: Vec<DiskOp>,
    faults: Vec<Fault>,
    write_bytes_max: Option<usize>,
    capacity: Option<u64>,
    syncs_held: bool,
    syncs_waiting: usize,
}

struct Fault {
    kind: &'static str,
    name_holds: String,
    operations_before: usize,
    error: io::ErrorKind,
}

impl MemoryDisk {
    /// An empty disk without end.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same disk, as the log takes it.
    #[must_use]
    pub fn shared(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    /// The operations since the last call.
    pub fn take_trace(&self) -> Vec<DiskOp> {
        std::mem::take(&mut self.shared.inner.lock().trace)
    }

    /// Makes one operation fail: the next of that kind (a word of [`DiskOp`]'s text: `write`,
    /// `sync`, `create`, `remove`, `rename`, `size`, `reserve`, `sync names`) on a file whose
    /// name holds `name_holds`, after `operations_before` have passed.
    pub fn fail(
        &self,
        kind: &'static str,
        name_holds: &str,
        operations_before: usize,
        error: io::ErrorKind,
    ) {
        let fault = Fault { kind, name_holds: name_holds.to_owned(), operations_before, error };
        self.shared.inner.lock().faults.push(fault);
    }

    /// Makes every write stop after so many bytes.
    pub fn shorten_writes(&self, bytes_max: usize) {
        self.shared.inner.lock().write_bytes_max = Some(bytes_max);
    }

    /// Gives the disk a size.
    pub fn limit(&self, bytes: u64) {
        self.shared.inner.lock().capacity = Some(bytes);
    }

    /// Holds up every sync of a file until [`Self::release_syncs`].
    pub fn hold_syncs(&self) {
        self.shared.inner.lock().syncs_held = true;
    }

    /// Waits until a sync is held up.
    pub fn wait_for_held_sync(&self) {
        let mut inner = self.shared.inner.lock();
        while inner.syncs_waiting == 0 {
            self.shared.gate.wait(&mut inner);
        }
    }

    /// Lets syncs go on.
    pub fn release_syncs(&self) {
        self.shared.inner.lock().syncs_held = false;
        self.shared.gate.notify_all();
    }

    /// The bytes of a file, as a process sees them.
    #[must_use]
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let inner = self.shared.inner.lock();
        let id = inner.names.get(path)?;
        inner.files.get(id).map(|file| file.now.clone())
    }

    /// Turns one bit of a file over, on the platter too.
    pub fn flip_bit(&self, path: &Path, bit: usize) {
        self.edit(path, |bytes| {
            if let Some(byte) = bytes.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
        });
    }

    /// Cuts a file, on the platter too.
    pub fn cut(&self, path: &Path, bytes_left: usize) {
        self.edit(path, |bytes| bytes.truncate(bytes_left));
    }

    fn edit(&self, path: &Path, edit: impl Fn(&mut Vec<u8>)) {
        let mut inner = self.shared.inner.lock();
        let Some(id) = inner.names.get(path).copied() else { return };
        if let Some(file) = inner.files.get_mut(&id) {
            edit(&mut file.now);
            edit(&mut file.durable);
        }
    }

    /// The disk that is found after the power went now. What of the unsynced had arrived is
    /// drawn from `seed`.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let inner = self.shared.inner.lock();
        let mut names = inner.durable_names.clone();
        let arrived = dice.below(inner.pending_names.len() as u64 + 1);
        for change in inner.pending_names.iter().take(usize::try_from(arrived).unwrap_or(0)) {
            change.apply(&mut names);
        }
        let mut files = HashMap::new();
        for id in names.values() {
            let Some(file) = inner.files.get(id) else { continue };
            let mut bytes = file.durable.clone();
            for change in &file.pending {
                change.apply_in_part(&mut bytes, &mut dice);
            }
            let settled = FileState {
                name: file.name.clone(),
                now: bytes.clone(),
                durable: bytes,
                pending: Vec::new(),
            };
            files.insert(*id, settled);
        }
        let after = Inner {
            files,
            next_id: inner.next_id,
            durable_names: names.clone(),
            names,
            ..Inner::default()
        };
        Self { shared: Arc::new(Shared { inner: Mutex::new(after), gate: Condvar::new() }) }
    }

    /// The disk that is found after only the process died: everything written is there.
    #[must_use]
    pub fn kill(&self) -> Self {
        let inner = self.shared.inner.lock();
        let after = Inner {
            files: inner.files.clone(),
            next_id: inner.next_id,
            names: inner.names.clone(),
            durable_names: inner.durable_names.clone(),
            pending_names: inner.pending_names.clone(),
            ..Inner::default()
        };
        Self { shared: Arc::new(Shared { inner: Mutex::new(after), gate: Condvar::new() }) }
    }
}

impl Inner {
    /// Notes an operation, unless it is one that shall fail.
    fn allow(&mut self, op: DiskOp) -> io::Result<()> {
        let text = op.to_string();
        let mut failed = None;
        for (place, fault) in self.faults.iter_mut().enumerate() {
            if fault.kind != op.kind() || !text.contains(&fault.name_holds) {
                continue;
            }
            if fault.operations_before == 0 {
                failed = Some((place, fault.error));
                break;
            }
            fault.operations_before -= 1;
        }
        if let Some((place, error)) = failed {
            self.faults.remove(place);
            return Err(io::Error::new(error, format!("a fault was ordered for: {text}")));
        }
        self.trace.push(op);
        Ok(())
    }

    fn rename_or_remove(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }

    fn used(&self) -> u64 {
        self.names.values().filter_map(|id| self.files.get(id)).map(|f| f.now.len() as u64).sum()
    }

    fn check_capacity(&self, grows_by: usize) -> io::Result<()> {
        match self.capacity {
            Some(capacity) if self.used() + grows_by as u64 > capacity => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }

    fn file(&mut self, id: u64) -> io::Result<&mut FileState> {
        self.files.get_mut(&id).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for MemoryDisk {
    fn create_dir_all(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let inner = self.shared.inner.lock();
        let inside = inner.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.map(|path| name_of(path)).collect())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let inner = self.shared.inner.lock();
        let id = *inner.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(MemoryFile { shared: self.shared.clone(), id }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.shared.inner.lock();
        inner.allow(DiskOp::Create(name_of(path)))?;
        // Emptying an existing file is modelled as a new one in its place.
        let id = inner.next_id;
        inner.next_id += 1;
        inner.files.insert(id, FileState { name: name_of(path), ..FileState::default() });
        inner.rename_or_remove(NameChange::Set(path.to_owned(), id));
        Ok(Arc::new(MemoryFile { shared: self.shared.clone(), id }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.shared.inner.lock();
        if !inner.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.allow(DiskOp::Remove(name_of(path)))?;
        inner.rename_or_remove(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.shared.inner.lock();
        let id = *inner.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        inner.allow(DiskOp::Rename(name_of(from), name_of(to)))?;
        inner.file(id)?.name = name_of(to);
        inner.rename_or_remove(NameChange::Set(to.to_owned(), id));
        inner.rename_or_remove(NameChange::Remove(from.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut inner = self.shared.inner.lock();
        inner.allow(DiskOp::SyncDir)?;
        let Inner { pending_names, durable_names, .. } = &mut *inner;
        for change in pending_names.drain(..) {
            change.apply(durable_names);
        }
        Ok(())
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let inner = self.shared.inner.lock();
        Ok(inner.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(inner.used())))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        if !self.shared.inner.lock().locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(MemoryLock { shared: self.shared.clone(), path: path.to_owned() }))
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

struct MemoryLock {
    shared: Arc<Shared>,
    path: PathBuf,
}

impl DiskLock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.shared.inner.lock().locks.remove(&self.path);
    }
}

struct MemoryFile {
    shared: Arc<Shared>,
    id: u64,
}

impl MemoryFile {
    fn change(&self, op: impl FnOnce(String) -> DiskOp, change: Change) -> io::Result<()> {
        let mut inner = self.shared.inner.lock();
        let file = inner.file(self.id)?;
        let (name, size) = (file.name.clone(), file.now.len());
        inner.allow(op(name))?;
        let size_after = match &change {
            Change::Write(at, bytes) => at + bytes.len(),
            Change::Size(size) => *size,
        };
        inner.check_capacity(size_after.saturating_sub(size))?;
        let file = inner.file(self.id)?;
        change.apply(&mut file.now);
        file.pending.push(change);
        Ok(())
    }
}

impl DiskFile for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.shared.inner.lock().file(self.id)?.now.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut inner = self.shared.inner.lock();
        let bytes = &inner.file(self.id)?.now;
        let at = index(at)?.min(bytes.len());
        let read = buffer.len().min(bytes.len() - at);
        buffer[..read].copy_from_slice(&bytes[at..at + read]);
        Ok(read)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        let mut bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        if let Some(max) = self.shared.inner.lock().write_bytes_max {
            bytes.truncate(max);
        }
        let written = bytes.len();
        self.change(|name| DiskOp::Write(name, at, written), Change::Write(index(at)?, bytes))?;
        Ok(written)
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.shared.inner.lock();
        inner.syncs_waiting += 1;
        while inner.syncs_held {
            self.shared.gate.notify_all();
            self.shared.gate.wait(&mut inner);
        }
        inner.syncs_waiting -= 1;
        let name = inner.file(self.id)?.name.clone();
        let allowed = inner.allow(DiskOp::Sync(name));
        let file = inner.file(self.id)?;
        if let Err(error) = allowed {
            file.pending.retain(|change| matches!(change, Change::Size(_)));
            return Err(error);
        }
        for change in std::mem::take(&mut file.pending) {
            change.apply(&mut file.durable);
        }
        Ok(())
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        self.change(|name| DiskOp::SetSize(name, bytes), Change::Size(index(bytes)?))
    }

    fn preallocate(&self, from: u64, bytes: u64) -> io::Result<()> {
        let size = index(from + bytes)?.max(index(self.size()?)?);
        self.change(|name| DiskOp::Preallocate(name, from, bytes), Change::Size(size))
    }
}

fn index(position: u64) -> io::Result<usize> {
    usize::try_from(position).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(disk: &MemoryDisk, bytes: &[u8]) -> Arc<dyn DiskFile> {
        let file = disk.create(Path::new("/d/a")).expect("created");
        file.write_at(&[IoSlice::new(bytes)], 0).expect("written");
        file
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_may_lose_the_rest() {
        let disk = MemoryDisk::new();
        let file = written(&disk, b"synced");
        file.sync().expect("synced");
        disk.sync_dir(Path::new("/d")).expect("synced");
        file.write_at(&[IoSlice::new(b"!")], 6).expect("written");
        let after: Vec<_> = (0..64)
            .map(|seed| disk.crash(seed).contents(Path::new("/d/a")).expect("kept"))
            .collect();
        assert!(after.iter().all(|bytes| bytes.starts_with(b"synced")));
        assert!(after.iter().any(|bytes| bytes.len() == 6));
        assert!(after.iter().any(|bytes| bytes.len() == 7));
    }

    #[test]
    fn a_name_that_was_not_synced_may_be_lost() {
        let disk = MemoryDisk::new();
        written(&disk, b"x").sync().expect("synced");
        let kept = |seed| disk.crash(seed).contents(Path::new("/d/a")).is_some();
        assert!((0..64).any(kept) && !(0..64).all(kept));
    }

    #[test]
    fn what_a_failed_sync_did_not_save_no_later_sync_saves() {
        let disk = MemoryDisk::new();
        let file = written(&disk, b"x");
        disk.sync_dir(Path::new("/d")).expect("synced");
        disk.fail("sync", "a", 0, io::ErrorKind::Other);
        assert!(file.sync().is_err());
        file.sync().expect("synced");
        assert_eq!(disk.contents(Path::new("/d/a")), Some(b"x".to_vec()));
        assert_eq!(disk.crash(1).contents(Path::new("/d/a")), Some(Vec::new()));
    }
}
