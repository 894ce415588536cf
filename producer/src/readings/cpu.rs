//! CPU: percent of one processor, as `docker stats` computes it.
//!
//! In a container: the CPU time of its group, divided by what all processors of the machine
//! spent (busy or idle) in the same span, times the number of processors. On a machine: the
//! busy part of that span instead of a group's. Four busy processors are 400 percent.
//!
//! The limit is the group's quota (`cpu.max`, or `cpu.cfs_quota_us`), in processors; without one
//! it is all processors of the machine. `limit_percent` is the value in percent of the limit.
//! `usage_us` is the counter itself, for those who make rates of their own. What is left out: a
//! limit by cpuset.

use std::path::PathBuf;

use super::cgroup::{Group, Groups};
use super::{ReadError, Root, value_of};
use crate::sample::Sample;

const STAT: &str = "/proc/stat";

/// `/proc/stat` counts in ticks of 1/100 s on every architecture that Linux runs on today
/// (`USER_HZ`, proc(5)).
const TICK_NS: u64 = 10_000_000;

/// Reads CPU use at every tick.
#[derive(Debug)]
pub struct CpuReader {
    root: Root,
    usage: Usage,
    quota: Option<Group>,
    counter: CpuCounter,
}

#[derive(Debug)]
enum Usage {
    Machine,
    Group(Group),
}

/// CPU time so far, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// What was used.
    pub used: u64,
    /// What all processors of the machine spent, busy or idle.
    pub whole: u64,
    /// How many processors those are.
    pub cpus: u32,
}

/// The last reading, and what the next one makes of it.
#[derive(Debug, Default)]
pub struct CpuCounter {
    last: Option<Times>,
}

impl CpuCounter {
    /// What was used since the last reading; `None` at the first, and when a counter restarted.
    pub fn update(
        &mut self,
        wall_ms: u64,
        times: Times,
        limit_cpus: Option<f64>,
    ) -> Option<Sample> {
        let last = self.last.replace(times)?;
        let used = times.used.checked_sub(last.used)?;
        let whole = times.whole.checked_sub(last.whole).filter(|whole| *whole > 0)?;
        let cpus = f64::from(times.cpus);
        let value = super::percent(used, whole) * cpus;
        let limit_cpus = limit_cpus.unwrap_or(cpus);
        Some(
            Sample::new(wall_ms, value, "percent")
                .with("cpus", u64::from(times.cpus))
                .with("limit_cpus", limit_cpus)
                .with("limit_percent", value / limit_cpus)
                .with("usage_us", times.used / 1000),
        )
    }
}

impl CpuReader {
    /// A reader of the container, or else of the machine.
    #[must_use]
    pub fn new(root: Root, groups: &Groups) -> Self {
        let own = groups.container.then(|| groups.cpuacct.clone()).flatten();
        let quota = groups.container.then(|| groups.cpu.clone()).flatten();
        let usage = own.map_or(Usage::Machine, Usage::Group);
        Self { root, usage, quota, counter: CpuCounter::default() }
    }

    /// What was used since the last reading; `None` at the first, and when a counter restarted.
    ///
    /// # Errors
    /// When a file cannot be read or holds something else.
    pub fn read(&mut self, wall_ms: u64) -> Result<Option<Sample>, ReadError> {
        let machine = Machine::read(&self.root)?;
        let used = match &self.usage {
            Usage::Machine => machine.busy,
            Usage::Group(group) => {
                let path = usage_file(group);
                let used = usage_ns(group, &self.root.read(&path)?);
                used.ok_or_else(|| self.root.nonsense(path, "CPU time"))?
            }
        };
        let limit_cpus = self.quota.as_ref().and_then(|group| quota_cpus(&self.root, group));
        Ok(self.counter.update(wall_ms, machine.times(used), limit_cpus))
    }
}

/// A group's quota in processors. A missing file is a missing limit: the top group of a
/// hierarchy has no such file.
#[must_use]
pub fn quota_cpus(root: &Root, group: &Group) -> Option<f64> {
    let read = |path: PathBuf| root.read(path).ok();
    let (quota, period): (f64, f64) = match group {
        Group::V1(folder) => (
            read(folder.join("cpu.cfs_quota_us"))?.trim().parse().ok()?,
            read(folder.join("cpu.cfs_period_us"))?.trim().parse().ok()?,
        ),
        Group::V2(folder) => {
            let text = read(folder.join("cpu.max"))?;
            let (quota, period) = text.trim().split_once(' ')?;
            (quota.parse().ok()?, period.parse().ok()?)
        }
    };
    // No limit is "max" in version 2, which is no number, and -1 in version 1.
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

/// The file that counts a group's CPU time.
#[must_use]
pub fn usage_file(group: &Group) -> PathBuf {
    group.folder().join(match group {
        Group::V1(_) => "cpuacct.usage",
        Group::V2(_) => "cpu.stat",
    })
}

/// A group's CPU time so far, out of its [`usage_file`].
#[must_use]
pub fn usage_ns(group: &Group, text: &str) -> Option<u64> {
    match group {
        Group::V1(_) => text.trim().parse().ok(),
        Group::V2(_) => value_of(text, "usage_usec").map(|us| us * 1000),
    }
}

/// The first lines of `/proc/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    busy: u64,
    whole: u64,
    cpus: u32,
}

impl Machine {
    /// What the machine's processors did so far.
    ///
    /// # Errors
    /// When the file cannot be read or holds something else.
    pub fn read(root: &Root) -> Result<Self, ReadError> {
        let stat = root.read(STAT)?;
        Self::parse(&stat).ok_or_else(|| root.nonsense(STAT, "line of CPU times"))
    }

    /// What a group used, beside what the machine spent.
    #[must_use]
    pub fn times(&self, used: u64) -> Times {
        Times { used, whole: self.whole, cpus: self.cpus }
    }

    fn parse(stat: &str) -> Option<Self> {
        // user nice system idle iowait irq softirq, as `docker stats` adds them up; steal is time
        // that we did not have, and guest time is already in user.
        const FIELDS: usize = 7;
        const IDLE: usize = 3;
        const IO_WAIT: usize = 4;
        let sum = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks: Vec<u64> =
            sum.split_ascii_whitespace().take(FIELDS).map_while(|n| n.parse().ok()).collect();
        if ticks.len() < FIELDS {
            return None;
        }
        let whole: u64 = ticks.iter().sum();
        let idle = ticks[IDLE] + ticks[IO_WAIT];
        let one_cpu = |line: &str| {
            line.strip_prefix("cpu")
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        let cpus = u32::try_from(stat.lines().filter(|line| one_cpu(line)).count()).ok()?;
        Some(Self { busy: (whole - idle) * TICK_NS, whole: whole * TICK_NS, cpus: cpus.max(1) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::cgroup::Layout;
    use super::super::fixture::Tree;
    use super::*;

    const NONE: Groups = Groups {
        layout: Layout::Absent,
        container: false,
        cpu: None,
        cpuacct: None,
        memory: None,
        blkio: None,
    };

    /// Two processors; `busy` and `idle` in ticks.
    fn stat(busy: u64, idle: u64) -> String {
        format!("cpu  {busy} 0 0 {idle} 0 0 0 999 0 0\ncpu0 1 0 0 1\ncpu1 1 0 0 1\nintr 1 2 3\n")
    }

    fn in_group(group: Group) -> Groups {
        Groups { container: true, cpu: Some(group.clone()), cpuacct: Some(group), ..NONE }
    }

    #[test]
    fn a_machine_is_percent_of_one_processor() {
        let tree = Tree::new(&[("/proc/stat", &stat(1000, 1000))]);
        let mut reader = CpuReader::new(tree.root(), &NONE);
        assert_eq!(reader.read(1).expect("read"), None);
        // 150 of 200 ticks busy on two processors.
        tree.put("/proc/stat", &stat(1150, 1050));
        let sample = reader.read(2).expect("read").expect("a sample");
        assert_eq!(sample.value(), 150.0);
        assert_eq!(sample.field("cpus"), Some(2.0));
        assert_eq!(sample.field("limit_cpus"), Some(2.0));
        assert_eq!(sample.field("limit_percent"), Some(75.0));
    }

    #[test]
    fn a_v2_group_is_measured_against_the_machine_and_its_own_quota() {
        let tree = Tree::new(&[
            ("/proc/stat", &stat(0, 1000)),
            ("/sys/fs/cgroup/cpu.stat", "usage_usec 500000\nuser_usec 1\n"),
            ("/sys/fs/cgroup/cpu.max", "50000 100000\n"),
        ]);
        let group = Group::V2(PathBuf::from("/sys/fs/cgroup"));
        let mut reader = CpuReader::new(tree.root(), &in_group(group));
        assert_eq!(reader.read(1).expect("read"), None);
        // One second (200 ticks of two processors), 0.25 s used.
        tree.put("/proc/stat", &stat(100, 1100));
        tree.put("/sys/fs/cgroup/cpu.stat", "usage_usec 750000\n");
        let sample = reader.read(2).expect("read").expect("a sample");
        assert_eq!(sample.value(), 25.0);
        assert_eq!(sample.field("usage_us"), Some(750_000.0));
        assert_eq!(sample.field("limit_cpus"), Some(0.5));
        assert_eq!(sample.field("limit_percent"), Some(50.0));
    }

    #[test]
    fn no_quota_is_all_processors_in_both_versions() {
        let tree = Tree::new(&[
            ("/proc/stat", &stat(0, 1000)),
            ("/v2/cpu.stat", "usage_usec 0\n"),
            ("/v2/cpu.max", "max 100000\n"),
            ("/v1/cpuacct.usage", "0\n"),
            ("/v1/cpu.cfs_quota_us", "-1\n"),
            ("/v1/cpu.cfs_period_us", "100000\n"),
        ]);
        for group in [Group::V1(PathBuf::from("/v1")), Group::V2(PathBuf::from("/v2"))] {
            tree.put("/proc/stat", &stat(0, 1000));
            let mut reader = CpuReader::new(tree.root(), &in_group(group));
            reader.read(1).expect("read");
            tree.put("/proc/stat", &stat(0, 1200));
            let sample = reader.read(2).expect("read").expect("a sample");
            assert_eq!(sample.field("limit_cpus"), Some(2.0));
        }
    }

    #[test]
    fn a_v1_group_counts_in_nanoseconds() {
        let tree = Tree::new(&[
            ("/proc/stat", &stat(0, 1000)),
            ("/v1/cpuacct.usage", "1000000000\n"),
            ("/v1/cpu.cfs_quota_us", "150000\n"),
            ("/v1/cpu.cfs_period_us", "100000\n"),
        ]);
        let mut reader = CpuReader::new(tree.root(), &in_group(Group::V1(PathBuf::from("/v1"))));
        reader.read(1).expect("read");
        tree.put("/proc/stat", &stat(200, 1000));
        tree.put("/v1/cpuacct.usage", "2500000000\n");
        let sample = reader.read(2).expect("read").expect("a sample");
        assert_eq!(sample.field("usage_us"), Some(2_500_000.0));
        assert_eq!(sample.value(), 150.0);
        assert_eq!(sample.field("limit_percent"), Some(100.0));
    }

    #[test]
    fn a_counter_that_restarted_is_a_new_baseline() {
        let tree = Tree::new(&[("/proc/stat", &stat(0, 1000)), ("/v1/cpuacct.usage", "5000\n")]);
        let mut reader = CpuReader::new(tree.root(), &in_group(Group::V1(PathBuf::from("/v1"))));
        reader.read(1).expect("read");
        tree.put("/proc/stat", &stat(0, 1200));
        tree.put("/v1/cpuacct.usage", "10\n");
        assert_eq!(reader.read(2).expect("read"), None);
        tree.put("/proc/stat", &stat(0, 1400));
        tree.put("/v1/cpuacct.usage", "1000000010\n");
        let sample = reader.read(3).expect("read").expect("a sample");
        assert_eq!(sample.value(), 100.0);
    }

    #[test]
    fn a_missing_or_odd_file_is_an_error_that_names_it() {
        let tree = Tree::new(&[]);
        let error = CpuReader::new(tree.root(), &NONE).read(1).expect_err("no file");
        assert!(error.to_string().contains("/proc/stat"), "{error}");
        tree.put("/proc/stat", "cpu what\n");
        let error = CpuReader::new(tree.root(), &NONE).read(1).expect_err("odd file");
        assert!(matches!(error, ReadError::Nonsense { .. }), "{error}");
    }
}
