//! `aklight-bench`: measures AKLight beside its peers, or loads a broker that runs already.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aklight_bench::agents::{self, Agent};
use aklight_bench::counts::{self, Cost};
use aklight_bench::disk;
use aklight_bench::drive::{Sender, pipelined};
use aklight_bench::load::Load;
use aklight_bench::peers::aklight::{Acks, AklightPublisher, Fetching, Subscription};
use aklight_bench::peers::{self, Feed, Safety, Share, Way};
use aklight_bench::plan::{Sizes, Systems, run_row};
use aklight_bench::programs;
use aklight_bench::receive::Receiver;
use aklight_bench::report;
use aklight_bench::rows::{ROWS, Row};
use aklight_bench::tail::{self, Plan};
use aklight_bench::work::crowd::Crowd;
use aklight_bench::work::float;
use anyhow::{Context, bail, ensure};
use clap::{Args, Parser, Subcommand};

/// AKLight beside its peers on this machine, in numbers
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send records to a broker that runs already, for a profiler to watch
    Load(LoadArgs),
    /// Instructions and allocations a record, of the broker and of its client, by valgrind
    Instructions(CountArgs),
    /// All of it in five minutes
    Quick(RunArgs),
    /// All of it with large sizes, and what scaling costs: overnight
    Full(RunArgs),
    /// Half of AKLight's highest rate for minutes, while retention deletes and a subscriber stops
    Tail(TailArgs),
}

#[derive(Args)]
struct RunArgs {
    /// Only this row; may be repeated
    #[arg(long, value_name = "ROW")]
    only: Vec<String>,

    /// Only systems whose names begin so: aklight,redis
    #[arg(long, value_delimiter = ',')]
    systems: Vec<String>,

    /// Rounds of each row
    #[arg(long)]
    rounds: Option<u32>,

    /// Instructions and allocations a record as well, some minutes more
    #[arg(long)]
    instructions: bool,

    /// Where the report goes
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,

    /// The aklight command to measure [default: this workspace's release build]
    #[arg(long, env = "AKLIGHT_BIN", value_name = "PATH")]
    aklight: Option<PathBuf>,
}

#[derive(Args)]
struct TailArgs {
    /// How long
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,

    /// Records a second [default: half of the highest rate, which is measured first]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,

    /// Acknowledge from the page cache, instead of syncing first
    #[arg(long)]
    cached: bool,

    /// What each partition keeps, in MiB; with less than comes while a subscriber stops, it misses
    /// records and the run fails [default: half as much again as that]
    #[arg(long)]
    retention_mib: Option<u64>,

    /// Where the report goes
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,

    /// The aklight command to measure [default: this workspace's release build]
    #[arg(long, env = "AKLIGHT_BIN", value_name = "PATH")]
    aklight: Option<PathBuf>,
}

#[derive(Args)]
struct LoadArgs {
    /// The broker
    #[arg(long, value_name = "HOST:PORT")]
    broker: SocketAddr,

    /// Records to send
    #[arg(long, default_value_t = 2_000_000)]
    records: u64,

    /// Records on the way at most, of each connection
    #[arg(long, default_value_t = 4_096)]
    window: u64,

    /// An ACK line for each record, checked (the default)
    #[arg(long, conflicts_with = "cumulative")]
    own: bool,

    /// One ACKS line for many records
    #[arg(long)]
    cumulative: bool,

    /// Topics, taken in turns
    #[arg(long, default_value_t = 1_000)]
    topics: usize,

    /// Bytes of a payload
    #[arg(long, default_value_t = 100)]
    size: usize,

    /// Connections that share the records
    #[arg(long, default_value_t = 1)]
    connections: u64,

    /// A subscriber beside the one connection, which is sent each record
    #[arg(long, conflicts_with = "connections")]
    follow: bool,

    /// Then read all of it, so many times; the broker must have been empty
    #[arg(long, default_value_t = 0, value_name = "TIMES")]
    read: u64,
}

#[derive(Args)]
struct CountArgs {
    /// Records of each piece of work
    #[arg(long, default_value_t = COUNTED_RECORDS)]
    records: u64,

    /// Where what valgrind finds is kept
    #[arg(long, value_name = "DIR", default_value = "target/bench/counts")]
    out: PathBuf,

    /// The aklight command to measure [default: this workspace's release build]
    #[arg(long, env = "AKLIGHT_BIN", value_name = "PATH")]
    aklight: Option<PathBuf>,
}

/// Records that are counted: a second or two under valgrind, and enough for a thousandth of an
/// allocation to be seen.
const COUNTED_RECORDS: u64 = 100_000;

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Load(args) => load(&args),
        Command::Instructions(args) => instructions(&args),
        Command::Quick(args) => run(&Sizes::QUICK, &args),
        Command::Full(args) => run(&Sizes::FULL, &args),
        Command::Tail(args) => run_tail(&args),
    }
}

fn run_tail(args: &TailArgs) -> anyhow::Result<()> {
    let program = args.aklight.clone().map_or_else(programs::aklight, Ok)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "minutes of a run; what is not a number, or less than nothing, becomes 0"
    )]
    let seconds = (args.minutes * 60.0) as u64;
    ensure!(seconds >= 10, "take at least ten seconds: --minutes 0.2");
    let plan = Plan {
        seconds,
        rate: args.rate,
        safety: if args.cached { Safety::Cached } else { Safety::Synced },
        retention_bytes: args.retention_mib.map(|mib| mib << 20),
        topics: Sizes::QUICK.topics,
        payload_bytes: Sizes::QUICK.payload_bytes,
        window: Sizes::QUICK.window,
    };
    let sync = disk::measure()?;
    let tail = tail::run(&program, plan)?;
    report::write_tail(&args.out, &tail, sync)?;
    eprintln!("{}", args.out.join("tail.md").display());
    Ok(())
}

fn load(args: &LoadArgs) -> anyhow::Result<()> {
    let load = Arc::new(Load::new(args.topics, args.size)?);
    let acks = if args.cumulative { Acks::Cumulative } else { Acks::Own };
    let senders = (0..args.connections).map(|first| {
        let share = Share { first, step: args.connections };
        let publisher = AklightPublisher::new(&load, share, acks);
        Sender::connect(args.broker, Box::new(publisher))
    });
    let mut senders = senders.collect::<anyhow::Result<Vec<_>>>()?;
    let reader = |feed: Box<dyn Feed>| Receiver::connect(args.broker, feed);
    if args.follow {
        let follower = reader(Box::<Subscription>::default())?;
        let sender = senders.pop().context("there is one connection")?;
        Crowd::of(sender, vec![follower], args.window)?.run(args.records, f64::INFINITY)?;
        println!("each of {} records came to the subscriber", args.records);
    } else {
        let sent = pipelined(&mut senders, args.records, args.window, f64::INFINITY)?;
        let records = float(sent.records);
        println!(
            "{:.0} records/s ({} in {:.3} s), client {:.3} µs of CPU a record",
            records / sent.seconds,
            sent.records,
            sent.seconds,
            sent.client_cpu_seconds * 1e6 / records,
        );
    }
    for _ in 0..args.read {
        reader(Box::new(Fetching::new(b"metrics/#".to_vec())))?.until(args.records)?;
    }
    Ok(())
}

fn instructions(args: &CountArgs) -> anyhow::Result<()> {
    let costs = counted(args.aklight.as_deref(), args.records, &args.out)?;
    print!("{}", report::costs::table(&costs));
    Ok(())
}

fn counted(aklight: Option<&Path>, records: u64, out: &Path) -> anyhow::Result<Vec<Cost>> {
    let aklight = aklight.map_or_else(programs::aklight, |program| Ok(program.to_owned()))?;
    counts::measure(&aklight, records, out, &mut |cost| eprintln!("{cost}"))
}

fn run(sizes: &Sizes, args: &RunArgs) -> anyhow::Result<()> {
    let program = args.aklight.clone().map_or_else(programs::aklight, Ok)?;
    let all = peers::all(&program);
    let agents = agents::all(&program);
    let begins = |name: &str| args.systems.iter().any(|begin| name.starts_with(begin.as_str()));
    let is_asked = |name: &str| args.systems.is_empty() || begins(name);
    let ways: Vec<&dyn Way> =
        all.iter().map(AsRef::as_ref).filter(|way| is_asked(way.name())).collect();
    let agents: Vec<&Agent> = agents.iter().filter(|agent| is_asked(agent.name())).collect();
    let systems = Systems { ways, agents };
    let known = |key: &String| ROWS.iter().any(|row| row.key == key);
    if let Some(unknown) = args.only.iter().find(|key| !known(key)) {
        let keys: Vec<_> = ROWS.iter().map(|row| row.key).collect();
        bail!("no row {unknown}; there are {}", keys.join(", "));
    }
    let sync = disk::measure()?;
    let mut outcomes = Vec::new();
    let is_asked = |row: &&Row| match args.only.as_slice() {
        [] => sizes.is_full || !row.is_full_only,
        only => only.iter().any(|key| key == row.key),
    };
    for row in ROWS.iter().filter(is_asked) {
        eprintln!("{}", row.title);
        run_row(row, &systems, sizes, args.rounds.unwrap_or(sizes.rounds), &mut |outcome| {
            eprintln!("  {outcome}");
            outcomes.push(outcome);
        })?;
        // After every row: a night that is cut short leaves what was measured until then.
        report::write(&args.out, &systems, sizes, sync, &outcomes, &[])?;
    }
    if args.instructions {
        let dir = args.out.join("counts");
        let costs = counted(Some(&program), COUNTED_RECORDS, &dir)?;
        report::write(&args.out, &systems, sizes, sync, &outcomes, &costs)?;
    }
    eprintln!("{}", args.out.join("report.md").display());
    Ok(())
}
