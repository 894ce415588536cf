//! `aklight up`: a broker, two producers and a consumer on this machine, as one command.
//!
//! Each is a process of its own, this same program with another subcommand, so that what is
//! tried here is what runs in containers. Their lines come out under their names; what dies is
//! started again; Ctrl-C ends them in the order in which nothing is lost: the consumer, the
//! producers, the broker.
//!
//! [`service`] is one process, [`console`] prints what all of them say, [`supervisor`] is the
//! loop that keeps them. Left out: anything docker-compose is for, as limits and networks.

mod console;
mod service;
mod supervisor;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aklight_common::clock::SystemClock;
use aklight_common::logging::{LogArgs, LogFormat};
use anyhow::{Context, bail};
use clap::Args;

use service::Service;
use supervisor::Supervisor;

/// HTTP stands this far above the line protocol: 7000 and 7070, 7001 and 7071.
const HTTP_ABOVE: u16 = 70;

/// When each kind of process is ended: lower numbers first.
const STAGE_CONSUMERS: u8 = 0;
const STAGE_PRODUCERS: u8 = 1;
const STAGE_BROKERS: u8 = 2;

/// Where and how to run everything.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// The broker's port; its HTTP port is 70 above
    #[arg(long, env = "AKLIGHT_UP_PORT", default_value_t = 7000,
          value_parser = clap::value_parser!(u16).range(1..=i64::from(u16::MAX - HTTP_ABOVE)))]
    port: u16,
    /// The folder for the log, the offsets and what producers could not send yet
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
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
    check_port_is_free(address)?;
    let services = services(args, log, address);
    Supervisor::new(services, address, SystemClock::new())?.run()
}

/// Asked before the broker does, because the broker that answers there would be taken for ours.
fn check_port_is_free(address: SocketAddr) -> anyhow::Result<()> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => bail!(
            "port {} is taken: does another `aklight up` run? End it, or choose another port \
             with --port",
            address.port()
        ),
        Err(error) => Err(error).with_context(|| format!("{address} cannot be listened on")),
    }
}

fn services(args: &UpArgs, log: &LogArgs, address: SocketAddr) -> Vec<Service> {
    let http = SocketAddr::from((address.ip(), address.port() + HTTP_ABOVE));
    let in_dir = |name: &str| text(&args.dir.join(name));
    let brokers = ["--brokers".to_owned(), address.to_string()];
    let mut services = vec![Service::new(
        "broker1",
        STAGE_BROKERS,
        [
            "broker".to_owned(),
            format!("--data-dir={}", in_dir("data")),
            format!("--listen={address}"),
            format!("--listen-http={http}"),
        ]
        .to_vec(),
    )];
    for id in ["producer1", "producer2"] {
        let mut command = vec!["producer".to_owned(), format!("--id={id}")];
        command.push(format!("--spool-dir={}", in_dir(&format!("spool/{id}"))));
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
