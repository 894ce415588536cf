//! `aklight topics`: which topics there are, and how many records each has.

use std::process::ExitCode;

use aklight_common::Pattern;
use clap::Args;
use serde_json::json;

use crate::connect::{BrokerListArgs, block_on};
use crate::output::{Output, OutputArgs};

/// What to list.
#[derive(Debug, Args)]
pub struct TopicsArgs {
    /// Which topics: + stands for one level, # for all below
    #[arg(default_value = "#", value_parser = Pattern::new)]
    pattern: Pattern,
    #[command(flatten)]
    brokers: BrokerListArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Lists topics.
pub fn run(args: &TopicsArgs) -> anyhow::Result<ExitCode> {
    let topics = block_on(async {
        let mut client = args.brokers.connect().await?;
        let topics = client.topics(&args.pattern).await?;
        client.quit().await?;
        Ok(topics)
    })?;
    let rows: Vec<_> =
        topics.iter().map(|t| vec![t.topic.to_string(), t.records.to_string()]).collect();
    let json: Vec<_> =
        topics.iter().map(|t| json!({ "topic": t.topic.as_str(), "records": t.records })).collect();
    Output::new(&args.output).table(&["TOPIC", "RECORDS"], &rows, &json.into())?;
    Ok(ExitCode::SUCCESS)
}
