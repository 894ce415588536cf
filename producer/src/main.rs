//! `aklight-producer`: the producer alone, for containers. `aklight producer` is the same.

use std::process::ExitCode;

use aklight_common::logging::LogArgs;
use aklight_common::settings;
use aklight_producer::ProducerArgs;
use clap::Parser;

/// Measures the container (or machine) that it runs in and sends what it finds to a broker.
#[derive(Debug, Parser)]
#[command(name = "aklight-producer", version)]
struct Arguments {
    #[command(flatten)]
    producer: ProducerArgs,
    #[command(flatten)]
    log: LogArgs,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Arguments = settings::parse();
    arguments.log.init();
    aklight_producer::run(arguments.producer)
}
