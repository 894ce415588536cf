//! `aklight up`: brokers, two producers and a consumer on this machine, as one command.
//!
//! Each is a process of its own, this same program with another subcommand, so that what is
//! tried here is what runs in containers. Their lines come out under their names; what dies is
//! started again; Ctrl-C ends them in the order in which nothing is lost: the consumer, the
//! producers, the brokers.
//!
//! [`layout`] says which brokers and where, [`service`] is one process, [`console`] prints what
//! all of them say, [`supervisor`] is the loop that keeps them. Left out: anything docker-compose
//! is for, as limits and networks; and growing a cluster, which `aklight cluster add` does with a
//! broker that was started by hand.

mod console;
mod layout;
mod service;
mod supervisor;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aklight_common::clock::SystemClock;
use aklight_common::logging::{LogArgs, LogFormat};
use clap::Args;

use layout::{Layout, PORT_MAX};
use service::Service;
use supervisor::Supervisor;

/// When each kind of process is ended: lower numbers first.
const STAGE_CONSUMERS: u8 = 0;
const STAGE_PRODUCERS: u8 = 1;
const STAGE_BROKERS: u8 = 2;

/// Where and how to run everything.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// How many brokers: 1, 3 or 5 [default: 3, or as many as the folder holds]
    #[arg(long, env = "AKLIGHT_UP_BROKERS", value_name = "N", value_parser = layout::count)]
    brokers: Option<usize>,
    /// The first broker's port; the others follow, HTTP is 70 above, brokers meet 90 above
    #[arg(long, env = "AKLIGHT_UP_PORT", default_value_t = 7000,
          value_parser = clap::value_parser!(u16).range(1..=i64::from(PORT_MAX)))]
    port: u16,
    /// Let `aklight fault` break the brokers on purpose
    #[arg(long, env = "AKLIGHT_ALLOW_FAULTS", default_value_t = false)]
    allow_faults: bool,
    /// The folder for the logs, the offsets and what producers could not send yet
    #[arg(long, env = "AKLIGHT_UP_DIR", default_value = ".aklight", value_name = "DIR")]
    dir: PathBuf,
    /// The consumer's rules [default: alerts above 80 % of CPU and memory, 90 % of disk]
    #[arg(long, env = "AKLIGHT_RULES", value_name = "FILE")]
    rules: Option<PathBuf>,
}

/// Runs everything until it is ended.
pub fn run(args: &UpArgs, log: &LogArgs) -> anyhow::Result<ExitCode> {
    if let Some(rules) = &args.rules {
        // A consumer that cannot start would be started again for ever.
        aklight_consumer::load::load_rules(rules)?;
    }
    let layout = Layout::new(&args.dir, args.port, args.brokers)?;
    layout.check_ports_are_free()?;
    let services = services(args, log, &layout);
    Supervisor::new(services, layout, SystemClock::new())?.run()
}

fn services(args: &UpArgs, log: &LogArgs, layout: &Layout) -> Vec<Service> {
    let in_dir = |name: &str| text(&args.dir.join(name));
    let brokers = ["--brokers".to_owned(), layout.for_clients()];
    let mut services = Vec::new();
    for broker in &layout.brokers {
        let mut command = layout.command_of(broker);
        command.extend(args.allow_faults.then(|| "--allow-faults".to_owned()));
        services.push(Service::new(&format!("broker{}", broker.id), STAGE_BROKERS, command));
    }
    for id in ["producer1", "producer2"] {
        let mut command = vec!["producer".to_owned(), format!("--id={id}")];
        command.push(format!("--spool-dir={}", in_dir(&format!("spool/{id}"))));
        // Both run beside the same engine, and each container is to be shown once.
        command.extend((id != "producer1").then(|| "--docker=off".to_owned()));
        command.extend(brokers.clone());
        services.push(Service::new(id, STAGE_PRODUCERS, command));
    }
    let mut command = vec!["consumer".to_owned(), "--id=consumer1".to_owned()];
    command.push(format!("--offsets-dir={}", in_dir("offsets")));
    command.extend(args.rules.iter().map(|rules| format!("--rules={}", text(rules))));
    command.extend(brokers);
    services.push(Service::new("consumer1", STAGE_CONSUMERS, command));
    for service in &mut services {
        service.add_args(log.log_level.iter().map(|level| format!("--log-level={level}")));
        if log.log_format == LogFormat::Json {
            service.add_args(["--log-format=json".to_owned()]);
        }
    }
    services
}

/// Paths go to children as text; one that is no UTF-8 is a folder that nobody typed.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
