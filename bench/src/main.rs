//! `aklight-bench`: measures AKLight beside its peers, or loads a broker that runs already.

use std::net::SocketAddr;
use std::sync::Arc;

use aklight_bench::drive::{Sender, pipelined};
use aklight_bench::load::Load;
use aklight_bench::peers::Share;
use aklight_bench::peers::aklight::{Acks, AklightPublisher};
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
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Load(args) => load(&args),
    }
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
    let sent = pipelined(&mut senders, args.records, args.window)?;
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^53 records")]
    let records = sent.records as f64;
    println!(
        "{:.0} records/s ({} in {:.3} s), client {:.3} µs of CPU a record",
        records / sent.seconds,
        sent.records,
        sent.seconds,
        sent.client_cpu_seconds * 1e6 / records,
    );
    Ok(())
}
