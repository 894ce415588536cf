//! `aklight-consumer`: the consumer as a program of its own, for containers. Its other commands
//! (`check-rules`, `alerts retry`) are those of `aklight`.

use std::process::ExitCode;

use aklight_common::logging::LogArgs;
use aklight_common::settings;
use aklight_consumer::ConsumerArgs;
use clap::Parser;

/// Follows topics, judges them by rules, and tells people when something is wrong.
#[derive(Debug, Parser)]
#[command(name = "aklight-consumer", version)]
struct Args {
    #[command(flatten)]
    consumer: ConsumerArgs,
    #[command(flatten)]
    log: LogArgs,
}

fn main() -> anyhow::Result<ExitCode> {
    let args: Args = settings::parse();
    args.log.init();
    aklight_consumer::run(args.consumer)
}
