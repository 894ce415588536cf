//! A disk in memory that remembers what was synced, and that can fail: for tests and simulation.
//!
//! Each file is kept twice, as a process sees it and as the platter has it, with the changes
//! that lie between the two; names likewise. [`MemoryDisk::crash`] makes the disk that the next
//! start would find: of every file's unsynced changes, each 512-byte sector may or may not have
//! arrived; of each folder's unsynced names, a prefix. The crashed disk's open files go on working
//! for whoever still holds them, and reach nobody.
//!
//! Nothing here is left to chance: what arrives is drawn from the caller's seed, and everything is
//! walked through in the order of its name. One history and one seed make one disk.
//!
//! A failed sync does what Linux does: the bytes stay readable, but no later sync will save
//! them. (A file's length is another matter: it is in the file system's journal, and a journal that
//! fails ends every write there.)
//!
//! Left out: folders (every path's folder exists, durably; one is listed once a file is below it),
//! permissions, and damage other than flipped bits and cut files.

mod change;
mod fault;
mod op;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::{Disk, DiskFile, DiskLock};
use change::{Change, Dice, FileState, NameChange};
use fault::Faults;
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

/// Operations that the trace keeps: more than any one turn of a log does. The oldest go, or a
/// simulation that never looks would fill the memory with them.
const TRACE_OPS_MAX: usize = 100_000;

#[derive(Default)]
struct Inner {
    files: BTreeMap<u64, FileState>,
    next_id: u64,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    /// What was done to the names of a folder since it was synced, by folder.
    pending_names: BTreeMap<PathBuf, Vec<NameChange>>,
    locks: BTreeSet<PathBuf>,
    trace: VecDeque<DiskOp>,
    faults: Faults,
    write_bytes_max: Option<usize>,
    capacity: Option<u64>,
    syncs_held: bool,
    syncs_waiting: usize,
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
        std::mem::take(&mut self.shared.inner.lock().trace).into()
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
        let mut inner = self.shared.inner.lock();
        inner.faults.add_once(kind, name_holds, operations_before, error);
    }

    /// Makes every operation of these kinds (of all kinds that change something, if none is
    /// named) fail on every path that holds `path_holds`, its folders included, until
    /// [`Self::clear_faults`]. A crash does not end it: a broken disk stays broken.
    pub fn fail_always(
        &self,
        kinds: &'static [&'static str],
        path_holds: &str,
        error: io::ErrorKind,
    ) {
        self.shared.inner.lock().faults.add_standing(kinds, path_holds, error);
    }

    /// Makes everything that changes something fail after so many such operations: the moment
    /// of a crash, for whoever wants to try each.
    pub fn stop_after(&self, operations: usize) {
        self.shared.inner.lock().faults.stop_after(operations);
    }

    /// Takes away every fault that was ordered.
    pub fn clear_faults(&self) {
        self.shared.inner.lock().faults = Faults::default();
    }

    /// Makes every write stop after so many bytes.
    pub fn shorten_writes(&self, bytes_max: usize) {
        self.shared.inner.lock().write_bytes_max = Some(bytes_max);
    }

    /// Gives the disk a size. What is there already stays, even if it is more; it may not grow.
    pub fn limit(&self, bytes: u64) {
        self.shared.inner.lock().capacity = Some(bytes);
    }

    /// Gives the disk room without end again.
    pub fn lift_limit(&self) {
        self.shared.inner.lock().capacity = None;
    }

    /// Every file with its bytes, as a process sees them, in the order of their paths.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let inner = self.shared.inner.lock();
        let len = |id| inner.files.get(id).map_or(0, |file| file.now.len() as u64);
        inner.names.iter().map(|(path, id)| (path.clone(), len(id))).collect()
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

    /// Turns one bit of a file over, on the platter too. Does nothing behind the file's end.
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

    /// Damages a file. What was written to it and not synced stays on its way, and may still
    /// arrive over the damage at a crash: a disk that was just crashed has nothing on its way.
    fn edit(&self, path: &Path, edit: impl Fn(&mut Vec<u8>)) {
        let mut inner = self.shared.inner.lock();
        let Some(id) = inner.names.get(path).copied() else { return };
        if let Some(file) = inner.files.get_mut(&id) {
            edit(&mut file.now);
            edit(&mut file.durable);
        }
    }

    /// The disk that is found after the power went now. What of the unsynced had arrived is
    /// drawn from `seed`. Its size and its standing faults are this one's.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let inner = self.shared.inner.lock();
        let mut names = inner.durable_names.clone();
        for pending in inner.pending_names.values() {
            let arrived = dice.below(pending.len() as u64 + 1);
            for change in pending.iter().take(usize::try_from(arrived).unwrap_or(0)) {
                change.apply(&mut names);
            }
        }
        let mut files = BTreeMap::new();
        for id in names.values() {
            let Some(file) = inner.files.get(id) else { continue };
            let mut bytes = file.durable.clone();
            for change in &file.pending {
                change.apply_in_part(&mut bytes, &mut dice);
            }
            let settled = FileState {
                path: file.path.clone(),
                now: bytes.clone(),
                durable: bytes,
                pending: Vec::new(),
                settled: 0,
            };
            files.insert(*id, settled);
        }
        let after = Inner {
            files,
            next_id: inner.next_id,
            durable_names: names.clone(),
            names,
            ..inner.restarted()
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
            ..inner.restarted()
        };
        Self { shared: Arc::new(Shared { inner: Mutex::new(after), gate: Condvar::new() }) }
    }
}

impl Inner {
    /// What a restart finds, the files apart.
    fn restarted(&self) -> Self {
        Self { faults: self.faults.after_restart(), capacity: self.capacity, ..Self::default() }
    }

    /// Notes an operation, unless it is one that shall fail.
    fn allow(&mut self, op: DiskOp, path: &Path) -> io::Result<()> {
        self.faults.check(&op, path)?;
        if self.trace.len() == TRACE_OPS_MAX {
            self.trace.pop_front();
        }
        self.trace.push_back(op);
        Ok(())
    }

    fn rename_or_remove(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        let folder = change.path().parent().unwrap_or(Path::new("")).to_owned();
        self.pending_names.entry(folder).or_default().push(change);
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
        let below = inner.names.keys().filter_map(|path| path.strip_prefix(dir).ok());
        let firsts = below.filter_map(|path| path.components().next());
        let mut names: Vec<_> =
            firsts.map(|name| name.as_os_str().to_string_lossy().into_owned()).collect();
        // Paths are sorted by their parts: the files of one folder stand together.
        names.dedup();
        Ok(names)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let inner = self.shared.inner.lock();
        let id = *inner.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(MemoryFile { shared: self.shared.clone(), id }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.shared.inner.lock();
        inner.allow(DiskOp::Create(name_of(path)), path)?;
        // Emptying an existing file is modelled as a new one in its place.
        let id = inner.next_id;
        inner.next_id += 1;
        inner.files.insert(id, FileState { path: path.to_owned(), ..FileState::default() });
        inner.rename_or_remove(NameChange::Set(path.to_owned(), id));
        Ok(Arc::new(MemoryFile { shared: self.shared.clone(), id }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.shared.inner.lock();
        if !inner.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.allow(DiskOp::Remove(name_of(path)), path)?;
        inner.rename_or_remove(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.shared.inner.lock();
        let id = *inner.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        inner.allow(DiskOp::Rename(name_of(from), name_of(to)), from)?;
        inner.file(id)?.path = to.to_owned();
        inner.rename_or_remove(NameChange::Set(to.to_owned(), id));
        inner.rename_or_remove(NameChange::Remove(from.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.shared.inner.lock();
        inner.allow(DiskOp::SyncDir, dir)?;
        for change in inner.pending_names.remove(dir).unwrap_or_default() {
            change.apply(&mut inner.durable_names);
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
        let (path, size) = (file.path.clone(), file.now.len());
        inner.allow(op(name_of(&path)), &path)?;
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
        let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        if let Some(max) = self.shared.inner.lock().write_bytes_max {
            bytes.truncate(max);
        }
        let written = bytes.len();
        self.change(|name| DiskOp::Write(name, at, written), Change::Write(index(at)?, bytes))?;
        Ok(written)
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.shared.inner.lock();
        // What comes while it is held up is not in it: the least that a disk promises.
        let file = inner.file(self.id)?;
        let end = file.settled + file.pending.len();
        inner.syncs_waiting += 1;
        while inner.syncs_held {
            self.shared.gate.notify_all();
            self.shared.gate.wait(&mut inner);
        }
        inner.syncs_waiting -= 1;
        let path = inner.file(self.id)?.path.clone();
        let allowed = inner.allow(DiskOp::Sync(name_of(&path)), &path);
        let file = inner.file(self.id)?;
        let behind =
            file.pending.split_off(end.saturating_sub(file.settled).min(file.pending.len()));
        let mut pending = std::mem::replace(&mut file.pending, behind);
        file.settled += pending.len();
        if let Err(error) = allowed {
            pending.retain(|change| matches!(change, Change::Size(_)));
            file.settled -= pending.len();
            pending.append(&mut file.pending);
            file.pending = pending;
            return Err(error);
        }
        for change in pending {
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

    fn put(disk: &MemoryDisk, path: &str, bytes: &[u8]) -> io::Result<()> {
        let file = disk.create(Path::new(path))?;
        file.write_at(&[IoSlice::new(bytes)], 0)?;
        file.sync()
    }

    #[test]
    fn the_names_of_one_folder_are_not_saved_by_a_sync_of_another() {
        let disk = MemoryDisk::new();
        put(&disk, "/a/x", b"x").expect("written");
        put(&disk, "/b/x", b"x").expect("written");
        disk.sync_dir(Path::new("/a")).expect("synced");
        let has = |seed, path| disk.crash(seed).contents(Path::new(path)).is_some();
        assert!((0..64).all(|seed| has(seed, "/a/x")));
        assert!((0..64).any(|seed| has(seed, "/b/x")) && !(0..64).all(|seed| has(seed, "/b/x")));
    }

    #[test]
    fn one_history_and_one_seed_make_one_disk() {
        let history = || {
            let disk = MemoryDisk::new();
            for n in 0..20 {
                let file = disk.create(Path::new(&format!("/d{}/f{n}", n % 3))).expect("created");
                file.write_at(&[IoSlice::new(&[n; 3000])], 0).expect("written");
                if n % 4 == 0 {
                    disk.sync_dir(Path::new("/d1")).expect("synced");
                }
            }
            disk
        };
        let whole = |disk: &MemoryDisk| -> Vec<_> {
            let files = disk.files().into_iter();
            files.map(|(path, _)| (disk.contents(&path), path)).collect()
        };
        let (one, two) = (history(), history());
        for seed in 0..50 {
            assert_eq!(whole(&one.crash(seed)), whole(&two.crash(seed)), "seed {seed}");
        }
        assert!((0..50).any(|seed| whole(&one.crash(seed)) != whole(&one.crash(seed + 1))));
    }

    #[test]
    fn files_and_folders_are_listed_in_order() {
        let disk = MemoryDisk::new();
        for (path, bytes) in [("/d/b", 3), ("/d/p_0/x", 1), ("/d/p_0/y", 2), ("/d/a", 0)] {
            put(&disk, path, &vec![0; bytes]).expect("written");
        }
        assert_eq!(disk.list(Path::new("/d")).expect("listed"), ["a", "b", "p_0"]);
        assert_eq!(disk.list(Path::new("/d/p_0")).expect("listed"), ["x", "y"]);
        assert_eq!(disk.list(Path::new("/d/p")).expect("listed"), Vec::<String>::new());
        let sizes: Vec<_> = disk.files().into_iter().map(|(_, bytes)| bytes).collect();
        assert_eq!(sizes, [0, 3, 1, 2]);
    }

    #[test]
    fn a_standing_fault_stays_over_a_crash_until_it_is_cleared() {
        let disk = MemoryDisk::new();
        disk.fail_always(&["write", "sync"], "/p_0/", io::ErrorKind::Other);
        for disk in [disk.clone(), disk.crash(1), disk.kill()] {
            for _ in 0..3 {
                assert!(put(&disk, "/d/p_0/x", b"x").is_err());
            }
            put(&disk, "/d/p_1/x", b"x").expect("another folder");
            disk.clear_faults();
            put(&disk, "/d/p_0/x", b"x").expect("mended");
        }
        disk.fail_always(&[], "", io::ErrorKind::Other);
        assert!(disk.create(Path::new("/d/z")).is_err() && disk.sync_dir(Path::new("/d")).is_err());
        assert_eq!(disk.contents(Path::new("/d/p_1/x")), Some(b"x".to_vec()), "reads go on");
    }

    #[test]
    fn a_full_disk_stays_full_over_a_crash_until_there_is_room() {
        let disk = MemoryDisk::new();
        put(&disk, "/d/a", &[1; 100]).expect("written");
        disk.sync_dir(Path::new("/d")).expect("synced");
        disk.limit(120);
        let disk = disk.crash(1);
        let full = put(&disk, "/d/b", &[1; 21]).expect_err("full");
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        put(&disk, "/d/b", &[1; 20]).expect("what fits");
        disk.limit(200);
        put(&disk, "/d/c", &[1; 80]).expect("room again");
        disk.lift_limit();
        put(&disk, "/d/e", &[1; 8000]).expect("room without end");
    }
}
