//! The `aklight` command: every part of AKLight as a subcommand, each a thin face of a crate.
//!
//! Nothing is started before the subcommand is known: no runtime, no thread. The producer forks
//! and `up` starts processes that die with it, and both need a process with one thread; those
//! that talk to a broker build a runtime of their own ([`connect`]).
//!
//! Exit codes: 0 done, 1 failed, 2 called wrongly, 130 ended by Ctrl-C; a process that SIGTERM
//! ends in good order says 0, and so does one whose reader has seen enough (`| head`).

mod alerts;
mod chaos;
mod child;
mod cluster;
mod connect;
mod debug;
mod fault;
mod fetch;
mod generate;
mod http;
mod output;
mod produce;
mod rules;
mod tail;
mod top;
mod topics;
mod up;
mod verify;

use std::io::IsTerminal;
use std::process::ExitCode;

use aklight_broker::BrokerArgs;
use aklight_common::logging::LogArgs;
use aklight_common::settings::{self, EXIT_DONE, EXIT_FAILED};
use aklight_consumer::ConsumerArgs;
use aklight_producer::ProducerArgs;
use aklight_stress::StressArgs;
use clap::{CommandFactory, Parser, Subcommand};

use crate::output::OutputError;

/// Watch machines and containers: live metrics, kept in a log, with alerts.
///
/// Begin with `aklight up`, and in another terminal `aklight tail 'metrics/docker/#'`.
#[derive(Debug, Parser)]
#[command(name = "aklight", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    log: LogArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a broker, two producers and a consumer on this machine
    Up(up::UpArgs),
    /// Run a broker
    Broker(Box<BrokerArgs>),
    /// Measure this machine or container, and send it to a broker
    Producer(ProducerArgs),
    /// Read metrics, judge them by rules, and tell who is to be told
    Consumer(Box<ConsumerArgs>),
    /// Load this machine, to see alerts ring
    Stress(StressArgs),
    /// Watch hosts and containers, live, in a terminal
    Top(top::TopArgs),
    /// Show records as they come
    Tail(tail::TailArgs),
    /// Append records, from the command line or standard input
    Produce(produce::ProduceArgs),
    /// Show stored records, from an offset on
    Fetch(fetch::FetchArgs),
    /// Show which topics there are
    Topics(topics::TopicsArgs),
    /// Show the brokers, who leads what and who lags; change who belongs to them
    Cluster(cluster::ClusterArgs),
    /// Let a broker fail on purpose, to see what the others do about it
    Fault(fault::FaultArgs),
    /// Break a cluster on purpose, under load, and check that it loses nothing
    Chaos(chaos::ChaosArgs),
    /// Check what is stored: whether it is whole, and the same on all brokers
    Verify(verify::VerifyArgs),
    /// Look into a broker
    Debug(debug::DebugArgs),
    /// Check rules, and try them on what is stored
    Rules(rules::RulesArgs),
    /// Check a file of rules: `rules check` by its old name
    CheckRules(rules::CheckRulesArgs),
    /// See to alerts
    Alerts(alerts::AlertsArgs),
    /// Print a shell's completions
    Completions(generate::CompletionsArgs),
    /// Print the manual page, or write the pages of all commands into a folder
    Man(generate::ManArgs),
}

impl Command {
    /// Whether it runs to serve, so that its log is what one looks at; or answers a question.
    fn serves(&self) -> bool {
        matches!(self, Self::Up(_) | Self::Broker(_) | Self::Producer(_) | Self::Consumer(_))
    }

    /// Whether lines of a log would stand in the middle of what it draws.
    fn draws_over_its_log(&self) -> bool {
        matches!(self, Self::Top(args) if args.draws()) && std::io::stderr().is_terminal()
    }
}

fn main() -> ExitCode {
    let Cli { log, command } = settings::parse();
    if command.serves() {
        log.init();
    } else if !command.draws_over_its_log() {
        log.init_quiet();
    }
    run(command, &log).unwrap_or_else(|error| match error.downcast_ref() {
        Some(OutputError::Closed) => ExitCode::from(EXIT_DONE),
        _ => {
            anstream::eprintln!("aklight: {error:#}");
            ExitCode::from(EXIT_FAILED)
        }
    })
}

fn run(command: Command, log: &LogArgs) -> anyhow::Result<ExitCode> {
    let whole = || settings::with_config_flag(Cli::command());
    match command {
        Command::Up(args) => up::run(&args, log),
        Command::Broker(args) => aklight_broker::run(*args),
        Command::Producer(args) => aklight_producer::run(args),
        Command::Consumer(args) => aklight_consumer::run(*args),
        Command::Stress(args) => aklight_stress::run(args),
        Command::Top(args) => top::run(&args),
        Command::Tail(args) => tail::run(&args),
        Command::Produce(args) => produce::run(&args),
        Command::Fetch(args) => fetch::run(&args),
        Command::Topics(args) => topics::run(&args),
        Command::Cluster(args) => cluster::run(&args),
        Command::Chaos(args) => chaos::run(&args),
        Command::Fault(args) => fault::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Debug(args) => debug::run(&args),
        Command::CheckRules(args) => rules::check(&args),
        Command::Rules(args) => rules::run(&args),
        Command::Alerts(args) => alerts::run(&args),
        Command::Completions(args) => generate::completions(&args, whole()),
        Command::Man(args) => generate::man(&args, whole()),
    }
}
