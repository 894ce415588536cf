//! AKLight's producer: what a container or a machine uses, measured once a second and sent.
//!
//! Three processes, one thread each. The parent ([`supervisor`]) forks two collectors
//! ([`collector`]) before anything else is started: one reads CPU, the other memory, each writing
//! its samples into a pipe. The parent itself reads disk and network. What all of them read from
//! the kernel's files is in [`readings`]; what they make of it is a [`sample`].
//!
//! Every sample passes the [`outbox`]: straight to a broker when there is one, else through the
//! [`backlog`] and its [`spool`] on disk, under a number of its own ([`sequences`]), so that it is
//! stored exactly once whatever dies in between: a broker, the connection, or the producer.
//!
//! What is left out on purpose: threads and an async runtime (whoever forks has neither), other
//! containers than our own, and smoothing.

pub mod args;
pub mod backlog;
pub mod collector;
pub mod outbox;
pub mod outgoing;
pub mod readings;
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
    let plan = Plan { root, groups, interval_us: settings.interval_us, clock };
    let ended = Supervisor::start(&settings, plan)?.run()?;
    Ok(ExitCode::from(match ended {
        Ended::Terminated => EXIT_DONE,
        Ended::Interrupted => EXIT_INTERRUPTED,
    }))
}
