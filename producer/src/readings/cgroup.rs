//! Finds the control groups that this process is counted in, and whether they are a container's.
//!
//! `/proc/self/cgroup` says which group of each hierarchy we are in; `/proc/self/mountinfo` says
//! where the hierarchies are mounted and which of their groups the mount shows as its top. There
//! are three layouts: version 1 (a mount a controller), version 2 (one mount for all), and hybrid
//! (version 1, with an empty version 2 beside it for systemd). A controller is looked for in
//! version 1 first: where it is mounted there, version 2 does not have it.
//!
//! The group's folder is the mount point and, below it, our group's path without what the mount
//! shows as its top. Inside a container the path often names what only the host can see; the
//! mount point itself is then the container's group.
//!
//! We are in a container when the top that we see is not the machine's own (the kernel puts some
//! files into the machine's root group only, and leaves others out there), or when our group
//! bears a container engine's name. `/.dockerenv` is not asked: machine images made from
//! container images keep it, and a container without visible groups has nothing better to read
//! than the machine's files.

use std::path::{Path, PathBuf};

use super::Root;

/// Which layout the machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A mount a controller.
    V1,
    /// One mount for all.
    V2,
    /// Controllers in version 1, an empty version 2 beside them.
    Hybrid,
    /// No control groups that we could see.
    Absent,
}

impl Layout {
    /// As the log shows it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::Hybrid => "hybrid",
            Self::Absent => "none",
        }
    }
}

/// Where a controller's files are; they have other names in each version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Group {
    /// A folder of version 1.
    V1(PathBuf),
    /// A folder of version 2.
    V2(PathBuf),
}

impl Group {
    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        match self {
            Self::V1(folder) | Self::V2(folder) => folder,
        }
    }
}

/// The groups of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    /// The machine's layout.
    pub layout: Layout,
    /// Whether the groups are a container's.
    pub container: bool,
    /// CPU time used.
    pub cpuacct: Option<Group>,
    /// CPU limits.
    pub cpu: Option<Group>,
    /// Memory.
    pub memory: Option<Group>,
    /// Disks (`io` in version 2).
    pub blkio: Option<Group>,
}

/// What an engine's groups are called, or begin with.
const ENGINES: [&str; 7] =
    ["docker", "libpod", "kubepods", "cri-containerd", "crio", "lxc", "garden"];

impl Groups {
    /// Looks at the machine below `root`. Files that are missing mean groups that are missing.
    #[must_use]
    pub fn find(root: &Root) -> Self {
        let mounts = root.read("/proc/self/mountinfo").unwrap_or_default();
        let mounts: Vec<Mount<'_>> = mounts.lines().filter_map(Mount::parse).collect();
        let own = root.read("/proc/self/cgroup").unwrap_or_default();
        let places = Places { root, mounts: &mounts, own: &own };
        let memory = places.find("memory");
        let cpuacct = places.find("cpuacct");
        let container = [&memory, &cpuacct].into_iter().flatten().any(|place| place.container);
        let group = |place: Option<Place>| place.map(|place| place.group);
        Self {
            layout: layout(&mounts),
            container,
            cpu: group(places.find("cpu")),
            blkio: group(places.find("blkio")),
            memory: group(memory),
            cpuacct: group(cpuacct),
        }
    }
}

fn layout(mounts: &[Mount<'_>]) -> Layout {
    // A version 1 mount that names a hierarchy (`name=systemd`) counts no resource.
    let v1 = mounts.iter().any(|mount| mount.v1 && !mount.options.contains("name="));
    let v2 = mounts.iter().any(|mount| !mount.v1);
    match (v1, v2) {
        (true, true) => Layout::Hybrid,
        (true, false) => Layout::V1,
        (false, true) => Layout::V2,
        (false, false) => Layout::Absent,
    }
}

/// A line of mountinfo that mounts control groups.
struct Mount<'a> {
    v1: bool,
    /// The group that the mount shows as its top.
    top: String,
    point: PathBuf,
    options: &'a str,
}

impl<'a> Mount<'a> {
    /// `31 23 0:28 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw`: proc(5).
    fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (top, point) = (left.next()?, left.next()?);
        let mut right = right.splitn(3, ' ');
        let v1 = match right.next()? {
            "cgroup" => true,
            "cgroup2" => false,
            _ => return None,
        };
        let options = right.nth(1).unwrap_or_default();
        Some(Self { v1, top: unescaped(top), point: PathBuf::from(unescaped(point)), options })
    }

    fn has_controller(&self, controller: &str) -> bool {
        self.v1 && self.options.split(',').any(|option| option == controller)
    }
}

/// The kernel writes blanks and backslashes in paths as octal numbers.
fn unescaped(path: &str) -> String {
    path.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
}

struct Place {
    group: Group,
    container: bool,
}

struct Places<'a> {
    root: &'a Root,
    mounts: &'a [Mount<'a>],
    own: &'a str,
}

impl Places<'_> {
    fn find(&self, controller: &str) -> Option<Place> {
        let mut v1 = self.mounts.iter().filter(|mount| mount.has_controller(controller));
        let mut v2 = self.mounts.iter().filter(|mount| !mount.v1);
        let mount = v1.next().or_else(|| v2.next())?;
        let own = self.own_path(if mount.v1 { controller } else { "" });
        let folder = self.folder(mount, own);
        let container = self.is_container(mount, own);
        let group = if mount.v1 { Group::V1(folder) } else { Group::V2(folder) };
        Some(Place { group, container })
    }

    /// Our group's path in the hierarchy of a controller; version 2 is the one without a name.
    fn own_path(&self, controller: &str) -> &str {
        self.own
            .lines()
            .filter_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                Some((fields.next()?, fields.next()?))
            })
            .find(|(names, _)| names.split(',').any(|name| name == controller))
            .map_or("/", |(_, path)| path)
    }

    fn folder(&self, mount: &Mount<'_>, own: &str) -> PathBuf {
        let below = Path::new(own).strip_prefix(&mount.top).unwrap_or(Path::new(""));
        let folder = mount.point.join(below);
        // `..` is how the kernel names what lies outside of our name space.
        let outside = own.split('/').any(|level| level == "..");
        if outside || !self.root.has(&folder) { mount.point.clone() } else { folder }
    }

    fn is_container(&self, mount: &Mount<'_>, own: &str) -> bool {
        let machine_root = if mount.v1 {
            // The kernel makes this file in a hierarchy's root only (CFTYPE_ONLY_ON_ROOT).
            self.root.has(&mount.point.join("release_agent"))
        } else {
            // And this one in every group but the root (CFTYPE_NOT_ON_ROOT).
            !self.root.has(&mount.point.join("cgroup.events"))
        };
        mount.top != "/" || !machine_root || own.split('/').any(is_engines)
    }
}

/// Whether a level of a group's path is an engine's: `docker`, `docker-1a2b.scope`,
/// `kubepods.slice`; but not `docker.service`, which is the engine itself.
fn is_engines(level: &str) -> bool {
    let unit = Path::new(level).extension().is_some_and(|end| end == "service");
    !unit
        && ENGINES.iter().any(|engine| {
            level
                .strip_prefix(engine)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '.', '_']))
        })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Tree;
    use super::*;

    fn v1(folder: &str) -> Option<Group> {
        Some(Group::V1(PathBuf::from(folder)))
    }

    fn v2(folder: &str) -> Option<Group> {
        Some(Group::V2(PathBuf::from(folder)))
    }

    #[test]
    fn v2_in_a_container_with_its_own_name_space_is_the_mount_point() {
        let tree = Tree::new(&[
            ("/proc/self/cgroup", "0::/\n"),
            (
                "/proc/self/mountinfo",
                "1 0 0:50 / / rw - overlay overlay rw\n\
                 9 1 0:27 / /sys/fs/cgroup ro,nosuid master:11 - cgroup2 cgroup rw,nsdelegate\n",
            ),
            ("/sys/fs/cgroup/cgroup.events", "populated 1\n"),
        ]);
        let groups = Groups::find(&tree.root());
        assert!(groups.container);
        assert_eq!(groups.layout, Layout::V2);
        for group in [groups.cpu, groups.cpuacct, groups.memory, groups.blkio] {
            assert_eq!(group, v2("/sys/fs/cgroup"));
        }
    }

    #[test]
    fn v2_on_a_bare_machine_is_no_container_even_with_a_dockerenv() {
        let tree = Tree::new(&[
            ("/.dockerenv", ""),
            ("/proc/self/cgroup", "0::/user.slice/user-1000.slice/session-2.scope\n"),
            (
                "/proc/self/mountinfo",
                "9 1 0:27 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n",
            ),
            ("/sys/fs/cgroup/cgroup.controllers", "cpu io memory\n"),
            ("/sys/fs/cgroup/user.slice/user-1000.slice/session-2.scope/cgroup.events", ""),
        ]);
        let groups = Groups::find(&tree.root());
        assert!(!groups.container);
        assert_eq!(groups.memory, v2("/sys/fs/cgroup/user.slice/user-1000.slice/session-2.scope"));
    }

    #[test]
    fn v2_with_the_hosts_name_space_is_known_by_the_engines_name() {
        let tree = Tree::new(&[
            ("/proc/self/cgroup", "0::/system.slice/docker-1a2b.scope\n"),
            ("/proc/self/mountinfo", "9 1 0:27 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n"),
            ("/sys/fs/cgroup/system.slice/docker-1a2b.scope/memory.max", "max\n"),
        ]);
        let groups = Groups::find(&tree.root());
        assert!(groups.container);
        assert_eq!(groups.memory, v2("/sys/fs/cgroup/system.slice/docker-1a2b.scope"));
    }

    #[test]
    fn v1_in_a_container_is_the_group_that_the_mount_shows_as_its_top() {
        let tree = Tree::new(&[
            (
                "/proc/self/cgroup",
                "4:memory:/docker/1a2b\n3:cpu,cpuacct:/docker/1a2b\n2:blkio:/docker/1a2b\n",
            ),
            (
                "/proc/self/mountinfo",
                "7 1 0:30 /docker/1a2b /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n\
                 8 1 0:31 /docker/1a2b /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n\
                 9 1 0:32 /docker/1a2b /sys/fs/cgroup/blkio ro - cgroup cgroup rw,blkio\n",
            ),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "1\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpuacct.usage", "1\n"),
            ("/sys/fs/cgroup/blkio/blkio.throttle.io_service_bytes", ""),
        ]);
        let groups = Groups::find(&tree.root());
        assert!(groups.container);
        assert_eq!(groups.layout, Layout::V1);
        assert_eq!(groups.memory, v1("/sys/fs/cgroup/memory"));
        assert_eq!(groups.cpu, v1("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(groups.cpuacct, v1("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(groups.blkio, v1("/sys/fs/cgroup/blkio"));
    }

    #[test]
    fn v1_with_its_own_name_space_is_known_by_what_only_the_root_has() {
        let files = [
            ("/proc/self/cgroup", "4:memory:/\n"),
            (
                "/proc/self/mountinfo",
                "8 1 0:31 / /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
            ),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "1\n"),
        ];
        let tree = Tree::new(&files);
        assert!(Groups::find(&tree.root()).container);
        tree.put("/sys/fs/cgroup/memory/release_agent", "");
        assert!(!Groups::find(&tree.root()).container);
    }

    #[test]
    fn hybrid_reads_controllers_from_v1() {
        let tree = Tree::new(&[
            ("/proc/self/cgroup", "4:memory:/user.slice\n1:name=systemd:/\n0::/user.slice\n"),
            (
                "/proc/self/mountinfo",
                "6 1 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                 7 1 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                 8 1 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
            ),
            ("/sys/fs/cgroup/memory/release_agent", ""),
            ("/sys/fs/cgroup/memory/user.slice/memory.limit_in_bytes", "1\n"),
        ]);
        let groups = Groups::find(&tree.root());
        assert_eq!(groups.layout, Layout::Hybrid);
        assert!(!groups.container);
        assert_eq!(groups.memory, v1("/sys/fs/cgroup/memory/user.slice"));
    }

    #[test]
    fn without_control_groups_there_is_a_machine_and_no_group() {
        let tree = Tree::new(&[]);
        let groups = Groups::find(&tree.root());
        assert_eq!(groups.layout, Layout::Absent);
        assert!(!groups.container);
        assert_eq!(groups.memory, None);
    }

    #[test]
    fn engines_are_known_by_name_and_their_own_services_are_none() {
        for level in ["docker", "docker-1a2b.scope", "libpod-9f.scope", "kubepods.slice", "lxc"] {
            assert!(is_engines(level), "{level}");
        }
        for level in ["docker.service", "dockers", "user.slice", "", "containers"] {
            assert!(!is_engines(level), "{level}");
        }
    }

    #[test]
    fn blanks_in_a_mount_point_are_understood() {
        let line = "8 1 0:31 / /sys/fs/my\\040groups rw - cgroup2 none rw";
        let mount = Mount::parse(line).expect("a mount");
        assert_eq!(mount.point, Path::new("/sys/fs/my groups"));
    }
}
