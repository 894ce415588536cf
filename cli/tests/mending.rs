//! Damage on one disk of three: named, set aside, mended from the others, and all agree again.

mod support;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use nix::sys::signal::Signal;
use support::{aklight, free_ports, run, send, wait_for_end, wait_until};

const BROKERS: u16 = 3;

struct Cluster {
    folder: tempfile::TempDir,
    port: u16,
    brokers: Vec<Child>,
}

impl Cluster {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut cluster = Self { folder, port: free_ports(BROKERS), brokers: Vec::new() };
        cluster.brokers = (1..=BROKERS).map(|id| cluster.spawn(id)).collect();
        (1..=BROKERS).for_each(|id| cluster.wait_until_it_serves(id));
        cluster
    }

    fn address(&self, id: u16) -> String {
        format!("127.0.0.1:{}", self.port + id - 1)
    }

    fn addresses(&self) -> String {
        (1..=BROKERS).map(|id| self.address(id)).collect::<Vec<_>>().join(",")
    }

    fn data(&self, id: u16) -> PathBuf {
        self.folder.path().join(format!("broker{id}"))
    }

    fn said(&self, id: u16) -> String {
        fs::read_to_string(self.folder.path().join(format!("broker{id}.log"))).expect("its words")
    }

    fn spawn(&self, id: u16) -> Child {
        let peer = |id: u16| format!("{id}@127.0.0.1:{}", self.port + id - 1 + 90);
        let peers = (1..=BROKERS).map(peer).collect::<Vec<_>>().join(",");
        let words = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join(format!("broker{id}.log")))
            .expect("a file");
        let (number, data) = (id.to_string(), self.data(id).display().to_string());
        let listen = self.address(id);
        let flags = ["--node-id", &number, "--data-dir", &data, "--listen", &listen];
        let mut command = aklight(&["broker", "--peers", &peers]);
        command.args(flags).stderr(words).spawn().expect("started")
    }

    fn wait_until_it_serves(&self, id: u16) {
        let brokers = format!("--brokers={}", self.address(id));
        wait_until("it serves", || run(&["topics", "#", &brokers]).status.success());
    }

    /// Ends a broker in good order.
    fn end(&mut self, id: u16) {
        let broker = &mut self.brokers[usize::from(id) - 1];
        send(broker.id(), Signal::SIGTERM);
        assert_eq!(wait_for_end(broker).code(), Some(0));
    }

    /// Stores ten records, in turn in both partitions, as a batch each.
    fn produce(&self, round: u32) {
        let brokers = format!("--brokers={}", self.addresses());
        let mut child = aklight(&["produce", "mend/me", "", "-", &brokers])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("started");
        let mut lines = child.stdin.take().expect("piped");
        (0..10).for_each(|n| writeln!(lines, "payload {round}.{n}").expect("written"));
        drop(lines);
        assert!(wait_for_end(&mut child).success());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for broker in &mut self.brokers {
            let _ = broker.kill();
            let _ = broker.wait();
        }
    }
}

/// The segment of a partition, and where a payload stands in it.
fn place(data: &Path, partition: u32, payload: &str) -> Option<(PathBuf, usize)> {
    let path = data.join(format!("partition_{partition}.log/00000000000000000000.log"));
    let bytes = fs::read(&path).expect("read");
    let at = bytes.windows(payload.len()).position(|part| part == payload.as_bytes())?;
    Some((path, at))
}

fn verify(args: &[&str]) -> (Option<i32>, String) {
    let output = run(&[&["verify"], args].concat());
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_flipped_bit_and_a_truncated_segment_are_named_set_aside_and_mended() {
    let mut cluster = Cluster::start();
    (0..20).for_each(|round| cluster.produce(round));
    cluster.end(2);

    let data = cluster.data(2);
    let (flipped, at) =
        place(&data, 0, "payload 5.0").or(place(&data, 0, "payload 5.1")).expect("stored");
    let mut bytes = fs::read(&flipped).expect("read");
    bytes[at] ^= 1;
    fs::write(&flipped, bytes).expect("written");
    let (cut, at) =
        place(&data, 1, "payload 9.0").or(place(&data, 1, "payload 9.1")).expect("stored");
    fs::OpenOptions::new().write(true).open(&cut).expect("open").set_len(at as u64).expect("cut");
    let (code, said) = verify(&[data.to_str().expect("text")]);
    assert_eq!(code, Some(1), "both are found on the disk: {said}");

    cluster.brokers[1] = cluster.spawn(2);
    cluster.wait_until_it_serves(2);
    let said = cluster.said(2);
    for segment in [&flipped, &cut] {
        let name = segment.display().to_string();
        let told = |what: &str| said.lines().any(|l| l.contains(&name) && l.contains(what));
        assert!(told("is damaged at byte") || told("damaged"), "{name} is named: {said}");
        assert!(told("is whole again"), "{name} is mended: {said}");
    }
    let beside = fs::read_dir(flipped.parent().expect("a folder")).expect("listed");
    let is_aside = |name: String| name.contains(".log.damaged-");
    let mut names = beside.map(|entry| entry.expect("listed").file_name().into_string());
    assert!(names.any(|name| name.is_ok_and(is_aside)), "the damaged bytes are kept");

    let brokers = cluster.addresses();
    wait_until("all three hold the same", || {
        let (code, said) = verify(&["--brokers", &brokers]);
        code == Some(0) && said.contains(" 200 records") && said.contains(": 0 findings")
    });
    (1..=BROKERS).for_each(|id| cluster.end(id));
    let dirs = [1, 2, 3].map(|id| cluster.data(id).display().to_string());
    let (code, said) = verify(&dirs.each_ref().map(String::as_str));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(": 0 findings"), "{said}");
}
