//! `aklight fetch`: records that are stored, from an offset on, in one answer.

use std::process::ExitCode;
use std::time::Duration;

use aklight_common::client::FetchRequest;
use aklight_common::limits::{FETCH_RECORDS_DEFAULT, FETCH_RECORDS_MAX, FETCH_WAIT_MS_MAX};
use aklight_common::{Offset, PartitionId, Pattern};
use clap::Args;

use crate::connect::{BrokerListArgs, block_on};
use crate::output::{Format, Output, OutputArgs};

/// What to fetch.
#[derive(Debug, Args)]
pub struct FetchArgs {
    /// Which topics: + stands for one level, # for all below
    #[arg(value_parser = Pattern::new)]
    pattern: Pattern,
    /// The first offset wanted, in each partition
    #[arg(long, default_value_t = 0)]
    offset: u64,
    /// One partition only [default: all]
    #[arg(long)]
    partition: Option<u32>,
    /// Most records
    #[arg(long, default_value_t = FETCH_RECORDS_DEFAULT,
          value_parser = clap::value_parser!(u64).range(1..=FETCH_RECORDS_MAX))]
    max: u64,
    /// How long to wait for the first record where there is none yet, as in 500ms or 10s
    #[arg(long, default_value = "0s", value_parser = wait)]
    wait: Duration,
    #[command(flatten)]
    brokers: BrokerListArgs,
    #[command(flatten)]
    output: OutputArgs,
}

fn wait(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_millis(FETCH_WAIT_MS_MAX);
    match humantime::parse_duration(text) {
        Ok(wait) if wait <= longest => Ok(wait),
        Ok(_) => Err(format!("at most {}", humantime::format_duration(longest))),
        Err(error) => Err(format!("{error}: write 500ms or 10s")),
    }
}

/// Fetches and prints.
pub fn run(args: &FetchArgs) -> anyhow::Result<ExitCode> {
    let request = FetchRequest {
        pattern: args.pattern.clone(),
        offset: Offset(args.offset),
        partition: args.partition.map(PartitionId),
        max: args.max,
        wait_ms: u64::try_from(args.wait.as_millis()).unwrap_or(FETCH_WAIT_MS_MAX),
    };
    let fetched = block_on(async {
        let mut client = args.brokers.connect().await?;
        let fetched = client.fetch(&request).await?;
        client.quit().await?;
        Ok(fetched)
    })?;
    let mut output = Output::new(&args.output);
    for message in &fetched.messages {
        output.message(message)?;
    }
    if output.format() == Format::Table {
        let next: Vec<_> =
            fetched.next.iter().map(|(p, next)| format!("p{p} from {next}")).collect();
        anstream::eprintln!(
            "{} records; the next fetch goes on with {}",
            fetched.messages.len(),
            next.join(", ")
        );
    }
    Ok(ExitCode::SUCCESS)
}
