//! Load for a machine, so that alerts have something to ring about.
//!
//! A run is a number of seconds with one burner a core (`cpu`), with memory held (`memory`),
//! or with both; `spike` lets bursts and rests alternate. All of it hangs on one `switch`: the
//! burners look at it between two rounds, the holder of memory between two blocks, and the clock
//! or a signal turns it off. What the run cost is then told from what the kernel counted
//! (`machine`), not from what was intended.
//!
//! Invariant: when [`run`] returns, no burner runs and no block is held, however the run ended.
//! Left out: load on disks and networks, which would wear or disturb what others use.

mod cpu;
mod machine;
mod memory;
mod progress;
mod switch;

use std::io::Write;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use aklight_common::clock::{Clock, SystemClock};
use aklight_common::settings::{EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED};
use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use crate::machine::MIB;
use crate::memory::Memory;
use crate::progress::Progress;
use crate::switch::{End, Phase, Switch};

/// A day: whoever wants more should say so every day.
const SECONDS_MAX: u64 = 86_400;

/// One TiB: more is a slip of the finger on any machine this is for.
const MIB_MAX: u64 = 1 << 20;

/// Enough to be seen in every chart, little enough for a small container.
const MIB_DEFAULT: u64 = 256;

/// How long a burst lasts, and the rest after it: twice the five seconds that the default rules
/// want a limit exceeded for, so that each burst rings and each rest resolves.
const BURST_SECONDS: u64 = 10;

/// How often the run looks at the clock: the accuracy of its end, and of the progress shown.
const TICK: Duration = Duration::from_millis(100);

/// What to load, and for how long.
#[derive(Debug, Clone, Args)]
pub struct StressArgs {
    #[command(subcommand)]
    load: Load,
}

#[derive(Debug, Clone, Subcommand)]
enum Load {
    /// Load all cores
    Cpu {
        #[command(flatten)]
        time: Time,
    },
    /// Fill memory and keep it
    Memory {
        #[command(flatten)]
        time: Time,
        #[command(flatten)]
        size: Size,
    },
    /// Load all cores and fill memory
    Both {
        #[command(flatten)]
        time: Time,
        #[command(flatten)]
        size: Size,
    },
    /// Load all cores in bursts of ten seconds, with rests as long
    Spike {
        #[command(flatten)]
        time: Time,
    },
}

#[derive(Debug, Clone, Args)]
struct Time {
    /// How many seconds
    #[arg(value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    seconds: u64,
}

#[derive(Debug, Clone, Args)]
struct Size {
    /// How many MiB
    #[arg(default_value_t = MIB_DEFAULT, value_parser = clap::value_parser!(u64).range(1..=MIB_MAX))]
    mib: u64,
}

/// A load, resolved.
#[derive(Debug, Clone, Copy)]
struct Job {
    seconds: u64,
    cores: usize,
    mib: u64,
    bursts: bool,
}

impl Job {
    fn new(load: &Load) -> Self {
        let all = machine::cores();
        let (seconds, cores, mib, bursts) = match load {
            Load::Cpu { time } => (time.seconds, all, 0, false),
            Load::Memory { time, size } => (time.seconds, 0, size.mib, false),
            Load::Both { time, size } => (time.seconds, all, size.mib, false),
            Load::Spike { time } => (time.seconds, all, 0, true),
        };
        Self { seconds, cores, mib, bursts }
    }

    /// What the burners do after so many milliseconds.
    fn phase(&self, elapsed_ms: u64) -> Phase {
        let burst = elapsed_ms / 1000 / BURST_SECONDS;
        if self.bursts && burst % 2 == 1 { Phase::Rest } else { Phase::Work }
    }
}

/// Loads the machine as asked, shows how it goes and says in the end what it was.
///
/// # Errors
/// When there is not as much memory as asked for.
pub fn run(args: StressArgs) -> anyhow::Result<ExitCode> {
    let job = Job::new(&args.load);
    let available = machine::memory_available();
    if job.mib > available / MIB {
        bail!(
            "{} MiB are more than the {} MiB that are available here: ask for less",
            job.mib,
            available / MIB
        );
    }
    let switch = Switch::shared();
    switch::end_on_signals(&switch).context("cannot wait for signals")?;
    let clock = SystemClock::new();
    let cpu_before = machine::cpu_seconds();
    let memory = Memory::new(job.mib);

    let (end, held) = thread::scope(|scope| {
        for _ in 0..job.cores {
            scope.spawn(|| cpu::burn(&switch));
        }
        let holder = scope.spawn(|| {
            let held = memory.hold(&switch);
            if held.is_err() {
                switch.end(End::Failed);
            }
            held
        });
        let end = drive(&job, &switch, &clock, &memory);
        (end, holder.join())
    });
    match held {
        Ok(held) => held?,
        Err(_) => bail!("the thread that holds the memory broke off"),
    }

    let touched = memory.touched_mib();
    drop(memory);
    let seconds = clock.monotonic_ms() as f64 / 1000.0;
    summary(&job, end, seconds, machine::cpu_seconds() - cpu_before, touched);
    Ok(ExitCode::from(match end {
        End::Time | End::Terminated => EXIT_DONE,
        End::Interrupted => EXIT_INTERRUPTED,
        End::Failed => EXIT_FAILED,
    }))
}

/// Turns the phases until the time is over or something else ends the run.
fn drive(job: &Job, switch: &Switch, clock: &SystemClock, memory: &Memory) -> End {
    let mut progress = Progress::new(job.seconds);
    loop {
        let elapsed_ms = clock.monotonic_ms();
        if elapsed_ms >= job.seconds * 1000 {
            switch.end(End::Time);
        } else {
            switch.turn(job.phase(elapsed_ms));
        }
        progress.show(elapsed_ms, memory.touched_mib());
        if let Some(end) = switch.wait_for_end(TICK) {
            progress.finish();
            return end;
        }
    }
}

fn summary(job: &Job, end: End, seconds: f64, cpu_seconds: f64, touched: u64) {
    let end = match end {
        End::Time => "done",
        End::Interrupted => "interrupted",
        End::Terminated => "terminated",
        End::Failed => "failed",
    };
    let text = format!(
        "stress        {end}\n\
         seconds       {seconds:.1}\n\
         cores         {}\n\
         CPU seconds   {cpu_seconds:.1} ({:.0} % of one CPU)\n\
         MiB touched   {touched}\n\
         MiB peak RSS  {}\n",
        job.cores,
        100.0 * cpu_seconds / seconds,
        machine::peak_rss() / MIB,
    );
    // The load was there even when nobody reads about it any more.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_and_rests_alternate_and_other_loads_never_rest() {
        let steady = Job { seconds: 60, cores: 1, mib: 0, bursts: false };
        let spike = Job { bursts: true, ..steady };
        let at = |job: &Job| [0, 9_999, 10_000, 19_999, 20_000].map(|ms| job.phase(ms));
        use Phase::{Rest, Work};
        assert_eq!(at(&steady), [Work; 5]);
        assert_eq!(at(&spike), [Work, Work, Rest, Rest, Work]);
    }
}
