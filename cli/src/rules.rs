//! `aklight rules`: what a consumer's keeper does with rules by hand. `aklight check-rules` is
//! `aklight rules check` by its old name.

mod stored;

use std::path::PathBuf;
use std::process::ExitCode;

use aklight_common::Pattern;
use aklight_consumer::notify::message::{line, moment};
use aklight_consumer::replay::{Replay, Rung};
use clap::{Args, Subcommand};
use serde_json::json;

use self::stored::{From, Stored};
use crate::connect::{BrokerListArgs, block_on};
use crate::output::{Format, Output, OutputArgs, printable};

/// What to do with rules.
#[derive(Debug, Args)]
pub struct RulesArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Check a file of rules
    Check(CheckRulesArgs),
    /// Say when the rules of a file would have rung for what is stored; nobody is told
    Test(TestArgs),
}

/// Which file.
#[derive(Debug, Args)]
pub struct CheckRulesArgs {
    /// The file of rules
    file: PathBuf,
}

/// What to try on what.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// The file of rules
    file: PathBuf,
    /// Where to begin: an offset (in each partition), a time (2026-11-26T02:00:00Z), or how long
    /// ago (2h)
    #[arg(long, default_value = "0", value_name = "OFFSET|TIME", value_parser = stored::from)]
    from: From,
    /// Which topics; the rules choose among them
    #[arg(long, default_value = "+/docker/#", value_parser = Pattern::new)]
    pattern: Pattern,
    #[command(flatten)]
    brokers: BrokerListArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Does what is to be done with rules.
pub fn run(args: &RulesArgs) -> anyhow::Result<ExitCode> {
    match &args.what {
        What::Check(args) => check(args),
        What::Test(args) => test(args),
    }
}

/// Checks a file and names every mistake.
pub fn check(args: &CheckRulesArgs) -> anyhow::Result<ExitCode> {
    aklight_consumer::check_rules(&args.file)
}

fn test(args: &TestArgs) -> anyhow::Result<ExitCode> {
    let mut replay = Replay::new(aklight_consumer::load::load_rules(&args.file)?);
    let mut output = Output::new(&args.output);
    let (mut records, mut fired, mut resolved) = (0_u64, 0, 0);
    block_on(async {
        let client = args.brokers.connect().await?;
        let mut stored = Stored::open(client, &args.pattern, args.from).await?;
        while let Some(message) = stored.next().await? {
            records += 1;
            for rung in replay.play(&message.topic, &message.payload) {
                match rung.alert.state() {
                    "ok" => resolved += 1,
                    _ => fired += 1,
                }
                print(&mut output, &rung)?;
            }
        }
        Ok(())
    })?;
    for mistake in replay.mistakes() {
        anstream::eprintln!("{}", printable(mistake.as_bytes()));
    }
    if output.format() == Format::Table {
        anstream::eprintln!("{records} records: rang {fired} times, resolved {resolved} times");
    }
    Ok(ExitCode::SUCCESS)
}

fn print(output: &mut Output, rung: &Rung) -> anyhow::Result<()> {
    let Rung { alert, loud } = rung;
    let at = moment(alert.at_ms);
    match output.format() {
        Format::Table => {
            let quiet = if *loud { "" } else { " (no telephone rings)" };
            let line = printable(line(alert).as_bytes());
            output.line(&format!("{at}  {line}{quiet}"))?;
        }
        Format::Json => {
            let text = line(alert);
            let json = json!({
                "ts": alert.at_ms, "state": alert.state(), "rule": alert.rule,
                "topic": alert.topic, "severity": alert.severity, "value": alert.value,
                "limit": alert.limit, "loud": loud, "text": text,
            });
            output.line(&json.to_string())?;
        }
    }
    Ok(())
}
