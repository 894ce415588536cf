//! The way of records into the pipe.
//!
//! Lines are packed into writes of at most `PIPE_BUF` bytes, which a pipe takes whole or not at
//! all (pipe(7)). When it is full the parent is given a moment to read. After that the samples
//! that are left are dropped and counted: the next ones say the same of a later second. Events and
//! what containers are would not come again, so they wait for the next time, and go first.
//!
//! Invariant: no sample is written before what was kept before it.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};

use aklight_common::clock::SharedClock;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::warn;

use crate::record::write_line;
use crate::sample::Sample;

/// How long to wait for room at one tick, in all: a tenth of a tick, so that a parent that is
/// stopped costs samples and no measurement.
const WAIT_MS_MAX: u64 = 100;

/// Lines that are kept for a parent that does not read, at most 4 KiB each.
const KEPT_MAX: usize = 1024;

/// Lines on their way into the pipe.
#[derive(Debug, Default)]
pub struct Lines {
    kept: VecDeque<Vec<u8>>,
    samples: Vec<u8>,
    /// Where each of the samples' lines ends.
    ends: Vec<usize>,
    dropped: u64,
}

impl Lines {
    /// Takes what must not be lost.
    pub fn keep(&mut self, topic: &str, record: &Sample) {
        let mut line = Vec::new();
        write_line(&mut line, topic, &record.to_json());
        if line.len() > libc::PIPE_BUF {
            warn!("a record of {topic} is too long for a pipe: {} bytes", line.len());
            return;
        }
        if self.kept.len() == KEPT_MAX {
            self.kept.pop_front();
            self.dropped += 1;
        }
        self.kept.push_back(line);
    }

    /// Takes a sample.
    pub fn sample(&mut self, topic: &str, sample: &Sample) {
        write_line(&mut self.samples, topic, &sample.to_json());
        self.ends.push(self.samples.len());
    }

    /// Takes what this process counted of itself, as a line.
    pub fn count(&mut self, line: &[u8]) {
        self.samples.extend_from_slice(line);
        self.ends.push(self.samples.len());
    }

    /// How many lines were dropped so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Writes all that the pipe takes.
    ///
    /// # Errors
    /// When nobody can read any more.
    pub fn write(&mut self, pipe: BorrowedFd<'_>, clock: &SharedClock) -> Result<(), Errno> {
        let mut writer = Writer { pipe, clock, deadline_ms: clock.monotonic_ms() + WAIT_MS_MAX };
        while let Some(line) = self.kept.front() {
            if !writer.write(line)? {
                self.drop_samples(0);
                return Ok(());
            }
            self.kept.pop_front();
        }
        let (mut written, mut begin) = (0, 0);
        while written < self.ends.len() {
            let fits = |end: &&usize| **end - begin <= libc::PIPE_BUF;
            let packed = self.ends[written..].iter().take_while(fits).count().max(1);
            let end = self.ends[written + packed - 1];
            if !writer.write(&self.samples[begin..end])? {
                break;
            }
            written += packed;
            begin = end;
        }
        self.drop_samples(written);
        Ok(())
    }

    /// All that would be written, in its order.
    #[cfg(test)]
    pub fn take_all(&mut self) -> Vec<u8> {
        let mut all: Vec<u8> = self.kept.drain(..).flatten().collect();
        all.append(&mut self.samples);
        self.ends.clear();
        all
    }

    fn drop_samples(&mut self, written: usize) {
        self.dropped += (self.ends.len() - written) as u64;
        self.samples.clear();
        self.ends.clear();
    }
}

struct Writer<'a> {
    pipe: BorrowedFd<'a>,
    clock: &'a SharedClock,
    deadline_ms: u64,
}

impl Writer<'_> {
    /// Writes bytes whole; answers whether there was room.
    fn write(&mut self, bytes: &[u8]) -> Result<bool, Errno> {
        loop {
            match nix::unistd::write(self.pipe, bytes) {
                Ok(_) => return Ok(true),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    let left_ms = self.deadline_ms.saturating_sub(self.clock.monotonic_ms());
                    if left_ms == 0 {
                        return Ok(false);
                    }
                    let mut fds = [PollFd::new(self.pipe.as_fd(), PollFlags::POLLOUT)];
                    let wait = PollTimeout::try_from(left_ms).unwrap_or(PollTimeout::ZERO);
                    match poll(&mut fds, wait) {
                        Ok(_) | Err(Errno::EINTR) => {}
                        Err(error) => return Err(error),
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::OwnedFd;

    use aklight_common::clock::SystemClock;
    use nix::fcntl::OFlag;
    use nix::unistd::pipe2;

    use super::*;
    use crate::record::{Said, parse_line};

    fn a_pipe() -> (OwnedFd, OwnedFd) {
        pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).expect("a pipe")
    }

    /// What can be read now, as topics.
    fn topics(reading: &OwnedFd) -> Vec<String> {
        let mut bytes = Vec::new();
        let mut file = std::fs::File::from(reading.try_clone().expect("a clone"));
        let end = file.read_to_end(&mut bytes).expect_err("nothing more now");
        assert_eq!(end.kind(), std::io::ErrorKind::WouldBlock);
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines
            .map(|line| match parse_line(line) {
                Some(Said::Record(record)) => record.topic,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn fill(lines: &mut Lines, count: usize) {
        let sample = Sample::new(1, 2_u64, "percent").with("filler", "x".repeat(150).as_str());
        (0..count).for_each(|n| lines.sample(&format!("metrics/{n}"), &sample));
    }

    #[test]
    fn what_was_kept_goes_first_and_nothing_is_cut() {
        let (reading, writing) = a_pipe();
        let mut lines = Lines::default();
        fill(&mut lines, 100);
        lines.keep("events/x", &Sample::new(1, 1_u64, "event"));
        lines.write(writing.as_fd(), &SystemClock::shared()).expect("written");
        let topics = topics(&reading);
        assert_eq!(topics.len(), 101);
        assert_eq!((topics[0].as_str(), topics[100].as_str()), ("events/x", "metrics/99"));
        assert_eq!(lines.dropped(), 0);
    }

    #[test]
    fn a_parent_that_does_not_read_costs_samples_counted_and_no_event() {
        let (reading, writing) = a_pipe();
        let clock = SystemClock::shared();
        let mut lines = Lines::default();
        fill(&mut lines, 1000);
        lines.write(writing.as_fd(), &clock).expect("written");
        let dropped = lines.dropped();
        assert!(dropped > 0);
        // So long that it does not fit behind the last sample.
        let event = Sample::new(1, 1_u64, "event").with("filler", "x".repeat(3000).as_str());
        lines.keep("events/x", &event);
        fill(&mut lines, 3);
        let asked_ms = clock.monotonic_ms();
        lines.write(writing.as_fd(), &clock).expect("waited");
        assert!(clock.monotonic_ms() < asked_ms + 10 * WAIT_MS_MAX, "the wait has an end");
        assert_eq!(lines.dropped(), dropped + 3);
        assert_eq!(topics(&reading).len() as u64 + dropped, 1000);
        fill(&mut lines, 1);
        lines.write(writing.as_fd(), &clock).expect("written");
        assert_eq!(topics(&reading), ["events/x", "metrics/0"]);
    }

    #[test]
    fn a_parent_that_reads_late_costs_nothing() {
        let (reading, writing) = a_pipe();
        let mut lines = Lines::default();
        fill(&mut lines, 1000);
        let reader = std::thread::spawn(move || {
            let mut seen = 0;
            while seen < 1000 {
                let mut fds = [PollFd::new(reading.as_fd(), PollFlags::POLLIN)];
                poll(&mut fds, PollTimeout::NONE).expect("ready");
                let mut chunk = [0; 4096];
                let read = nix::unistd::read(&reading, &mut chunk).expect("read");
                seen += chunk[..read].iter().filter(|byte| **byte == b'\n').count();
            }
        });
        lines.write(writing.as_fd(), &SystemClock::shared()).expect("written");
        reader.join().expect("all were read");
        assert_eq!(lines.dropped(), 0);
    }

    #[test]
    fn a_parent_that_is_gone_is_an_error() {
        let (reading, writing) = a_pipe();
        drop(reading);
        let mut lines = Lines::default();
        fill(&mut lines, 1);
        assert_eq!(lines.write(writing.as_fd(), &SystemClock::shared()), Err(Errno::EPIPE));
    }
}
