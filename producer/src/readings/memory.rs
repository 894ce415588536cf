//! Memory: percent of the limit, as `docker stats` computes it.
//!
//! In a container: what its group uses without the inactive file cache, which the kernel takes
//! back whenever it needs to (`inactive_file` of version 2, `total_inactive_file` of version 1;
//! subtracted only where it is less than the use), in percent of the group's limit. Without a
//! limit, or with one that is higher than the machine's memory, it is in percent of the machine's
//! memory. On a machine: all memory but what is available, in percent of all.
//!
//! `rss_bytes` is memory that no file stands behind: `anon`, `total_rss`, or `AnonPages`.

use std::path::PathBuf;

use super::cgroup::{Group, Groups};
use super::{ReadError, Root, percent, value_of};
use crate::sample::Sample;

const MEMINFO: &str = "/proc/meminfo";

/// `/proc/meminfo` counts in KiB, whatever it calls them (proc(5)).
const MEMINFO_UNIT_BYTES: u64 = 1024;

/// Reads memory use at every tick.
#[derive(Debug)]
pub struct MemoryReader {
    root: Root,
    group: Option<Group>,
}

/// What is used, and of how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// All but what the kernel takes back whenever it needs to.
    pub bytes: u64,
    /// The limit.
    pub limit_bytes: u64,
    /// What no file stands behind.
    pub rss_bytes: Option<u64>,
}

impl Use {
    /// What a group uses: `usage` bytes, of which `stat` says more.
    #[must_use]
    pub fn of_group(group: &Group, usage: u64, stat: &str, limit_bytes: u64) -> Self {
        let (inactive, rss) = match group {
            Group::V1(_) => ("total_inactive_file", "total_rss"),
            Group::V2(_) => ("inactive_file", "anon"),
        };
        let (inactive, rss) = (value_of(stat, inactive), value_of(stat, rss));
        Self { bytes: without(usage, inactive), limit_bytes, rss_bytes: rss }
    }

    /// The sample.
    #[must_use]
    pub fn sample(self, wall_ms: u64) -> Sample {
        Sample::new(wall_ms, percent(self.bytes, self.limit_bytes), "percent")
            .with("bytes", self.bytes)
            .with("limit_bytes", self.limit_bytes)
            .with_some("rss_bytes", self.rss_bytes)
    }
}

/// `docker stats` takes inactive files off only where they are less than the whole.
#[must_use]
pub fn without(usage: u64, inactive: Option<u64>) -> u64 {
    usage - inactive.filter(|inactive| *inactive < usage).unwrap_or(0)
}

/// The file that says how many bytes a group uses.
#[must_use]
pub fn usage_file(group: &Group) -> PathBuf {
    group.folder().join(match group {
        Group::V1(_) => "memory.usage_in_bytes",
        Group::V2(_) => "memory.current",
    })
}

/// The machine's memory.
///
/// # Errors
/// When the file cannot be read or holds something else.
pub fn machine(root: &Root) -> Result<Use, ReadError> {
    let text = root.read(MEMINFO)?;
    let bytes = |name| value_of(&text, name).map(|units| units * MEMINFO_UNIT_BYTES);
    let total = bytes("MemTotal:").ok_or_else(|| root.nonsense(MEMINFO, "MemTotal"))?;
    let available = bytes("MemAvailable:").ok_or_else(|| root.nonsense(MEMINFO, "MemAvailable"))?;
    Ok(Use {
        bytes: total.saturating_sub(available),
        limit_bytes: total,
        rss_bytes: bytes("AnonPages:"),
    })
}

/// A group's limit in bytes, at most the machine's memory. No limit is "max" in version 2, which
/// is no number; no file, in the hierarchy's top group; and a number beyond every machine's
/// memory in version 1.
#[must_use]
pub fn limit_bytes(root: &Root, group: &Group, machine_bytes: u64) -> u64 {
    let path = group.folder().join(match group {
        Group::V1(_) => "memory.limit_in_bytes",
        Group::V2(_) => "memory.max",
    });
    let limit = root.read(path).ok().and_then(|text| text.trim().parse().ok());
    limit.unwrap_or(machine_bytes).min(machine_bytes)
}

impl MemoryReader {
    /// A reader of the container, or else of the machine.
    #[must_use]
    pub fn new(root: Root, groups: &Groups) -> Self {
        Self { root, group: groups.container.then(|| groups.memory.clone()).flatten() }
    }

    /// What is used now.
    ///
    /// # Errors
    /// When a file cannot be read or holds something else.
    pub fn read(&self, wall_ms: u64) -> Result<Sample, ReadError> {
        let machine = machine(&self.root)?;
        let used = match &self.group {
            None => machine,
            Some(group) => self.group_use(group, machine.limit_bytes)?,
        };
        Ok(used.sample(wall_ms))
    }

    fn group_use(&self, group: &Group, machine_bytes: u64) -> Result<Use, ReadError> {
        let path = usage_file(group);
        let usage = self.root.read(&path)?.trim().parse();
        let usage = usage.map_err(|_| self.root.nonsense(path, "number of bytes"))?;
        let stat = self.root.read(group.folder().join("memory.stat"))?;
        let limit = limit_bytes(&self.root, group, machine_bytes);
        Ok(Use::of_group(group, usage, &stat, limit))
    }
}

#[cfg(test)]
mod tests {
    use super::super::cgroup::Layout;
    use super::super::fixture::Tree;
    use super::*;

    const MIB: u64 = 1 << 20;
    const MACHINE: &str =
        "MemTotal:  1048576 kB\nMemFree: 1 kB\nMemAvailable:  786432 kB\nAnonPages:  131072 kB\n";

    fn groups(memory: Option<Group>) -> Groups {
        Groups {
            layout: Layout::V2,
            container: memory.is_some(),
            cpu: None,
            cpuacct: None,
            memory,
            blkio: None,
        }
    }

    fn check(
        tree: &Tree,
        group: Option<Group>,
        percent: f64,
        mib: u64,
        limit_mib: u64,
        rss_mib: u64,
    ) {
        let sample = MemoryReader::new(tree.root(), &groups(group)).read(5).expect("a sample");
        assert_eq!(sample.value(), percent);
        for (field, expect) in [("bytes", mib), ("limit_bytes", limit_mib), ("rss_bytes", rss_mib)]
        {
            let bytes = sample.field(field).expect(field);
            assert_eq!(
                bytes / 1_048_576.0,
                f64::from(u32::try_from(expect).expect("small")),
                "{field}"
            );
        }
    }

    #[test]
    fn a_machine_uses_what_is_not_available() {
        let tree = Tree::new(&[("/proc/meminfo", MACHINE)]);
        check(&tree, None, 25.0, 256, 1024, 128);
    }

    #[test]
    fn a_v2_group_uses_all_but_inactive_files_of_its_limit() {
        let stat = format!("anon {}\nfile 5\ninactive_file {}\n", 80 * MIB, 100 * MIB);
        let tree = Tree::new(&[
            ("/proc/meminfo", MACHINE),
            ("/g/memory.current", &format!("{}\n", 228 * MIB)),
            ("/g/memory.max", &format!("{}\n", 512 * MIB)),
            ("/g/memory.stat", &stat),
        ]);
        check(&tree, Some(Group::V2(PathBuf::from("/g"))), 25.0, 128, 512, 80);
    }

    #[test]
    fn without_a_limit_it_is_of_the_machines_memory() {
        let tree = Tree::new(&[
            ("/proc/meminfo", MACHINE),
            ("/v2/memory.current", &format!("{}\n", 256 * MIB)),
            ("/v2/memory.max", "max\n"),
            ("/v2/memory.stat", "anon 0\ninactive_file 0\n"),
            ("/v1/memory.usage_in_bytes", &format!("{}\n", 256 * MIB)),
            ("/v1/memory.limit_in_bytes", "9223372036854771712\n"),
            ("/v1/memory.stat", "total_rss 0\ntotal_inactive_file 0\n"),
        ]);
        check(&tree, Some(Group::V2(PathBuf::from("/v2"))), 25.0, 256, 1024, 0);
        check(&tree, Some(Group::V1(PathBuf::from("/v1"))), 25.0, 256, 1024, 0);
    }

    #[test]
    fn a_v1_group_counts_its_descendants_and_never_goes_below_zero() {
        let stat = format!(
            "inactive_file 1\nrss 1\ntotal_inactive_file {}\ntotal_rss {}\n",
            64 * MIB,
            32 * MIB
        );
        let tree = Tree::new(&[
            ("/proc/meminfo", MACHINE),
            ("/g/memory.usage_in_bytes", &format!("{}\n", 128 * MIB)),
            ("/g/memory.limit_in_bytes", &format!("{}\n", 256 * MIB)),
            ("/g/memory.stat", &stat),
        ]);
        let group = Some(Group::V1(PathBuf::from("/g")));
        check(&tree, group.clone(), 25.0, 64, 256, 32);
        tree.put("/g/memory.usage_in_bytes", &format!("{}\n", 64 * MIB));
        check(&tree, group, 25.0, 64, 256, 32);
    }

    #[test]
    fn a_missing_file_is_an_error_that_names_it() {
        let tree = Tree::new(&[("/proc/meminfo", MACHINE)]);
        let reader = MemoryReader::new(tree.root(), &groups(Some(Group::V2(PathBuf::from("/g")))));
        let error = reader.read(1).expect_err("no file");
        assert!(error.to_string().contains("g/memory.current"), "{error}");
    }
}
