//! `aklight fault`: lets a broker fail on purpose, to see what the cluster does about it.
//!
//! The order may be given to any broker; the one that is meant does it, and only when it was
//! started with `--allow-faults`. A broker that plays dead still takes this order, so that it can
//! be brought back.

use std::process::ExitCode;

use aklight_common::settings::EXIT_USAGE;
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::cluster::broker_id;
use crate::connect::block_on;
use crate::http::HttpArgs;

/// Whom it befalls, and what.
#[derive(Debug, Args)]
pub struct FaultArgs {
    /// The broker: 2, or broker2
    #[arg(value_parser = broker_id)]
    broker: u64,
    /// What befalls it
    #[arg(value_enum)]
    fault: Fault,
    /// With slow: how late, in milliseconds
    #[arg(required_if_eq("fault", "slow"), value_parser = clap::value_parser!(u64).range(1..=60_000))]
    ms: Option<u64>,
    #[command(flatten)]
    http: HttpArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Fault {
    /// It answers neither brokers nor clients, as if the machine were off.
    Dead,
    /// Every fault ends.
    Alive,
    /// It hears nothing of other brokers and tells them nothing; clients still reach it.
    Isolate,
    /// It tells other brokers everything so many milliseconds late.
    Slow,
}

/// Gives the order.
pub fn run(args: &FaultArgs) -> anyhow::Result<ExitCode> {
    let mut order = match args.fault {
        Fault::Dead => json!({ "fault": "dead" }),
        Fault::Alive => json!({ "fault": "alive" }),
        Fault::Isolate => json!({ "fault": "isolate" }),
        Fault::Slow => json!({ "fault": "slow", "ms": args.ms }),
    };
    if args.fault != Fault::Slow && args.ms.is_some() {
        anstream::eprintln!("aklight: only slow takes milliseconds: leave them out");
        return Ok(ExitCode::from(EXIT_USAGE));
    }
    order["broker"] = args.broker.into();
    let done = block_on(async { args.http.any()?.post("/fault", &order).await })?;
    anstream::println!("{done}");
    Ok(ExitCode::SUCCESS)
}
