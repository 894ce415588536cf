//! What this machine, or the container around this process, has and has used.
//!
//! Everything is read from the kernel's own files; one that is missing or strange is left out of
//! the sum, because a container may hide any of them.

use std::fs;
use std::num::NonZero;
use std::path::Path;
use std::thread;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

pub(crate) const MIB: u64 = 1 << 20;

/// What is left to the rest of the machine and to this process itself: less, and the kernel
/// would end somebody to find it.
const RESERVE: u64 = 32 * MIB;

/// The CPUs that this process may use: its affinity and its container's quota count.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// The CPU seconds that this process has used.
pub(crate) fn cpu_seconds() -> f64 {
    getrusage(UsageWho::RUSAGE_SELF).map_or(0.0, |usage| {
        (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6
    })
}

/// The most bytes that this process ever had resident. Not from `getrusage`, whose figure a
/// program inherits from the one that started it.
pub(crate) fn peak_rss() -> u64 {
    field_kib(&read(Path::new("/proc/self/status")), "VmHWM:").unwrap_or(0)
}

/// The bytes that may be taken here: the least that the machine and each cgroup around this
/// process have left.
pub(crate) fn memory_available() -> u64 {
    let machine = field_kib(&read(Path::new("/proc/meminfo")), "MemAvailable:");
    let groups = cgroup_left(Path::new("/sys/fs/cgroup"), &read(Path::new("/proc/self/cgroup")));
    let least = machine.into_iter().chain(groups).min().unwrap_or(u64::MAX);
    least.saturating_sub(RESERVE)
}

/// What the cgroups of this process have left: version 2, version 1, or none at all.
///
/// Inside a container the paths of /proc/self/cgroup may be those of the host, of which only the
/// root is mounted: so every folder from the path up to the root is asked, where it is there.
fn cgroup_left(root: &Path, own: &str) -> Option<u64> {
    own.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let one = controllers.split(',').any(|name| name == "memory");
            if !one && !controllers.is_empty() {
                return None;
            }
            let mount = if one { root.join("memory") } else { root.to_owned() };
            let files = if one { V1 } else { V2 };
            Path::new(path.trim_start_matches('/'))
                .ancestors()
                .filter_map(|folder| folder_left(&mount.join(folder), &files))
                .min()
        })
        .min()
}

/// The names of a memory controller's files.
struct Files {
    limit: &'static str,
    used: &'static str,
    /// The line of memory.stat with the file cache that the kernel would give up first.
    cache: &'static str,
}

const V2: Files = Files { limit: "memory.max", used: "memory.current", cache: "inactive_file " };
const V1: Files = Files {
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    cache: "total_inactive_file ",
};

/// What one cgroup has left; none where there is no limit ("max").
fn folder_left(folder: &Path, files: &Files) -> Option<u64> {
    let number = |name: &str| read(&folder.join(name)).trim().parse::<u64>().ok();
    let limit = number(files.limit)?;
    let used = number(files.used)?;
    let cache = read(&folder.join("memory.stat"))
        .lines()
        .find_map(|line| line.strip_prefix(files.cache)?.trim().parse().ok())
        .unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(cache)))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// A field of a file such as /proc/meminfo, in bytes.
fn field_kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(own: &str, files: &[(&str, &str)], expect: Option<u64>) {
        let root = tempfile::tempdir().expect("a folder");
        for (name, content) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, content).expect("written");
        }
        assert_eq!(cgroup_left(root.path(), own), expect, "{own}");
    }

    #[test]
    fn the_tightest_cgroup_counts() {
        check(
            "0::/a/b\n",
            &[
                ("a/memory.max", "1000\n"),
                ("a/memory.current", "900\n"),
                ("a/memory.stat", "anon 1\ninactive_file 50\n"),
                ("a/b/memory.max", "max\n"),
                ("a/b/memory.current", "10\n"),
            ],
            Some(150),
        );
    }

    #[test]
    fn version_one_and_a_path_of_the_host_are_understood() {
        check(
            "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n",
            &[
                ("memory/memory.limit_in_bytes", "1000\n"),
                ("memory/memory.usage_in_bytes", "400\n"),
                ("memory/memory.stat", "inactive_file 7\ntotal_inactive_file 100\n"),
            ],
            Some(700),
        );
    }

    #[test]
    fn without_limits_only_the_machine_counts() {
        check("0::/\n", &[("memory.current", "5\n")], None);
        check("", &[], None);
        assert!(memory_available() > 0 && peak_rss() > 0 && cores() > 0);
    }
}
