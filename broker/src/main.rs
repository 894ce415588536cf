//! `aklight-broker`: the broker alone, for containers. The same as `aklight broker`.

use std::process::ExitCode;

use aklight_broker::BrokerArgs;
use aklight_common::logging::LogArgs;
use aklight_common::settings;
use clap::Parser;

/// The AKLight broker: a replicated, partitioned log of records, spoken to in lines
#[derive(Parser)]
#[command(name = "aklight-broker", version)]
struct Cli {
    #[command(flatten)]
    broker: BrokerArgs,
    #[command(flatten)]
    log: LogArgs,
}

fn main() -> ExitCode {
    let cli: Cli = settings::parse();
    cli.log.init();
    match aklight_broker::run(cli.broker) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(settings::EXIT_FAILED)
        }
    }
}
