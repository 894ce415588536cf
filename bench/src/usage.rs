//! What processes use: processor time, memory, bytes on disk.
//!
//! Processor time of a server is read from `/proc/PID/task/*/schedstat`, exact to the nanosecond,
//! which forgets threads that ended; and from `/proc/PID/stat`, which forgets none and counts in
//! hundredths of a second. The larger of the two spans is what it used.

use std::path::Path;
use std::{fs, io};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::unistd::{SysconfVar, sysconf};

/// Processor time that a process has used so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu {
    threads_ns: u64,
    process_ns: u64,
}

impl Cpu {
    /// What the processes have used together; those that are gone count nothing.
    pub fn of(pids: &[u32]) -> Self {
        let each = pids.iter().map(|pid| Self {
            threads_ns: threads_ns(*pid).unwrap_or(0),
            process_ns: process_ns(*pid).unwrap_or(0),
        });
        each.fold(Self::default(), |sum, one| Self {
            threads_ns: sum.threads_ns + one.threads_ns,
            process_ns: sum.process_ns + one.process_ns,
        })
    }

    /// Seconds between an earlier look and this one.
    pub fn seconds_since(&self, before: &Self) -> f64 {
        let threads = self.threads_ns.saturating_sub(before.threads_ns);
        let process = self.process_ns.saturating_sub(before.process_ns);
        crate::clock::seconds(threads.max(process))
    }
}

/// Seconds of processor time that the bench itself has used.
pub fn own_cpu_seconds() -> f64 {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return 0.0 };
    let us = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    u64::try_from(us).map_or(0.0, |us| crate::clock::seconds(us * 1_000))
}

fn threads_ns(pid: u32) -> io::Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the listing and the reading.
        let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        sum += first_number(&text).unwrap_or(0);
    }
    Ok(sum)
}

fn process_ns(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold blanks and brackets: fields are counted behind the last.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let a_second = u64::try_from(sysconf(SysconfVar::CLK_TCK).ok()??).ok()?;
    Some((user + system) * crate::clock::SECOND_NS / a_second)
}

/// Bytes of memory that a process holds now, and that it held at most.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// Resident now.
    pub now: u64,
    /// Resident at most, since its start.
    pub peak: u64,
}

impl Memory {
    /// Of the processes together; those that are gone count nothing.
    pub fn of(pids: &[u32]) -> Self {
        pids.iter().fold(Self::default(), |sum, pid| {
            let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            Self {
                now: sum.now + kilobytes(&text, "VmRSS:"),
                peak: sum.peak + kilobytes(&text, "VmHWM:"),
            }
        })
    }
}

fn kilobytes(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(first_number).unwrap_or(0) * 1_024
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// Bytes that the files of a folder take on the disk, as `du` counts: what is preallocated too.
pub fn disk_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let sizes = entries.filter_map(Result::ok).map(|entry| match entry.metadata() {
        Ok(about) if about.is_dir() => disk_bytes(&entry.path()),
        Ok(about) => about.blocks() * 512,
        Err(_) => 0,
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let own = [std::process::id()];
        let before = Cpu::of(&own);
        let begin = crate::clock::now_ns();
        while crate::clock::seconds_since(begin) < 0.05 {}
        assert!(Cpu::of(&own).seconds_since(&before) > 0.01);
        assert!(Memory::of(&own).peak >= Memory::of(&own).now / 2);
        assert!(own_cpu_seconds() > 0.0);
    }
}
