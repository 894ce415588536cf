//! AKLight's producer: what a container or a machine uses, measured once a second and sent.
//!
//! Four processes, one thread each. The parent ([`supervisor`]) forks the collectors
//! ([`collector`]) before anything else is started: one reads CPU, one memory, one watches the
//! containers of an engine ([`docker`]), each writing into a pipe. The parent itself reads disk,
//! network and what all of them cost. What they read from the kernel's files is in [`readings`];
//! what they make of it is a [`sample`].
//!
//! All of it meets at the [`intake`], which adds a record a minute and one every five ([`rollup`]). Every record passes the [`outbox`]: straight to a broker when there is one, else through the
//! [`backlog`] and its [`spool`] on disk, under a number of its own ([`sequences`]), so that it is
//! stored exactly once whatever dies in between: a broker, the connection, or the producer.
//!
//! What is left out on purpose: threads, and a runtime where anything is forked (the collector of
//! containers has one, and forks nothing); anything that would change a container; and smoothing.

pub mod args;
pub mod backlog;
pub mod collector;
pub mod docker;
pub mod intake;
pub mod outbox;
pub mod outgoing;
pub mod readings;
pub mod record;
pub mod rollup;
pub mod sample;
pub mod sequences;
pub mod spool;
pub mod supervisor;
pub mod ticker;
pub mod title;

use std::process::ExitCode;

use aklight_common::clock::SystemClock;
use aklight_common::settings::{EXIT_DONE, EXIT_INTERRUPTED};
use sysinfo::System;
use tracing::info;

pub use args::ProducerArgs;

use crate::collector::Plan;
use crate::readings::Root;
use crate::readings::cgroup::Groups;
use crate::supervisor::{Ended, Supervisor};

/// Runs a producer until SIGTERM or SIGINT. The process must have one thread, and be a process of
/// its own: it forks, and takes over its signals and its children.
///
/// # Errors
/// When the settings are wrong, the collectors cannot be forked, or another producer uses the
/// spool.
pub fn run(args: ProducerArgs) -> anyhow::Result<ExitCode> {
    let settings = args.resolve()?;
    let root = Root::system();
    let groups = Groups::find(&root);
    info!(
        "producer {} measures this {} ({}, kernel {}, control groups {}), sends to {}",
        settings.id,
        if groups.container { "container" } else { "machine" },
        System::long_os_version().unwrap_or_else(|_| "unknown system".to_owned()),
        System::kernel_version().unwrap_or_else(|_| "unknown".to_owned()),
        groups.layout.name(),
        settings.brokers.join(","),
    );
    let clock = SystemClock::shared();
    let (interval_us, docker) = (settings.interval_us, settings.docker.clone());
    let plan = Plan { root, groups, interval_us, clock, docker };
    let ended = Supervisor::start(&settings, plan)?.run()?;
    Ok(ExitCode::from(match ended {
        Ended::Terminated => EXIT_DONE,
        Ended::Interrupted => EXIT_INTERRUPTED,
    }))
}
