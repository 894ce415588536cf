//! The bench against a real broker, in tiny sizes: what it measures comes to its end, counts what was
//! sent, and refuses a server that acknowledges what is not so.
//!
//! The `aklight` command is the one beside the bench's own program, as `cargo test --workspace`
//! builds it; where there is none it is built once. The bench itself does not depend on it.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::thread::spawn;

use aklight_bench::agents::Agent;
use aklight_bench::drive::{Sender, Sent, pipelined};
use aklight_bench::load::Load;
use aklight_bench::peers::aklight::{Aklight, Kind};
use aklight_bench::peers::{Safety, Share, Wanted, Way};
use aklight_bench::plan::{Outcome, Sizes, Systems, run_row};
use aklight_bench::receive::Receiver;
use aklight_bench::rows::ROWS;
use aklight_bench::server::Fleet;
use aklight_bench::tail::{self, Plan};

/// Enough for several windows, and for a broker that was not optimized.
const RECORDS: u64 = 3_000;

const SIZES: Sizes = Sizes {
    topics: 8,
    window: 256,
    ingest_records: RECORDS,
    seconds_max: 30.0,
    stored_records: RECORDS,
    slow_seconds: 0.3,
    agent_seconds: 1.0,
    ..Sizes::QUICK
};

fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let program = Path::new(env!("CARGO_BIN_EXE_aklight-bench")).with_file_name("aklight");
        if !program.is_file() {
            let release = (!cfg!(debug_assertions)).then_some("--release");
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["build", "--package", "aklight"]).args(release);
            cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
            assert!(cargo.status().expect("cargo starts").success(), "aklight does not build");
        }
        program
    })
}

fn aklight(kind: Kind) -> Aklight {
    Aklight { kind, ..Aklight::new(program()) }
}

/// What AKLight does in one round of a row.
fn outcomes(key: &str) -> Vec<Outcome> {
    let row = ROWS.iter().find(|row| row.key == key).expect("a row of that name");
    let (own, cumulative) = (aklight(Kind::Own), aklight(Kind::Cumulative));
    let agent = Agent::Producer(aklight(Kind::Own));
    let systems = Systems { ways: vec![&own, &cumulative], agents: vec![&agent] };
    let mut outcomes = Vec::new();
    run_row(row, &systems, &SIZES, 1, &mut |outcome| outcomes.push(outcome)).expect("it runs");
    assert!(!outcomes.is_empty(), "{key} is nothing for AKLight");
    for outcome in &outcomes {
        assert_eq!(outcome.error, None, "{key}, {}", outcome.system);
    }
    outcomes
}

fn figure(outcome: &Outcome, name: &str) -> f64 {
    let found = outcome.measures.iter().find(|measure| measure.name == name);
    found.unwrap_or_else(|| panic!("no {name} of {}", outcome.system)).value
}

#[test]
fn what_is_sent_is_acknowledged_and_read_again() {
    for kind in [Kind::Own, Kind::Cumulative] {
        let (way, load) = (aklight(kind), Arc::new(Load::new(8, 100).expect("a load")));
        let fleet = Fleet::start(&way, Safety::Synced, false, 1).expect("a broker");
        let publisher = way.publisher(&load, Share::WHOLE);
        let sender = Sender::connect(fleet.address(0), publisher).expect("connected");
        let sent = pipelined(&mut [sender], RECORDS, 256, f64::INFINITY).expect("acknowledged");
        assert_eq!(sent.records, RECORDS);
        let feed = way.feed(&load, Wanted::All).expect("a feed");
        let mut receiver = Receiver::connect(fleet.address(0), feed).expect("connected");
        receiver.until_over(&mut |_, _| {}).expect("read");
        assert_eq!(receiver.records, RECORDS, "{kind:?}");
        assert_eq!(receiver.sum, RECORDS * (RECORDS - 1) / 2, "{kind:?}");
    }
}

#[test]
fn records_go_in() {
    for outcome in outcomes("ingest-cached") {
        assert!(figure(&outcome, "records") > 0.0);
    }
}

#[test]
fn all_and_some_are_read_back() {
    for row in ["read-all", "read-quarter", "read-topic"] {
        outcomes(row);
    }
}

#[test]
fn records_are_followed_live() {
    let live = &outcomes("live")[0];
    assert!(figure(live, "p50") > 0.0 && figure(live, "max") >= figure(live, "p99"));
}

#[test]
fn nothing_acknowledged_is_lost_by_kills() {
    for row in ["kill-synced", "kill-cached"] {
        for outcome in outcomes(row) {
            let of = |name| figure(&outcome, name);
            assert!(of("lost") == 0.0, "{row}, {}: {} lost", outcome.system, of("lost"));
            // Three lives, each of a quarter at least.
            assert!(of("acknowledged") >= 2_250.0, "{}", of("acknowledged"));
            assert!(of("found") >= of("acknowledged") && of("sent") >= of("found"));
        }
    }
}

#[test]
fn a_slow_subscriber_is_brought_what_it_missed() {
    let slow = &outcomes("slow-reader")[0];
    assert!(figure(slow, "slow one missed") == 0.0 && figure(slow, "slow one cut off") == 0.0);
    assert!(figure(slow, "deliveries") > 0.0);
}

#[test]
fn the_producer_is_measured_at_its_work() {
    let agent = &outcomes("agent")[0];
    assert!(figure(agent, "memory, PSS") > 0.1 && figure(agent, "CPU") > 0.0);
}

#[test]
fn a_tail_has_every_record() {
    let plan = Plan {
        seconds: 5,
        rate: Some(2_000),
        safety: Safety::Synced,
        retention_bytes: Some(1 << 30),
        topics: 8,
        payload_bytes: 100,
        window: 256,
    };
    let tail = tail::run(program(), plan).expect("it comes to its end");
    assert_eq!((tail.records, tail.acks.len(), tail.deliveries.len()), (10_000, 10_000, 10_000));
    assert!(tail.pause_seconds == 1 && tail.behind > 0 && !tail.seconds.is_empty());
}

/// A server that answers each PRODUCE with the offset that `offset` makes of its turn.
fn fake(offset: fn(u64) -> u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    spawn(move || {
        let (mut socket, _) = listener.accept().expect("somebody comes");
        let lines = BufReader::new(socket.try_clone().expect("a copy")).lines();
        for (turn, line) in (0..).zip(lines.map_while(Result::ok)) {
            let topic = line.split('|').nth(1).expect("a topic");
            if writeln!(socket, "ACK|{topic}|{}|0", offset(turn)).is_err() {
                return;
            }
        }
    });
    address
}

fn send_to(server: SocketAddr) -> anyhow::Result<Sent> {
    let load = Arc::new(Load::new(8, 100)?);
    let publisher = Aklight::new(Path::new("none")).publisher(&load, Share::WHOLE);
    pipelined(&mut [Sender::connect(server, publisher)?], 1_000, 64, f64::INFINITY)
}

#[test]
fn one_wrong_offset_is_an_error() {
    let right = send_to(fake(|turn| turn)).expect("nothing is wrong");
    assert_eq!(right.records, 1_000);
    let wrong = send_to(fake(|turn| if turn == 700 { 7 } else { turn }));
    let said = format!("{:#}", wrong.expect_err("offset 7 came twice"));
    assert!(said.contains("offset 7 of partition 0, where 700 was due"), "{said}");
}
