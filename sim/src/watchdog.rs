//! Ends a seed that hangs: it has taken more processor time than any other does, or takes none.
//!
//! What counts is processor time, because on a busy machine a seed that is all right takes long.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// More than any seed takes: usual ones take seconds.
const USED_MAX: Duration = Duration::from_secs(300);

/// Whoever has the processor for less than this between two looks does nothing.
const WORK_MIN: Duration = Duration::from_millis(1);

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks in a row without work until it is said to stand still.
const IDLE_LOOKS_MAX: u32 = 120;

/// Exit code of a program that is ended for it.
const HANGS: i32 = 3;

#[derive(Default)]
struct Watch {
    used: Duration,
    idle_looks: u32,
}

impl Watch {
    /// So much processor time was used up to now: what is wrong with that.
    fn look(&mut self, used: Duration) -> Option<String> {
        let works = used.saturating_sub(self.used) >= WORK_MIN;
        self.idle_looks = if works { 0 } else { self.idle_looks + 1 };
        self.used = used;
        if used > USED_MAX {
            return Some(format!("it took more than {} s of processor time", USED_MAX.as_secs()));
        }
        let idle = u64::from(self.idle_looks) * LOOK_EVERY.as_secs();
        (self.idle_looks >= IDLE_LOOKS_MAX).then(|| format!("it did nothing for {idle} s"))
    }
}

/// Watches over this process from now on, and ends it when it hangs.
pub fn start() {
    std::thread::spawn(|| {
        let mut watch = Watch::default();
        loop {
            std::thread::sleep(LOOK_EVERY);
            if let Some(why) = watch.look(used()) {
                eprintln!("hangs: {why}");
                std::process::exit(HANGS);
            }
        }
    });
}

/// The processor time of this process; none where the system does not say.
fn used() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return Duration::ZERO };
    let us = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(u64::try_from(us).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_works_slowly_does_not_hang() {
        let mut watch = Watch::default();
        let looks = (1..=30_000).map(|n| watch.look(Duration::from_millis(10 * n)));
        assert!(looks.into_iter().all(|said| said.is_none()));
        assert!(watch.look(Duration::from_secs(301)).expect("hangs").contains("300 s"));
    }

    #[test]
    fn who_does_nothing_hangs() {
        let mut watch = Watch::default();
        let used = Duration::from_secs(2);
        // What the watch itself takes is no work.
        let said: Vec<_> =
            (0..121).map(|n| watch.look(used + Duration::from_micros(5 * n))).collect();
        assert!(said[..120].iter().all(Option::is_none));
        assert!(said[120].is_some());
    }

    #[test]
    fn the_system_says_what_was_used() {
        let before = used();
        while used() < before + WORK_MIN {
            std::hint::spin_loop();
        }
    }
}
