//! The kernel's files of one container: found once, kept open, and read at every tick.
//!
//! Where they are: the control groups of the machine are below `/sys/fs/cgroup` of the host's
//! root, one folder for version 2, a folder a controller for version 1 (and often `unified` beside
//! them, which has the pressure). `mountinfo` is not asked: from inside of a container it tells
//! of that container's mounts, and hides the host's paths. Which group is a container's says
//! `/proc/PID/cgroup` of its first process; where that path cannot be seen from here (a control
//! group name space begins it with `..`), the tree is searched for the container's id, which is
//! in the folder's name for Docker and Podman, cgroupfs and systemd, whatever the parent. The
//! path ends at the level that bears the id: groups below it are the container's own affair.
//!
//! Invariant: a group without the container's id in its path is nobody's. A process number that
//! another machine's engine told means somebody else here.

use std::path::{Path, PathBuf};

use super::reading::{Reading, Throttled};
use crate::readings::cgroup::Group;
use crate::readings::cpu::{self, Machine};
use crate::readings::file::KernelFile;
use crate::readings::memory::{self, Use};
use crate::readings::{Moment, ReadError, Root, disk, network, value_of};

const CGROUPS: &str = "/sys/fs/cgroup";

/// How deep a container's group is looked for: `user.slice/user-1000.slice/user@1000.service/
/// user.slice/pod-….slice/libpod-….scope` is six.
const SEARCH_DEPTH_MAX: usize = 8;

/// How many groups are looked at for one container.
const SEARCH_GROUPS_MAX: usize = 20_000;

/// Where the machine's hierarchies are.
#[derive(Debug)]
pub struct Hierarchies {
    root: Root,
    /// Controllers of version 1, as the folder's name lists them, and the folder.
    v1: Vec<(String, PathBuf)>,
    v2: Option<PathBuf>,
    machine_bytes: u64,
}

impl Hierarchies {
    /// Looks below the host's root.
    #[must_use]
    pub fn find(root: Root) -> Self {
        let top = Path::new(CGROUPS);
        let machine_bytes = memory::machine(&root).map_or(u64::MAX, |whole| whole.limit_bytes);
        if root.has(&top.join("cgroup.controllers")) {
            return Self { root, v1: Vec::new(), v2: Some(top.to_owned()), machine_bytes };
        }
        let mut v1 = Vec::new();
        let mut v2 = None;
        for name in root.folders(top) {
            let folder = top.join(&name);
            if root.has(&folder.join("cgroup.controllers")) {
                v2 = Some(folder);
            } else {
                v1.push((name, folder));
            }
        }
        Self { root, v1, v2, machine_bytes }
    }

    /// The host's root.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Where a container's numbers will come from, in words.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match (self.v1.is_empty(), &self.v2) {
            (false, _) => "cgroup v1",
            (true, Some(_)) => "cgroup v2",
            (true, None) => "engine",
        }
    }

    /// Opens the files of a container; `None` where it has no group that could be seen.
    #[must_use]
    pub fn open(&self, id: &str, pid: i32, own_network: bool) -> Option<ContainerFiles> {
        let told = self.root.read(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let told = if told.contains(id) { told } else { String::new() };
        let find = |controller| self.group(controller, id, &told);
        let memory = find("memory")?;
        let usage = find("cpuacct")?;
        let v2 = matches!(memory, Group::V2(_));
        let open = |path: PathBuf| KernelFile::open(&self.root, path);
        let in_group = |group: &Group, file: &str| open(group.folder().join(file));
        // Version 2 counts throttling in the file that counts use.
        let quota = find("cpu");
        let blkio = find("blkio").and_then(|group| {
            let file = open(disk::group_file(&self.root, &group)?)?;
            Some((group, file))
        });
        let pids = find("pids");
        // Where version 1 counts, an empty version 2 beside it may have the pressure.
        let unified = self.v2.as_ref().and_then(|point| self.folder(point, "", id, &told));
        let pressure = |what: &str| open(unified.as_ref()?.join(format!("{what}.pressure")));
        let files = ContainerFiles {
            cpu: open(cpu::usage_file(&usage))?,
            throttling: quota
                .as_ref()
                .filter(|_| !v2)
                .and_then(|group| in_group(group, "cpu.stat")),
            memory_usage: open(memory::usage_file(&memory))?,
            memory_stat: in_group(&memory, "memory.stat")?,
            oom: in_group(&memory, if v2 { "memory.events" } else { "memory.oom_control" }),
            disk: blkio,
            pids: pids.as_ref().and_then(|group| in_group(group, "pids.current")),
            pressure: ["cpu", "memory", "io"].map(pressure),
            network: (own_network && !told.is_empty())
                .then(|| PathBuf::from(format!("/proc/{pid}/net/dev"))),
            limits: Limits::default(),
            usage,
            quota,
            memory,
            pids_group: pids,
        };
        Some(files)
    }

    /// Reads a container's limits, which may change while it runs.
    pub fn read_limits(&self, files: &mut ContainerFiles) {
        let pids = files.pids_group.as_ref();
        let pids = pids.and_then(|group| self.root.read(group.folder().join("pids.max")).ok());
        files.limits = Limits {
            cpus: files.quota.as_ref().and_then(|group| cpu::quota_cpus(&self.root, group)),
            bytes: memory::limit_bytes(&self.root, &files.memory, self.machine_bytes),
            // No limit is "max" in both versions.
            pids: pids.and_then(|text| text.trim().parse().ok()),
        };
    }

    fn group(&self, controller: &str, id: &str, told: &str) -> Option<Group> {
        let named = |names: &str| names.split(',').any(|name| name == controller);
        if let Some((_, point)) = self.v1.iter().find(|(names, _)| named(names)) {
            return self.folder(point, controller, id, told).map(Group::V1);
        }
        self.folder(self.v2.as_ref()?, "", id, told).map(Group::V2)
    }

    /// A container's folder below the mount point of a hierarchy.
    fn folder(&self, point: &Path, controller: &str, id: &str, told: &str) -> Option<PathBuf> {
        let told = told_path(told, controller).filter(|path| !path.contains("/.."));
        let folder = told.and_then(|path| up_to_level_with(path, id)).map(|path| point.join(path));
        match folder {
            Some(folder) if self.root.has(&folder) => Some(folder),
            _ => self.search(point, id),
        }
    }

    fn search(&self, point: &Path, id: &str) -> Option<PathBuf> {
        let mut level = vec![point.to_owned()];
        let mut left = SEARCH_GROUPS_MAX;
        for _ in 0..SEARCH_DEPTH_MAX {
            let mut below = Vec::new();
            for folder in level {
                for name in self.root.folders(&folder) {
                    // Podman's monitor has a group of its own: `libpod-conmon-ID.scope`.
                    if name.contains(id) && !name.contains("conmon") {
                        return Some(folder.join(name));
                    }
                    left = left.checked_sub(1)?;
                    below.push(folder.join(name));
                }
            }
            level = below;
        }
        None
    }
}

/// The path that `/proc/PID/cgroup` tells for a controller; version 2 is the one without a name.
fn told_path<'a>(told: &'a str, controller: &str) -> Option<&'a str> {
    told.lines().find_map(|line| {
        let (names, path) = line.split_once(':')?.1.split_once(':')?;
        names.split(',').any(|name| name == controller).then_some(path)
    })
}

/// The path up to the level that bears the id, without the slash at its beginning.
fn up_to_level_with<'a>(path: &'a str, id: &str) -> Option<&'a str> {
    let path = path.trim_start_matches('/');
    let end = path.find(id)? + id.len();
    let rest = path[end..].find('/').unwrap_or(path.len() - end);
    Some(&path[..end + rest])
}

/// What a container may use at most.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Limits {
    /// Processors.
    pub cpus: Option<f64>,
    /// Bytes of memory, or the machine's.
    pub bytes: u64,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// A container's open files.
#[derive(Debug)]
pub struct ContainerFiles {
    usage: Group,
    quota: Option<Group>,
    memory: Group,
    pids_group: Option<Group>,
    cpu: KernelFile,
    throttling: Option<KernelFile>,
    memory_usage: KernelFile,
    memory_stat: KernelFile,
    oom: Option<KernelFile>,
    disk: Option<(Group, KernelFile)>,
    pids: Option<KernelFile>,
    pressure: [Option<KernelFile>; 3],
    network: Option<PathBuf>,
    limits: Limits,
}

impl ContainerFiles {
    /// Where the numbers come from, in words.
    #[must_use]
    pub fn source(&self) -> &'static str {
        match self.memory {
            Group::V1(_) => "cgroup v1",
            Group::V2(_) => "cgroup v2",
        }
    }

    /// What the files say now.
    ///
    /// # Errors
    /// When the group is gone.
    pub fn read(
        &self,
        root: &Root,
        buffer: &mut Vec<u8>,
        now: Moment,
        machine: &Machine,
    ) -> Result<Reading, ReadError> {
        let text = self.cpu.read(buffer)?;
        let used = cpu::usage_ns(&self.usage, text);
        let used = used.ok_or_else(|| self.cpu.nonsense("CPU time"))?;
        let mut throttled = Throttled::parse(text);
        if let Some(file) = &self.throttling {
            throttled = Throttled::parse(file.read(buffer)?);
        }
        let usage = self.memory_usage.read(buffer)?.trim().parse();
        let usage = usage.map_err(|_| self.memory_usage.nonsense("number of bytes"))?;
        let stat = self.memory_stat.read(buffer)?;
        let memory = Use::of_group(&self.memory, usage, stat, self.limits.bytes);
        let mut text_of = |file: &Option<KernelFile>, parse: fn(&str) -> Option<u64>| {
            file.as_ref().and_then(|file| parse(file.read(buffer).ok()?))
        };
        let oom_kills = text_of(&self.oom, |text| value_of(text, "oom_kill"));
        let pids = text_of(&self.pids, |text| text.trim().parse().ok());
        let disk = self
            .disk
            .as_ref()
            .and_then(|(group, file)| Some(disk::parse(group, file.read(buffer).ok()?)));
        let mut pressure = |file: &Option<KernelFile>| {
            file.as_ref().and_then(|file| some_avg10(file.read(buffer).ok()?))
        };
        let [cpu, memory_pressure, io] = &self.pressure;
        let pressure = [pressure(cpu), pressure(memory_pressure), pressure(io)];
        let network = self.network.as_ref().and_then(|path| root.read(path).ok());
        Ok(Reading {
            moment: now,
            cpu: Some(machine.times(used)),
            limits: self.limits,
            memory: Some(memory),
            disk,
            network: network.map(|text| network::parse(&text)),
            pids,
            throttled,
            pressure,
            oom_kills,
        })
    }
}

/// `some avg10=7.97 avg60=1.43 …`: the share of the last ten seconds in which a task waited.
fn some_avg10(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some avg10="))?;
    some.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests;
