//! `aklight alerts`: what is wrong, and what people do about it.
//!
//! What is wrong is read from the newest records under `alerts/`; acknowledging and muting are
//! records under `actions/alerts`, which every consumer reads; what became of messages is read
//! from `deliveries/`. All of it works from any broker, with no consumer at hand.

use std::process::ExitCode;
use std::time::Duration;

use aklight_common::Pattern;
use aklight_common::client::Message;
use aklight_common::clock::{Clock as _, SystemClock};
use aklight_consumer::RetryArgs;
use aklight_consumer::alerts::actions;
use aklight_consumer::notify::message::{moment, number};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::connect::{BrokerListArgs, block_on};
use crate::output::{Output, OutputArgs, printable};

/// What to do with alerts.
#[derive(Debug, Args)]
pub struct AlertsArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show what is firing
    List(ListArgs),
    /// Say that somebody sees to an alert: no more reminders until it is over
    Ack(ActionArgs),
    /// Let alerts wake nobody for a while; what still is so at the end is told then
    Mute(MuteArgs),
    /// Take a mute back
    Unmute(ActionArgs),
    /// Show what became of messages to people
    Deliveries(DeliveriesArgs),
    /// Send again what could not be delivered
    Retry(Box<RetryArgs>),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Show what is over and what is pending, too
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    brokers: BrokerListArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
struct ActionArgs {
    /// The rule's name; + for all
    rule: String,
    /// The topics of the samples: + stands for one level, # for all below
    #[arg(default_value = "#", value_parser = Pattern::new)]
    pattern: Pattern,
    /// Who you are
    #[arg(long, env = "USER", default_value = "somebody")]
    by: String,
    #[command(flatten)]
    brokers: BrokerListArgs,
}

#[derive(Debug, Args)]
struct MuteArgs {
    #[command(flatten)]
    action: ActionArgs,
    /// For how long
    #[arg(long = "for", default_value = "1h", value_name = "DURATION",
          value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Why
    #[arg(long, default_value = "")]
    reason: String,
}

#[derive(Debug, Args)]
struct DeliveriesArgs {
    /// How many, the newest
    #[arg(long, default_value_t = 20)]
    last: usize,
    #[command(flatten)]
    brokers: BrokerListArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Does what is to be done with alerts.
pub fn run(args: &AlertsArgs) -> anyhow::Result<ExitCode> {
    match &args.what {
        What::List(args) => list(args),
        What::Ack(args) => act(args, "acknowledge", &json!({})),
        What::Mute(MuteArgs { action, duration, reason }) => {
            let for_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
            let until = SystemClock::new().wall_ms().saturating_add(for_ms);
            act(action, "mute", &json!({ "until": until, "reason": reason }))
        }
        What::Unmute(args) => act(args, "unmute", &json!({})),
        What::Deliveries(args) => deliveries(args),
        What::Retry(args) => aklight_consumer::alerts_retry(args),
    }
}

fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let pattern = Pattern::new("alerts/#")?;
    let messages = block_on(async {
        let mut client = args.brokers.connect().await?;
        let messages = client.last(&pattern).await?;
        client.quit().await?;
        Ok(messages)
    })?;
    let mut alerts: Vec<Value> = messages.iter().filter_map(record).collect();
    alerts.retain(|alert| args.all || alert["state"] == "firing");
    alerts.sort_by_key(|alert| alert["since"].as_u64());
    let rows: Vec<_> = alerts
        .iter()
        .map(|alert| {
            let value = alert["value"].as_f64().unwrap_or_default();
            vec![
                text(&alert["state"]),
                text(&alert["severity"]),
                text(&alert["rule"]),
                text(&alert["topic"]),
                number(value, &text(&alert["unit"])),
                text(&alert["limit"]),
                alert["since"].as_u64().map(moment).unwrap_or_default(),
                seen_to(alert),
            ]
        })
        .collect();
    let header = ["STATE", "SEVERITY", "RULE", "TOPIC", "VALUE", "LIMIT", "SINCE", "SEEN TO"];
    Output::new(&args.output).table(&header, &rows, &alerts.into())?;
    Ok(ExitCode::SUCCESS)
}

/// Who sees to it, or until when it is muted.
fn seen_to(alert: &Value) -> String {
    let by = alert["acknowledged_by"].as_str().map(|by| format!("by {}", printable(by.as_bytes())));
    let muted = alert["muted_until"].as_u64().map(|until| format!("muted until {}", moment(until)));
    [by, muted].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn act(args: &ActionArgs, action: &str, more: &Value) -> anyhow::Result<ExitCode> {
    let mut record = json!({
        "ts": SystemClock::new().wall_ms(),
        "action": action,
        "rule": args.rule,
        "match": args.pattern.as_str(),
        "by": args.by,
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        record[name] = value.clone();
    }
    block_on(async {
        let mut client = args.brokers.connect().await?;
        let payload = record.to_string();
        client.produce(actions::TOPIC, actions::KEY, payload.as_bytes()).await?;
        client.quit().await?;
        Ok(())
    })?;
    anstream::println!("{action}: rule {}, topics {}", args.rule, args.pattern);
    Ok(ExitCode::SUCCESS)
}

fn deliveries(args: &DeliveriesArgs) -> anyhow::Result<ExitCode> {
    let messages = block_on(async {
        let mut client = args.brokers.connect().await?;
        let messages = client.fetch_all(&Pattern::new("deliveries/#")?).await?;
        client.quit().await?;
        Ok(messages)
    })?;
    let mut records: Vec<_> = messages
        .iter()
        .filter_map(|message| Some((record(message)?, message.topic.as_str().to_owned())))
        .collect();
    records.sort_by_key(|(record, _)| record["ts"].as_u64());
    let records = records.split_off(records.len().saturating_sub(args.last));
    let rows: Vec<_> = records
        .iter()
        .map(|(record, topic)| {
            let mut levels = topic.split('/').skip(1).map(str::to_owned);
            vec![
                record["ts"].as_u64().map(moment).unwrap_or_default(),
                levels.next().unwrap_or_default(),
                levels.next().unwrap_or_default(),
                text(&record["to"]),
                text(&record["id"]),
                text(&record["status"]),
                text(&record["rule"]),
                text(&record["topic"]),
                text(&record["reason"]),
            ]
        })
        .collect();
    let json: Vec<_> = records.into_iter().map(|(record, _)| record).collect();
    let header =
        ["AT", "CONSUMER", "CHANNEL", "TO", "MESSAGE", "STATUS", "RULE", "TOPIC", "REASON"];
    Output::new(&args.output).table(&header, &rows, &json.into())?;
    Ok(ExitCode::SUCCESS)
}

fn record(message: &Message) -> Option<Value> {
    serde_json::from_slice(&message.payload).ok().filter(Value::is_object)
}

/// A text of a record, as a terminal may be shown it.
fn text(value: &Value) -> String {
    value.as_str().map(|text| printable(text.as_bytes())).unwrap_or_default()
}
