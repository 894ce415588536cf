//! `aklight cluster status`: how the cluster fares, once or every second.
//!
//! With `--watch` each look is printed below the one before, headed by what has changed since,
//! so that an election and what follows can be read again afterwards. A look that nobody answers
//! is a line of its own and no end: that is when somebody watches most closely.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};

use crate::connect::block_on;
use crate::http::{Http, HttpArgs};
use crate::output::{Format, Output, OutputArgs};

use super::view::View;

/// How often a watcher looks: an election takes about a second.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// How to look.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Look every second, until it is ended
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    http: HttpArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Shows it.
pub fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    block_on(async {
        let mut http = args.http.any()?;
        let mut output = Output::new(&args.output);
        if args.watch {
            watch(&mut http, &mut output).await?;
        } else {
            let (value, view) = look(&mut http).await?;
            match output.format() {
                Format::Json => output.line(&format!("{value:#}"))?,
                Format::Table => tables(&view, &mut output)?,
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn watch(http: &mut Http, output: &mut Output) -> anyhow::Result<()> {
    let mut ticks = interval(WATCH_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before: Option<View> = None;
    loop {
        ticks.tick().await;
        let (value, view) = match look(http).await {
            Ok(seen) => seen,
            Err(error) => {
                anstream::eprintln!("{error:#}");
                continue;
            }
        };
        match output.format() {
            // A line a look, for programs that read lines.
            Format::Json => output.line(&value.to_string())?,
            Format::Table => {
                if let Some(before) = &before {
                    output.line("")?;
                    for change in view.changes_since(before) {
                        output.line(&format!("* {change}"))?;
                    }
                }
                tables(&view, output)?;
            }
        }
        before = Some(view);
    }
}

async fn look(http: &mut Http) -> anyhow::Result<(Value, View)> {
    let value = http.get("/cluster").await?;
    let view = View::deserialize(&value)
        .context("that is no status of a cluster: is the broker of another version?")?;
    Ok((value, view))
}

fn tables(view: &View, output: &mut Output) -> anyhow::Result<()> {
    for (header, rows) in [view.brokers_table(), view.groups_table()] {
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        output.table(&header, &rows, &Value::Null)?;
    }
    Ok(())
}
