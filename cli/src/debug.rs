//! `aklight debug events`: what happened on a broker lately, from its ring of events.

use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::connect::block_on;
use crate::http::HttpArgs;
use crate::output::{Output, OutputArgs, printable};

/// What to look at.
#[derive(Debug, Args)]
pub struct DebugArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show what happened lately on a broker, the first of --http
    Events(EventsArgs),
}

#[derive(Debug, Args)]
struct EventsArgs {
    #[command(flatten)]
    http: HttpArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Shows it.
pub fn run(args: &DebugArgs) -> anyhow::Result<ExitCode> {
    let What::Events(args) = &args.what;
    let answer = block_on(async { args.http.first()?.get("/debug/events").await })?;
    let Value::Array(events) = answer else {
        bail!("that is no list of events: is this the HTTP port of a broker?")
    };
    let text = |event: &Value, name: &str| {
        let value = event.get(name).and_then(Value::as_str).unwrap_or_default();
        printable(value.as_bytes())
    };
    let rows: Vec<_> = events
        .iter()
        .map(|event| ["at", "level", "kind", "text"].map(|name| text(event, name)).to_vec())
        .collect();
    let json = Value::Array(events);
    Output::new(&args.output).table(&["AT", "LEVEL", "KIND", "TEXT"], &rows, &json)?;
    Ok(ExitCode::SUCCESS)
}
