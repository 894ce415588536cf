use super::*;
use crate::readings::fixture::Tree;

const ID: &str = "1a2b3c4d5e6f1a2b3c4d5e6f1a2b3c4d5e6f1a2b3c4d5e6f1a2b3c4d5e6f1a2b";

const STAT: &str = "cpu  100 0 0 100 0 0 0 0 0 0\ncpu0 1 0 0 1\ncpu1 1 0 0 1\n";
const MEMINFO: &str = "MemTotal:  1048576 kB\nMemAvailable:  786432 kB\n";
const NET_DEV: &str =
    "  lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n eth0: 10 1 2 3 0 0 0 0 20 1 4 5 0 0 0 0\n";

/// A machine with version 2, and a container in `group` whose process says `told`.
fn v2(group: &str, told: &str) -> Tree {
    let tree = Tree::new(&[
        ("/proc/stat", STAT),
        ("/proc/meminfo", MEMINFO),
        ("/proc/77/cgroup", told),
        ("/proc/77/net/dev", NET_DEV),
        ("/sys/fs/cgroup/cgroup.controllers", "cpu io memory pids\n"),
    ]);
    for (file, text) in [
        ("cpu.stat", "usage_usec 5000\nnr_periods 10\nnr_throttled 4\nthrottled_usec 70\n"),
        ("cpu.max", "50000 100000\n"),
        ("memory.current", "3000\n"),
        ("memory.stat", "anon 500\ninactive_file 1000\n"),
        ("memory.max", "8000\n"),
        ("memory.events", "low 0\noom 1\noom_kill 2\n"),
        ("io.stat", "8:0 rbytes=11 wbytes=22 rios=1\n"),
        ("pids.current", "3\n"),
        ("pids.max", "100\n"),
        ("cpu.pressure", "some avg10=1.50 avg60=0 avg300=0 total=1\nfull avg10=9.00\n"),
        ("memory.pressure", "some avg10=0.25 avg60=0 avg300=0 total=1\n"),
        ("io.pressure", "some avg10=0.00 avg60=0 avg300=0 total=1\n"),
    ] {
        tree.put(&format!("/sys/fs/cgroup/{group}/{file}"), text);
    }
    tree
}

fn read(tree: &Tree, id: &str, pid: i32) -> Option<Reading> {
    let hierarchies = Hierarchies::find(tree.root());
    let mut files = hierarchies.open(id, pid, true)?;
    hierarchies.read_limits(&mut files);
    let machine = Machine::read(&tree.root()).expect("a machine");
    let now = Moment { wall_ms: 1, monotonic_us: 1 };
    Some(files.read(&tree.root(), &mut Vec::new(), now, &machine).expect("a reading"))
}

/// What every container of these tests has, in whatever version.
fn check(reading: Option<Reading>, pressure: [Option<f64>; 3]) {
    let reading = reading.expect("files");
    let cpu = reading.cpu.expect("cpu");
    assert_eq!((cpu.used, cpu.whole, cpu.cpus), (5_000_000, 2_000_000_000, 2));
    let limits = Limits { cpus: Some(0.5), bytes: 8000, pids: Some(100) };
    assert_eq!(reading.limits, limits);
    let memory = Use { bytes: 2000, limit_bytes: 8000, rss_bytes: Some(500) };
    assert_eq!(reading.memory, Some(memory));
    assert_eq!(reading.disk.expect("disk")["8:0"], [11, 22]);
    assert_eq!(reading.network.expect("network")["eth0"], [10, 20, 2, 4, 3, 5]);
    assert_eq!(reading.pids, Some(3));
    let throttled = Throttled::parse("nr_periods 10\nnr_throttled 4\nthrottled_usec 70\n");
    assert_eq!(reading.throttled, throttled);
    assert_eq!(reading.pressure, pressure);
    assert_eq!(reading.oom_kills, Some(2));
}

#[test]
fn v2_groups_are_found_wherever_engines_put_them() {
    for group in [
        format!("docker/{ID}"),
        format!("system.slice/docker-{ID}.scope"),
        format!("machine.slice/libpod-{ID}.scope"),
        format!("user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope"),
        format!("my.slice/my-own.slice/docker-{ID}.scope"),
    ] {
        let pressure = [Some(1.5), Some(0.25), Some(0.0)];
        check(read(&v2(&group, &format!("0::/{group}\n")), ID, 77), pressure);
        // Groups below are the container's own affair: systemd in it, or Podman's `container`.
        check(read(&v2(&group, &format!("0::/{group}/init.scope\n")), ID, 77), pressure);
        // From inside a name space the path is another's: it is looked for.
        let level = group.rsplit('/').next().expect("a level");
        check(read(&v2(&group, &format!("0::/../../{level}\n")), ID, 77), pressure);
    }
}

#[test]
fn podmans_monitor_is_not_the_container() {
    // Nearer to the top, so that whoever looks for the id comes by it first.
    let group = format!("machine.slice/pod.slice/libpod-{ID}.scope");
    let tree = v2(&group, &format!("0::/../libpod-{ID}.scope\n"));
    tree.put(&format!("/sys/fs/cgroup/machine.slice/libpod-conmon-{ID}.scope/memory.current"), "9");
    check(read(&tree, ID, 77), [Some(1.5), Some(0.25), Some(0.0)]);
}

#[test]
fn v1_controllers_are_folders_of_their_own_and_the_unified_one_has_the_pressure() {
    let tree = Tree::new(&[
        ("/proc/stat", STAT),
        ("/proc/meminfo", MEMINFO),
        ("/proc/77/net/dev", NET_DEV),
        ("/sys/fs/cgroup/systemd/release_agent", ""),
        ("/sys/fs/cgroup/unified/cgroup.controllers", ""),
    ]);
    let told = ["9:name=systemd", "4:memory", "3:cpu,cpuacct", "2:blkio", "1:pids", "0:"];
    let told = told.map(|head| format!("{head}:/docker/{ID}\n")).concat();
    tree.put("/proc/77/cgroup", &told);
    for (file, text) in [
        ("cpu,cpuacct/X/cpuacct.usage", "5000000\n"),
        ("cpu,cpuacct/X/cpu.stat", "nr_periods 10\nnr_throttled 4\nthrottled_time 70000\n"),
        ("cpu,cpuacct/X/cpu.cfs_quota_us", "50000\n"),
        ("cpu,cpuacct/X/cpu.cfs_period_us", "100000\n"),
        ("memory/X/memory.usage_in_bytes", "3000\n"),
        ("memory/X/memory.stat", "rss 1\ntotal_rss 500\ntotal_inactive_file 1000\n"),
        ("memory/X/memory.limit_in_bytes", "8000\n"),
        ("memory/X/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
        ("blkio/X/blkio.throttle.io_service_bytes_recursive", "8:0 Read 11\n8:0 Write 22\n"),
        ("pids/X/pids.current", "3\n"),
        ("pids/X/pids.max", "100\n"),
        ("unified/X/cpu.pressure", "some avg10=7.00 avg60=0\n"),
    ] {
        tree.put(&format!("/sys/fs/cgroup/{}", file.replace('X', &format!("docker/{ID}"))), text);
    }
    assert_eq!(Hierarchies::find(tree.root()).name(), "cgroup v1");
    check(read(&tree, ID, 77), [Some(7.0), None, None]);
}

#[test]
fn a_process_of_somebody_else_is_not_taken_for_the_containers() {
    let tree = v2("system.slice/sshd.service", "0::/system.slice/sshd.service\n");
    assert!(read(&tree, ID, 77).is_none());
    // The group is found without the process; then the network is not read from the stranger.
    let tree = v2(&format!("docker/{ID}"), "0::/system.slice/sshd.service\n");
    assert!(read(&tree, ID, 77).expect("files").network.is_none());
}

#[test]
fn what_the_machine_has_not_is_left_out() {
    let group = format!("docker/{ID}");
    let tree = v2(&group, &format!("0::/{group}\n"));
    for file in ["io.stat", "pids.current", "cpu.pressure", "memory.pressure", "io.pressure"] {
        tree.remove(&format!("/sys/fs/cgroup/{group}/{file}"));
    }
    for (file, text) in
        [("cpu.max", "max 100000\n"), ("memory.max", "max\n"), ("pids.max", "max\n")]
    {
        tree.put(&format!("/sys/fs/cgroup/{group}/{file}"), text);
    }
    let reading = read(&tree, ID, 77).expect("files");
    assert_eq!(reading.limits, Limits { cpus: None, bytes: 1 << 30, pids: None });
    assert_eq!((reading.disk, reading.pids, reading.pressure), (None, None, [None; 3]));
}

#[test]
fn the_path_ends_at_the_level_that_bears_the_id() {
    assert_eq!(up_to_level_with("/a/docker-12.scope/init.scope", "12"), Some("a/docker-12.scope"));
    assert_eq!(up_to_level_with("/docker/12", "12"), Some("docker/12"));
    assert_eq!(up_to_level_with("/docker/34", "12"), None);
}
