//! The containers of an engine, watched: a child of the producer with one pipe to its parent.
//!
//! ```text
//!  engine ──GETs──► watcher ──news──► containers ──lines──► pipe ──► parent
//!                                         ▲
//!  cgroup files, /proc ──── each tick ────┘
//! ```
//!
//! What a container is and what happens to it comes from the engine's API ([`engine`],
//! [`watcher`]); what it uses comes from the kernel's own files ([`group`], [`reading`]), because
//! an engine takes many times the effort to tell the same. Only where those files are not there
//! (an engine elsewhere) the engine is asked for numbers too. [`containers`] puts the two together
//! and says what is to be told; [`pipe`] tells it.
//!
//! This is the one process of the producer with a runtime: asking an engine must not hold up a
//! measurement, and an HTTP client is not something to write again. It is made after the fork, has
//! one thread, and is never forked from. The parent stays without: whoever forks has no threads
//! and no runtime.
//!
//! Invariants: the engine is only ever asked ([`engine`] can do nothing but GET); a measurement
//! waits for no answer; when the engine goes, measuring goes on and it is looked for again.

pub mod containers;
pub mod details;
pub mod engine;
pub mod events;
pub mod filter;
pub mod group;
pub mod pipe;
pub mod reading;
pub mod shapes;
pub mod topics;
pub mod watcher;

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::error;

use crate::collector::{EXIT_FAILED, EXIT_ORPHANED, Plan};
use crate::readings::{Moment, Root};
use crate::record::{Tally, tally_line};
use crate::ticker::Ticker;
use containers::Containers;
use engine::Address;
use filter::Filter;
use group::Hierarchies;
use pipe::Lines;
use watcher::{Asked, Watcher};

/// News that wait to be taken: more than an engine tells between two looks; a longer list waits
/// with the watcher.
const NEWS_MAX: usize = 64;

/// How often the parent is told what is counted here: twice as often as it asks.
const TALLY_EVERY_US: u64 = 5_000_000;

/// Which containers to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// The producer's name, in topics.
    pub producer: String,
    /// Where the engine is, where that was said.
    pub address: Option<Address>,
    /// Which of its containers.
    pub filter: Filter,
    /// Where the host's `/proc` and `/sys/fs/cgroup` are.
    pub host: Root,
}

/// The collector's whole life.
#[must_use]
pub fn run(plan: &Plan, pipe: &OwnedFd) -> i32 {
    let Some(watch) = &plan.docker else { return EXIT_ORPHANED };
    allow_open_files();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => match runtime.block_on(collect(plan, watch, pipe)) {
            Err(_) => EXIT_ORPHANED,
        },
        Err(error) => {
            error!("the collector of containers cannot begin: {error}");
            EXIT_FAILED
        }
    }
}

/// A dozen files a container are kept open, and the usual limit is 1,024. A process may raise it
/// as far as its administrator lets it, which is usually far enough for any number of containers.
fn allow_open_files() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Ends with the error of a pipe that nobody reads.
async fn collect(plan: &Plan, watch: &Watch, pipe: &OwnedFd) -> Result<Infallible, Errno> {
    let clock = &plan.clock;
    let now = || Moment { wall_ms: clock.wall_ms(), monotonic_us: clock.monotonic_us() };
    let hierarchies = Hierarchies::find(watch.host.clone());
    let mut containers = Containers::new(&watch.producer, watch.filter.clone(), hierarchies);
    let mut lines = Lines::default();
    let (sender, mut news) = mpsc::channel(NEWS_MAX);
    let asked = Asked::default();
    let interval = Duration::from_micros(plan.interval_us);
    let watcher = Watcher::new(watch, clock, interval, sender, asked.clone());
    let mut watching = pin!(watcher.run());
    let mut ticker = Ticker::new(clock.monotonic_us() + plan.interval_us, plan.interval_us);
    let mut tallies = Ticker::new(clock.monotonic_us(), TALLY_EVERY_US);
    loop {
        let wait = Duration::from_millis(ticker.wait_ms(clock.monotonic_us()));
        tokio::select! {
            biased;
            Some(news) = news.recv() => {
                containers.take(news, now(), &mut lines);
                *asked.borrow_mut() = containers.without_files().cloned().collect();
            }
            never = &mut watching => match never {},
            () = sleep(wait) => {}
        }
        if ticker.due(clock.monotonic_us()) {
            containers.tick(now(), &mut lines);
        }
        if tallies.due(clock.monotonic_us()) {
            let containers = containers.count() as u64;
            let tally = Tally { containers, dropped: lines.dropped() };
            lines.count(&tally_line(tally));
        }
        lines.write(pipe.as_fd(), clock)?;
    }
}
