//! `aklight cluster`: which brokers there are, and which of them leads what.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::connect::{BrokerListArgs, block_on};
use crate::output::{Format, Output, OutputArgs};

/// How to ask.
#[derive(Debug, Args)]
pub struct ClusterArgs {
    #[command(flatten)]
    brokers: BrokerListArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Shows brokers and partitions.
pub fn run(args: &ClusterArgs) -> anyhow::Result<ExitCode> {
    let cluster = block_on(async {
        let mut client = args.brokers.connect().await?;
        let cluster = client.cluster().await?;
        client.quit().await?;
        Ok(cluster)
    })?;
    let brokers: Vec<_> = cluster
        .brokers
        .iter()
        .map(|b| vec![b.id.to_string(), b.address.clone(), b.state.clone()])
        .collect();
    let partitions: Vec<_> = cluster
        .partitions
        .iter()
        .map(|p| {
            let leader = p.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string());
            vec![p.id.to_string(), leader, p.start.to_string(), p.end.to_string()]
        })
        .collect();
    let json = json!({
        "brokers": cluster.brokers.iter().map(|b| json!({
            "id": b.id.get(), "address": b.address, "state": b.state,
        })).collect::<Vec<_>>(),
        "partitions": cluster.partitions.iter().map(|p| json!({
            "id": p.id.get(),
            "leader": p.leader.map(|leader| leader.get()),
            "start": p.start.get(),
            "end": p.end.get(),
        })).collect::<Vec<_>>(),
    });
    let mut output = Output::new(&args.output);
    output.table(&["BROKER", "ADDRESS", "STATE"], &brokers, &json)?;
    if output.format() == Format::Table {
        output.line("")?;
        output.table(&["PARTITION", "LEADER", "START", "END"], &partitions, &json)?;
    }
    Ok(ExitCode::SUCCESS)
}
