//! Cost: what the producer itself takes, all of its processes together.
//!
//! CPU time is that of the parent, of its children that live, and of those that died and were
//! waited for (`/proc/PID/stat` counts them with the parent), so a collector that is forked again
//! is no jump. Memory is counted in shares (PSS): the processes are forks of one and have most of
//! their pages in common, and a page that three of them have is one page of the machine's. Where
//! the kernel does not tell shares, it is the sum of what each has, which counts such a page
//! three times.

use super::{Moment, ReadError, Root, value_of};
use crate::sample::Sample;

/// Ticks of `/proc/PID/stat` a second (`USER_HZ`, proc(5)).
const TICKS_S: u64 = 100;

/// `smaps_rollup` counts in KiB.
const ROLLUP_UNIT_BYTES: u64 = 1024;

/// utime, stime, cutime and cstime are the 14th to 17th field of `/proc/PID/stat`; those behind
/// the name begin with the third.
const TIMES_BEHIND_NAME: usize = 14 - 3;

/// Reads what processes take.
#[derive(Debug)]
pub struct CostReader {
    root: Root,
    last: Option<(u64, u64)>,
}

impl CostReader {
    /// A reader of processes as this `/proc` shows them.
    #[must_use]
    pub fn new(root: Root) -> Self {
        Self { root, last: None }
    }

    /// What this process and its `children` took since the last reading; `None` at the first.
    ///
    /// # Errors
    /// When this process's own files cannot be read or hold something else.
    pub fn read(
        &mut self,
        now: Moment,
        children: impl IntoIterator<Item = i32>,
    ) -> Result<Option<Sample>, ReadError> {
        let own = self.process("self")?;
        // A child that died just now is counted when it was waited for.
        let living = children.into_iter().filter_map(|pid| self.process(&pid.to_string()).ok());
        let (ticks, bytes) = living.fold(own, |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let Some((last_us, last_ticks)) = self.last.replace((now.monotonic_us, ticks)) else {
            return Ok(None);
        };
        let elapsed_us = now.monotonic_us.saturating_sub(last_us);
        let used_us = ticks.saturating_sub(last_ticks) * (1_000_000 / TICKS_S);
        let value = super::percent(used_us, elapsed_us);
        Ok(Some(Sample::new(now.wall_ms, value, "percent").with("bytes", bytes)))
    }

    /// Ticks used and bytes had by a process.
    fn process(&self, pid: &str) -> Result<(u64, u64), ReadError> {
        let path = format!("/proc/{pid}/stat");
        let stat = self.root.read(&path)?;
        let ticks = ticks(&stat).ok_or_else(|| self.root.nonsense(path, "CPU time"))?;
        let shares = self.root.read(format!("/proc/{pid}/smaps_rollup")).ok();
        let shares = shares.and_then(|text| value_of(&text, "Pss:"));
        let units = match shares {
            Some(units) => units,
            None => {
                let path = format!("/proc/{pid}/status");
                let resident = value_of(&self.root.read(&path)?, "VmRSS:");
                resident.ok_or_else(|| self.root.nonsense(path, "VmRSS"))?
            }
        };
        Ok((ticks, units * ROLLUP_UNIT_BYTES))
    }
}

fn ticks(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let times = behind_name.split_ascii_whitespace().skip(TIMES_BEHIND_NAME).take(4);
    times.map(|ticks| ticks.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Tree;
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment { wall_ms: seconds * 1000, monotonic_us: seconds * 1_000_000 }
    }

    fn stat(times: [u64; 4]) -> String {
        let [user, system, waited_user, waited_system] = times;
        format!(
            "7 (a (b) c) S 1 7 7 0 -1 4194304 9 8 7 6 {user} {system} {waited_user} {waited_system} 20 0 1"
        )
    }

    #[test]
    fn the_living_and_the_dead_are_counted_together() {
        let tree = Tree::new(&[
            ("/proc/self/stat", &stat([10, 10, 0, 0])),
            ("/proc/self/smaps_rollup", "55-7f Rollup\nRss: 9 kB\nPss:   3000 kB\n"),
            ("/proc/8/stat", &stat([50, 50, 0, 0])),
            ("/proc/8/smaps_rollup", "Pss: 1000 kB\n"),
        ]);
        let mut reader = CostReader::new(tree.root());
        assert_eq!(reader.read(at(0), [8, 9]).expect("read"), None);
        // 8 died with 110 ticks and 9 came.
        tree.remove("/proc/8/stat");
        tree.put("/proc/self/stat", &stat([20, 10, 60, 50]));
        tree.put("/proc/9/stat", &stat([4, 1, 0, 0]));
        tree.put("/proc/9/status", "Name:\tx\nVmRSS:\t 500 kB\n");
        let sample = reader.read(at(10), [9]).expect("read").expect("a sample");
        // 145 - 120 ticks of 10 ms in 10 s.
        assert_eq!(sample.value(), 2.5);
        assert_eq!(sample.field("bytes"), Some(3500.0 * 1024.0));
    }

    #[test]
    fn this_process_takes_something() {
        let mut reader = CostReader::new(Root::system());
        assert_eq!(reader.read(at(0), []).expect("read"), None);
        let sample = reader.read(at(1), []).expect("read").expect("a sample");
        assert!(sample.field("bytes").is_some_and(|bytes| bytes > 100_000.0), "{sample:?}");
    }
}
