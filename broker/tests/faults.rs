//! What goes wrong on users' machines: each gives an error that says what to do, and the broker
//! goes on or ends cleanly.

mod support;

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use support::{BrokerProcess, PATIENCE, command, damage};

/// Runs a broker that must not start; gives what it said.
fn fails(data_dir: &Path, flags: &[&str]) -> String {
    let child = command(data_dir, flags).stderr(Stdio::piped()).spawn().expect("built");
    let Output { status, stderr, .. } = child.wait_with_output().expect("ends");
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(1), "{said}");
    said
}

#[test]
fn a_second_broker_on_the_same_folder_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = BrokerProcess::start(folder.path());
    let said = fails(folder.path(), &[]);
    assert!(said.contains("in use by another broker"), "{said}");
    assert!(said.contains(&format!("process {}", broker.pid())), "{said}");
    assert_eq!(broker.connect().ask("PING|x"), "PONG|x");
}

#[test]
fn a_port_in_use_is_named_with_its_flag() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let said = fails(folder.path(), &["--listen", &address]);
    assert!(said.contains("--listen") && said.contains("another program has this port"), "{said}");
    let said = fails(folder.path(), &["--listen-http", &address]);
    assert!(said.contains("--listen-http"), "{said}");
}

#[test]
fn a_folder_without_permission_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, "no folder").expect("written");
    let said = fails(&file.join("data"), &[]);
    assert!(said.contains("cannot be used as --data-dir"), "{said}");
    if nix::unistd::geteuid().is_root() {
        // Root may write anywhere: the rest needs another user.
        let locked = folder.path().join("locked");
        fs::create_dir(&locked).expect("made");
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).expect("set");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("set");
        let mut as_nobody = command(&locked.join("data"), &[]);
        std::os::unix::process::CommandExt::uid(&mut as_nobody, 65534);
        let output = as_nobody.stderr(Stdio::piped()).output().expect("runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("this user may write to"), "{said}");
    }
}

#[test]
fn a_folder_of_another_broker_or_another_number_of_partitions_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    BrokerProcess::start_with(folder.path(), &["--partitions", "3"]).terminate();
    let said = fails(folder.path(), &["--node-id", "2"]);
    assert!(said.contains("belongs to broker 1"), "{said}");
    let said = fails(folder.path(), &["--partitions", "2"]);
    assert!(said.contains("created with 3 partitions"), "{said}");
    let broker = BrokerProcess::start(folder.path());
    assert_eq!(broker.connect().listing("CLUSTER").len(), 5);
}

#[test]
fn one_connection_too_many_is_told_to_try_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = BrokerProcess::start_with(folder.path(), &["--max-connections", "3"]);
    let mut let_in: Vec<_> = (0..3).map(|_| broker.connect()).collect();
    for nc in &mut let_in {
        assert_eq!(nc.ask("PING|in"), "PONG|in");
    }
    let mut refused = broker.connect();
    assert!(refused.line().expect("a line").starts_with("ERR|busy|"));
    assert_eq!(refused.line(), None);
    drop(let_in.pop());
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut nc = broker.connect();
        nc.send("PING|now");
        if nc.line().as_deref() == Some("PONG|now") {
            break;
        }
        assert!(Instant::now() < deadline, "a place becomes free");
    }
}

#[test]
fn five_thousand_connections_leave_the_broker_serving() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_, hard) =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).expect("known");
    assert!(hard >= 6000, "this test needs 6,000 file handles, the system allows {hard}");
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 6000, hard)
        .expect("raised");
    let broker = BrokerProcess::start(folder.path());
    let mut first = broker.connect();
    assert_eq!(first.ask("PING|1"), "PONG|1");
    let sockets: Vec<_> = (0..5000)
        .map(|_| std::net::TcpStream::connect(broker.address).expect("accepted or refused"))
        .collect();
    // The limit is 4,096 by default: the others are told so.
    let told = sockets
        .iter()
        .rev()
        .take(100)
        .filter(|socket| {
            let mut text = [0; 9];
            socket.set_read_timeout(Some(PATIENCE)).expect("set");
            (&mut &**socket).read_exact(&mut text).is_ok() && &text == b"ERR|busy|"
        })
        .count();
    assert_eq!(told, 100, "those beyond the limit are told");
    assert_eq!(first.ask("PING|2"), "PONG|2");
    drop(sockets);
    assert!(first.ask("PRODUCE|t|k|v").starts_with("ACK|t|0|"));
}

#[test]
fn a_client_that_never_reads_is_cut_off_and_holds_nobody_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = BrokerProcess::start_with(folder.path(), &["--slow-client-seconds", "1"]);
    let mut stalled = broker.connect();
    assert_eq!(stalled.ask("SUBSCRIBE|#"), "OK");
    let (mut quick, mut producer) = (broker.connect(), broker.connect());
    assert_eq!(quick.ask("SUBSCRIBE|#"), "OK");
    let payload = "x".repeat(100_000);
    // More than the kernel's buffers of one connection hold.
    for n in 0..300 {
        assert!(producer.ask(&format!("PRODUCE|t|k|{payload}")).starts_with("ACK|"));
        assert!(quick.line().expect("pushed").starts_with(&format!("MESSAGE|t|{n}|")));
    }
    broker.wait_for_log("was cut off");
    let rss = resident_bytes(broker.pid());
    assert!(rss < 200 << 20, "a slow reader costs no memory: {rss}");
    // It still finds whole lines, then why it was cut off, or the end.
    let mut last = String::new();
    while let Ok(Some(line)) =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| stalled.line()))
    {
        last = line;
    }
    assert!(
        last.starts_with("MESSAGE|") || last.starts_with("ERR|busy|cut off"),
        "{}",
        &last[..40]
    );
    assert_eq!(quick.ask("PING|x"), "PONG|x");
}

fn resident_bytes(pid: u32) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).expect("it runs");
    let pages: u64 = statm.split(' ').nth(1).and_then(|p| p.parse().ok()).expect("a number");
    pages * 4096
}

/// The only segment of the partition that key `k` leads to.
fn segment(folder: &Path) -> std::path::PathBuf {
    let partition = b"k".iter().fold(5381_u32, |h, b| h.wrapping_mul(33) + u32::from(*b)) % 2;
    folder.join(format!("partition_{partition}.log/00000000000000000000.log"))
}

#[test]
fn a_damaged_batch_is_named_set_aside_and_gone_around() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = BrokerProcess::start(folder.path());
    let mut nc = broker.connect();
    for n in 0..100 {
        nc.ask(&format!("PRODUCE|t|k|payload number {n}"));
    }
    broker.kill();
    let path = segment(folder.path());
    let mut bytes = fs::read(&path).expect("there");
    let at = bytes.windows(17).position(|w| w == b"payload number 50").expect("stored");
    bytes[at] ^= 0x10;
    fs::write(&path, &bytes).expect("written");
    let broker = BrokerProcess::start(folder.path());
    let mut nc = broker.connect();
    let events = support::get(broker.http, "/debug/events").1;
    assert!(events.contains("damage"), "{events}");
    let aside = fs::read_dir(path.parent().expect("a folder"))
        .expect("listed")
        .any(|entry| entry.expect("read").file_name().to_string_lossy().contains(".damaged-"));
    assert!(aside, "the damaged bytes are set aside");
    let partition = u32::from(path.to_string_lossy().contains("partition_1"));
    let listing = nc.listing(&format!("FETCH|t|0|{partition}|1000|0"));
    assert_eq!(listing.last().expect("an END"), &format!("END|50|{partition}:50"));
    let text = nc.refused(&format!("FETCH|t|50|{partition}|1000|0"), "offset_out_of_range");
    assert!(text.contains("51"), "{text}");
    assert_eq!(nc.listing(&format!("FETCH|t|51|{partition}|1000|0")).len(), 50);
    assert!(nc.ask("PRODUCE|t|k|goes on").starts_with("ACK|t|100|"));
}

#[test]
fn a_torn_tail_is_cut_and_what_was_acknowledged_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = BrokerProcess::start(folder.path());
    let mut nc = broker.connect();
    for n in 0..10 {
        nc.ask(&format!("PRODUCE|t|k|{n}"));
    }
    broker.kill();
    let path = segment(folder.path());
    let mut bytes = fs::read(&path).expect("there");
    let written = bytes.iter().rposition(|b| *b != 0).expect("not empty") + 1;
    // Half a batch, as a torn write leaves it.
    let torn: Vec<u8> = bytes[..40].to_vec();
    bytes[written..written + 40].copy_from_slice(&torn);
    fs::write(&path, &bytes).expect("written");
    let broker = BrokerProcess::start(folder.path());
    let mut nc = broker.connect();
    assert_eq!(nc.listing("FETCH|t|0").len(), 11);
    assert!(nc.ask("PRODUCE|t|k|goes on").starts_with("ACK|t|10|"));
}

#[test]
fn a_full_disk_refuses_records_and_takes_them_again_when_there_is_room() {
    if !nix::unistd::geteuid().is_root() {
        // Mounting a small file system needs root; the container tests run as root.
        eprintln!("not run: mounting a tmpfs needs root");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mounted = Tmpfs::mount(folder.path(), "16m");
    let broker = BrokerProcess::start(&folder.path().join("data"));
    let mut nc = broker.connect();
    let payload = "x".repeat(100_000);
    let mut acknowledged = 0;
    let refused = loop {
        let answer = nc.ask(&format!("PRODUCE|t|k|{payload}"));
        if answer.starts_with("ACK|") {
            acknowledged += 1;
            assert!(acknowledged < 200, "16 MiB are full by now");
            continue;
        }
        break answer;
    };
    assert!(refused.starts_with("ERR|busy|") && refused.contains("free"), "{refused}");
    // Reading, offsets and barriers go on.
    assert_eq!(nc.listing("TOPICS|#")[0], format!("TOPIC|t|{acknowledged}"));
    assert!(nc.ask("REGISTER_CONSUMER|c|1").starts_with("OK|"));
    assert_eq!(nc.ask("PING|x"), "PONG|x");
    mounted.resize("64m");
    assert!(
        nc.ask(&format!("PRODUCE|t|k|{payload}")).starts_with(&format!("ACK|t|{acknowledged}|"))
    );
    drop(nc);
    broker.kill();
    let broker = BrokerProcess::start(&folder.path().join("data"));
    assert_eq!(broker.connect().listing("TOPICS|#")[0], format!("TOPIC|t|{}", acknowledged + 1));
    broker.terminate();
}

/// A small file system of our own, unmounted when dropped.
struct Tmpfs<'a>(&'a Path);

impl<'a> Tmpfs<'a> {
    fn mount(at: &'a Path, size: &str) -> Self {
        let size = format!("size={size}");
        let status = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(at)
            .status();
        assert!(status.expect("mount is there").success());
        Self(at)
    }

    fn resize(&self, size: &str) {
        let size = format!("remount,size={size}");
        let status = std::process::Command::new("mount").args(["-o", &size]).arg(self.0).status();
        assert!(status.expect("mount is there").success());
    }
}

impl Drop for Tmpfs<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn sigterm_ends_it_cleanly_while_clients_are_connected() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = BrokerProcess::start(folder.path());
    let mut subscriber = broker.connect();
    subscriber.ask("SUBSCRIBE|#");
    let mut waiting = broker.connect();
    waiting.send("FETCH|none|0|0|1|60000");
    let mut producer = broker.connect();
    assert!(producer.ask("PRODUCE|t|k|v").starts_with("ACK|"));
    let started = Instant::now();
    assert_eq!(broker.terminate().code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(subscriber.line().expect("pushed").starts_with("MESSAGE|t|0|"));
    assert_eq!(subscriber.line(), None);
}

#[test]
fn sigterm_does_not_wait_for_half_a_request() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = BrokerProcess::start(folder.path());
    let mut half = std::net::TcpStream::connect(broker.http).expect("HTTP is served");
    std::io::Write::write_all(&mut half, b"GET /livez HT").expect("sent");
    assert!(broker.connect().ask("PRODUCE|t|k|v").starts_with("ACK|"));
    assert_eq!(broker.terminate().code(), Some(0));
}

#[test]
fn damage_of_what_a_checkpoint_holds_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = BrokerProcess::start_with(folder.path(), &["--partitions", "5"]);
    let mut nc = broker.connect();
    assert_eq!(nc.ask("REGISTER_CONSUMER|c|1"), "OK|0:0,1:0,2:0,3:0,4:0");
    for n in 0..50 {
        assert!(nc.ask(&format!("PRODUCE|t||{n}")).starts_with("ACK|"));
    }
    broker.kill();
    let segment = "00000000000000000000.log";
    damage(&folder.path().join("metadata.log").join(segment), b"create");
    damage(&folder.path().join("metadata.log").join(segment), b"consumer");
    // The membership is the first entry of every log.
    damage(&folder.path().join("partition_0.log").join(segment), b"configs");
    let broker = BrokerProcess::start(folder.path());
    let mut nc = broker.connect();
    assert_eq!(nc.listing("CLUSTER").len(), 7);
    assert_eq!(nc.listing("TOPICS|t"), ["TOPIC|t|50", "END|1"]);
    assert_eq!(nc.ask("REGISTER_CONSUMER|c|1"), "OK|0:0,1:0,2:0,3:0,4:0");
}

#[test]
fn metadata_that_no_checkpoint_holds_is_not_guessed() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = BrokerProcess::start(folder.path());
    let mut nc = broker.connect();
    nc.ask("REGISTER_CONSUMER|c|1");
    for n in 0..3 {
        let ack = nc.ask(&format!("PRODUCE|t|k|{n}"));
        nc.send(&ack);
        assert_eq!(nc.ask("PING|x"), "PONG|x");
    }
    broker.kill();
    let metadata = folder.path().join("metadata.log");
    damage(&metadata.join("00000000000000000000.log"), b"acknowledged");
    let said = fails(folder.path(), &[]);
    assert!(
        said.contains("the metadata is damaged") && said.contains("set that folder aside"),
        "{said}"
    );
    fs::rename(&metadata, folder.path().join("aside")).expect("set aside");
    let broker = BrokerProcess::start(folder.path());
    assert_eq!(broker.connect().listing("TOPICS|t"), ["TOPIC|t|3", "END|1"]);
}

#[test]
fn a_zeroed_page_costs_its_records_and_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = BrokerProcess::start(folder.path());
    let mut nc = broker.connect();
    for n in 0..400 {
        assert!(nc.ask(&format!("PRODUCE|t|k|{n}")).starts_with("ACK|"));
    }
    broker.kill();
    let path = segment(folder.path());
    let mut bytes = fs::read(&path).expect("there");
    bytes[8192..16384].fill(0);
    fs::write(&path, &bytes).expect("written");
    for _ in 0..2 {
        let broker = BrokerProcess::start(folder.path());
        let mut nc = broker.connect();
        let partition = u32::from(path.to_string_lossy().contains("partition_1"));
        let before = nc.listing(&format!("FETCH|t|0|{partition}|1000|0"));
        let lost_from = before.len() - 1;
        let asked = format!("FETCH|t|{lost_from}|{partition}|1000|0");
        let text = nc.refused(&asked, "offset_out_of_range");
        let resume: usize = text.rsplit(' ').next().and_then(|n| n.parse().ok()).expect(&text);
        let behind = nc.listing(&format!("FETCH|t|{resume}|{partition}|1000|0"));
        assert!(behind.len() > 400 - resume, "{} behind {resume}", behind.len());
        assert_eq!(behind[0].split('|').nth(5), Some(resume.to_string().as_str()));
        assert!(nc.ask("PRODUCE|t|k|more").starts_with("ACK|t|40"));
        broker.kill();
    }
}

#[test]
fn a_lost_tail_is_told_and_its_offsets_are_not_used_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = BrokerProcess::start(folder.path());
    let mut nc = broker.connect();
    for n in 0..100 {
        assert!(nc.ask(&format!("PRODUCE|t|k|{n}")).starts_with("ACK|"));
    }
    broker.kill();
    let path = segment(folder.path());
    let mut bytes = fs::read(&path).expect("there");
    let written = bytes.iter().rposition(|b| *b != 0).expect("not empty") + 1;
    bytes.truncate(written / 2);
    fs::write(&path, &bytes).expect("written");
    let broker = BrokerProcess::start(folder.path());
    let mut nc = broker.connect();
    assert!(nc.ask("PRODUCE|t|k|after").starts_with("ACK|t|100|"));
    let partition = u32::from(path.to_string_lossy().contains("partition_1"));
    let kept = nc.listing(&format!("FETCH|t|0|{partition}|1000|0")).len() - 1;
    assert!((40..60).contains(&kept), "{kept}");
    nc.refused(&format!("FETCH|t|{kept}|{partition}|1000|0"), "offset_out_of_range");
    assert_eq!(nc.listing(&format!("FETCH|t|100|{partition}|10|0")).len(), 2);
    assert_eq!(broker.terminate().code(), Some(0));
}
