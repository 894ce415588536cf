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

/// Bytes of memory that the processes hold together, a page that several share counted once
/// among them: the honest sum for processes that were forked from one.
pub fn proportional_bytes(pids: &[u32]) -> u64 {
    let of = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        kilobytes(&text, "Pss:")
    };
    pids.iter().map(of).sum()
}

/// A process and all that it and its children started.
pub fn tree(root: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let parents: Vec<(u32, u32)> = pids.filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let (mut found, mut at) = (vec![root], 0);
    while let Some(of) = found.get(at).copied() {
        found.extend(parents.iter().filter(|(_, parent)| *parent == of).map(|(pid, _)| *pid));
        at += 1;
    }
    found
}

fn parent(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
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
    fn a_tree_has_its_children() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("a child");
        let found = tree(std::process::id());
        child.kill().and_then(|()| child.wait()).expect("it ends");
        assert_eq!(found[0], std::process::id());
        assert!(found.contains(&child.id()));
        let own = [std::process::id()];
        // Others' tests run in this process meanwhile.
        assert!((1..2 * Memory::of(&own).now).contains(&proportional_bytes(&own)));
    }

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
