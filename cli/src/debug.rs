//! `aklight debug events`: what happened on a broker lately, from its ring of events.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::connect::block_on;
use crate::output::{Output, OutputArgs, printable};

/// Longest time to wait for an answer that a healthy broker gives at once.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What to look at.
#[derive(Debug, Args)]
pub struct DebugArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show what happened on a broker lately
    Events(EventsArgs),
}

#[derive(Debug, Args)]
struct EventsArgs {
    /// The broker's HTTP address
    #[arg(long, env = "AKLIGHT_HTTP", default_value = "127.0.0.1:7070", value_name = "HOST:PORT")]
    http: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// Shows it.
pub fn run(args: &DebugArgs) -> anyhow::Result<ExitCode> {
    let What::Events(args) = &args.what;
    let events = block_on(get_events(&args.http))?;
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

async fn get_events(http: &str) -> anyhow::Result<Vec<Value>> {
    let url = format!("http://{http}/debug/events");
    // A broker is asked directly, whatever proxy the environment has for the wide world.
    let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build()?;
    let answer = client.get(&url).send().await.with_context(|| {
        format!("no broker answers at {url}: is one running, and is this its HTTP port?")
    })?;
    if !answer.status().is_success() {
        bail!("{url} answers {}: is this the HTTP port of a broker?", answer.status());
    }
    answer
        .json()
        .await
        .with_context(|| format!("{url} answers no list of events: is this a broker?"))
}
