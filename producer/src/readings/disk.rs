//! Disk: bytes a second read and written, and how full the file system is.
//!
//! In a container: the bytes that its group read and wrote, over all devices, as `docker stats`
//! adds them up (`io.stat`, or `blkio.throttle.io_service_bytes` and its recursive form). On a
//! machine: the sectors of `/proc/diskstats`, of whole devices only: no partitions, no loop, ram,
//! zram, optical and floppy devices, and no device that stands on others (device mapper, RAID,
//! multipath), whose bytes its parts count already.
//!
//! `fs_used_percent` is of the file system at `/`, as `df` computes it: used blocks in percent of
//! those and what an ordinary user may still fill. Where the group does not account for disks (a rootless engine without the io
//! controller), the sample has no counters and its value is 0.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

use super::cgroup::{Group, Groups};
use super::counters::{Counters, Rates};
use super::{Moment, ReadError, Root, percent};
use crate::sample::Sample;

const DISKSTATS: &str = "/proc/diskstats";

/// `/proc/diskstats` counts in sectors of 512 bytes, whatever the device's own are (kernel
/// documentation, block/stat).
const SECTOR_BYTES: u64 = 512;

/// Where bytes that were read and written stand in a counter.
pub const READ: usize = 0;
/// See [`READ`].
pub const WRITTEN: usize = 1;

/// Bytes read and written, by device.
pub type Devices = HashMap<String, [u64; 2]>;

/// Reads disk use at every tick.
pub struct DiskReader {
    root: Root,
    group: Option<Group>,
    container: bool,
    counters: Counters<2>,
}

impl DiskReader {
    /// A reader of the container, or else of the machine.
    #[must_use]
    pub fn new(root: Root, groups: &Groups) -> Self {
        Self {
            root,
            group: groups.container.then(|| groups.blkio.clone()).flatten(),
            container: groups.container,
            counters: Counters::new(),
        }
    }

    /// What was read and written since the last reading; `None` at the first.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read(&mut self, now: Moment) -> Result<Option<Sample>, ReadError> {
        let devices = match (&self.group, self.container) {
            (Some(group), _) => group_bytes(&self.root, group)?,
            (None, true) => None,
            (None, false) => Some(machine_bytes(&self.root)?),
        };
        let sample = match devices {
            None => Sample::new(now.wall_ms, 0_u64, "bytes/s"),
            Some(devices) => {
                let Some(rates) = self.counters.update(now, devices) else { return Ok(None) };
                sample(now, rates)
            }
        };
        Ok(Some(match self.fs_used_percent() {
            Some(used) => sample.with("fs_used_percent", used),
            None => sample,
        }))
    }

    fn fs_used_percent(&self) -> Option<f64> {
        let fs = statvfs(&self.root.path(Path::new("/"))).ok()?;
        let used = fs.blocks().saturating_sub(fs.blocks_free());
        let whole = used + fs.blocks_available();
        (whole > 0).then(|| percent(used, whole))
    }
}

/// The sample of what the counters gave.
#[must_use]
pub fn sample(now: Moment, rates: Rates<2>) -> Sample {
    let [read_s, written_s] = rates.per_second;
    Sample::new(now.wall_ms, read_s.saturating_add(written_s), "bytes/s")
        .with("read_bytes_s", read_s)
        .with("written_bytes_s", written_s)
        .with("read_bytes", rates.total[READ])
        .with("written_bytes", rates.total[WRITTEN])
}

/// Bytes read and written by device; `None` when the group does not account for disks.
fn group_bytes(root: &Root, group: &Group) -> Result<Option<Devices>, ReadError> {
    let Some(path) = group_file(root, group) else { return Ok(None) };
    Ok(Some(parse(group, &root.read(path)?)))
}

/// The file that counts a group's bytes, where there is one.
#[must_use]
pub fn group_file(root: &Root, group: &Group) -> Option<PathBuf> {
    // The recursive file is missing on kernels before 4.17.
    let files: &[&str] = match group {
        Group::V1(_) => {
            &["blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_service_bytes"]
        }
        Group::V2(_) => &["io.stat"],
    };
    files.iter().map(|file| group.folder().join(file)).find(|path| root.has(path))
}

/// Bytes read and written by device, out of a [`group_file`].
#[must_use]
pub fn parse(group: &Group, text: &str) -> Devices {
    match group {
        Group::V1(_) => blkio_bytes(text),
        Group::V2(_) => io_stat_bytes(text),
    }
}

/// `8:0 Read 4096`, a line a device and an operation.
fn blkio_bytes(text: &str) -> Devices {
    let mut devices = Devices::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(device), Some(operation), Some(bytes)) =
            (words.next(), words.next(), words.next().and_then(|n| n.parse::<u64>().ok()))
        else {
            continue;
        };
        let counter = match operation {
            "Read" => READ,
            "Write" => WRITTEN,
            _ => continue,
        };
        devices.entry(device.to_owned()).or_default()[counter] += bytes;
    }
    devices
}

/// `8:0 rbytes=4096 wbytes=0 rios=1 …`, a line a device.
fn io_stat_bytes(text: &str) -> Devices {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let device = words.next()?;
            let mut bytes = [0; 2];
            for (name, value) in words.filter_map(|word| word.split_once('=')) {
                match name {
                    "rbytes" => bytes[READ] = value.parse().ok()?,
                    "wbytes" => bytes[WRITTEN] = value.parse().ok()?,
                    _ => {}
                }
            }
            Some((device.to_owned(), bytes))
        })
        .collect()
}

fn machine_bytes(root: &Root) -> Result<Devices, ReadError> {
    let text = root.read(DISKSTATS)?;
    Ok(text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace().skip(2);
            let device = words.next()?;
            // reads, merged, sectors read, ms, writes, merged, sectors written
            let read: u64 = words.nth(2)?.parse().ok()?;
            let written: u64 = words.nth(3)?.parse().ok()?;
            is_whole_disk(root, device)
                .then(|| (device.to_owned(), [read * SECTOR_BYTES, written * SECTOR_BYTES]))
        })
        .collect())
}

/// Whether a device of the machine is one to count: the kernel lists partitions inside of their
/// disk's folder and not in `/sys/block`, and gives a device that stands on others `slaves`.
fn is_whole_disk(root: &Root, device: &str) -> bool {
    const NO_DISKS: [&str; 5] = ["loop", "ram", "zram", "sr", "fd"];
    let numbered = |kind: &str| {
        device.strip_prefix(kind).is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()))
    };
    if NO_DISKS.into_iter().any(numbered) {
        return false;
    }
    // `cciss/c0d0` is the folder `cciss!c0d0`.
    let folder = Path::new("/sys/block").join(device.replace('/', "!"));
    let stands_on_others = std::fs::read_dir(root.path(&folder.join("slaves")))
        .is_ok_and(|mut slaves| slaves.next().is_some());
    root.has(&folder) && !stands_on_others
}

#[cfg(test)]
mod tests {
    use super::super::cgroup::Layout;
    use super::super::fixture::Tree;
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment { wall_ms: seconds * 1000, monotonic_us: seconds * 1_000_000 }
    }

    fn groups(container: bool, blkio: Option<Group>) -> Groups {
        Groups { layout: Layout::V2, container, cpu: None, cpuacct: None, memory: None, blkio }
    }

    fn check(sample: Option<Sample>, value: f64, fields: [(&str, f64); 4]) {
        let sample = sample.expect("a sample");
        assert_eq!(sample.value(), value);
        for (name, expect) in fields {
            assert_eq!(sample.field(name), Some(expect), "{name}");
        }
    }

    #[test]
    fn a_v2_group_sums_its_devices() {
        let tree = Tree::new(&[(
            "/g/io.stat",
            "8:0 rbytes=1000 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n254:0 rbytes=1 wbytes=2\n",
        )]);
        let groups = groups(true, Some(Group::V2(PathBuf::from("/g"))));
        let mut reader = DiskReader::new(tree.root(), &groups);
        assert_eq!(reader.read(at(0)).expect("read"), None);
        tree.put("/g/io.stat", "8:0 rbytes=3000 wbytes=0\n254:0 rbytes=1 wbytes=402\n");
        check(
            reader.read(at(2)).expect("read"),
            1200.0,
            [
                ("read_bytes_s", 1000.0),
                ("written_bytes_s", 200.0),
                ("read_bytes", 3001.0),
                ("written_bytes", 402.0),
            ],
        );
    }

    #[test]
    fn a_v1_group_is_read_recursively_where_the_kernel_can() {
        let plain = "8:0 Read 9\n8:0 Write 9\nTotal 18\n";
        let recursive = |read| format!("8:0 Read {read}\n8:0 Write 50\n8:0 Sync 7\nTotal 57\n");
        let tree = Tree::new(&[
            ("/g/blkio.throttle.io_service_bytes", plain),
            ("/g/blkio.throttle.io_service_bytes_recursive", &recursive(100)),
        ]);
        let groups = groups(true, Some(Group::V1(PathBuf::from("/g"))));
        let mut reader = DiskReader::new(tree.root(), &groups);
        reader.read(at(0)).expect("read");
        tree.put("/g/blkio.throttle.io_service_bytes_recursive", &recursive(300));
        check(
            reader.read(at(1)).expect("read"),
            200.0,
            [
                ("read_bytes_s", 200.0),
                ("written_bytes_s", 0.0),
                ("read_bytes", 300.0),
                ("written_bytes", 50.0),
            ],
        );
        tree.remove("/g/blkio.throttle.io_service_bytes_recursive");
        let sample = reader.read(at(2)).expect("read").expect("a sample");
        assert_eq!(sample.field("read_bytes"), Some(9.0));
        assert_eq!(sample.value(), 0.0, "the lower counter is a new baseline");
    }

    #[test]
    fn a_group_without_accounting_has_no_counters_but_a_file_system() {
        let tree = Tree::new(&[]);
        for blkio in [None, Some(Group::V2(PathBuf::from("/g")))] {
            let mut reader = DiskReader::new(tree.root(), &groups(true, blkio));
            let sample = reader.read(at(0)).expect("read").expect("a sample");
            assert_eq!(sample.value(), 0.0);
            assert_eq!(sample.field("read_bytes"), None);
        }
    }

    #[test]
    fn a_machine_counts_whole_disks_once() {
        let line = |name: &str, read: u64, written: u64| {
            format!("   8       0 {name} 10 0 {read} 5 20 0 {written} 9 0 1 1 0 0 0 0 0 0\n")
        };
        let stats = |read| {
            ["sda", "sda1", "nvme0n1", "dm-0", "md0", "loop0", "ram1", "zram0", "sr0"]
                .map(|name| line(name, read, 0))
                .concat()
        };
        let tree = Tree::new(&[
            ("/proc/diskstats", &stats(0)),
            ("/sys/block/sda/size", ""),
            ("/sys/block/nvme0n1/size", ""),
            ("/sys/block/dm-0/slaves/sda1/size", ""),
            ("/sys/block/md0/slaves/sda/size", ""),
            ("/sys/block/loop0/size", ""),
            ("/sys/block/ram1/size", ""),
            ("/sys/block/zram0/size", ""),
            ("/sys/block/sr0/size", ""),
        ]);
        let mut reader = DiskReader::new(tree.root(), &groups(false, None));
        assert_eq!(reader.read(at(0)).expect("read"), None);
        tree.put("/proc/diskstats", &stats(10));
        check(
            reader.read(at(1)).expect("read"),
            // sda and nvme0n1, 10 sectors each.
            10_240.0,
            [
                ("read_bytes_s", 10_240.0),
                ("written_bytes_s", 0.0),
                ("read_bytes", 10_240.0),
                ("written_bytes", 0.0),
            ],
        );
    }

    #[test]
    fn this_machines_root_is_between_empty_and_full() {
        let mut reader = DiskReader::new(Root::system(), &groups(true, None));
        let sample = reader.read(at(0)).expect("read").expect("a sample");
        let used = sample.field("fs_used_percent").expect("a file system at /");
        assert!(used > 0.0 && used <= 100.0, "{used}");
    }
}
