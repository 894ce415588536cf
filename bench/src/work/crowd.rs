//! One producer and its subscribers, in one thread: the loop that the rows of many readers share.
//!
//! Some of these systems drop what a subscriber is slow to take. So that none has to, the producer
//! is never more than a window ahead of the slowest one that reads; who is told to stop reading is
//! not waited for.

use anyhow::{Context, ensure};

use super::Stage;
use crate::clock::{now_ns, seconds_since};
use crate::drive::Sender;
use crate::peers::Wanted;
use crate::receive::Receiver;
use crate::server::Fleet;
use crate::wire::wait;

/// A producer and its subscribers, who each want all.
pub struct Crowd {
    /// Who sends.
    pub sender: Sender,
    /// Who reads.
    pub receivers: Vec<Receiver>,
    window: u64,
    /// Records sent.
    pub sent: u64,
    filling: bool,
    // When each record was handed over, by its number modulo the window.
    sent_ns: Vec<u64>,
}

impl Crowd {
    /// Connects all of them to the first server.
    ///
    /// # Errors
    /// When the system pushes nothing, or refuses.
    pub fn gather(
        stage: &Stage<'_>,
        fleet: &Fleet<'_>,
        subscribers: usize,
    ) -> anyhow::Result<Self> {
        let mut receivers = Vec::with_capacity(subscribers);
        for _ in 0..subscribers {
            let feed = stage.way.feed(&stage.load, Wanted::Live).context("it pushes nothing")?;
            receivers.push(Receiver::connect(fleet.address(0), feed)?);
        }
        Self::of(stage.sender(fleet)?, receivers, stage.sizes.window)
    }

    /// Those that are connected, with at most `window` records on the way.
    ///
    /// # Errors
    /// When the window does not fit into memory.
    pub fn of(sender: Sender, receivers: Vec<Receiver>, window: u64) -> anyhow::Result<Self> {
        let sent_ns = vec![0; usize::try_from(window)?];
        Ok(Self { sender, receivers, window, sent: 0, filling: true, sent_ns })
    }

    /// Sends so many records, fewer when the time is up before, until each has come to everyone once.
    ///
    /// # Errors
    /// When the system fails or loses a record.
    pub fn run(&mut self, records: u64, seconds_max: f64) -> anyhow::Result<()> {
        let (begin_ns, readers) = (now_ns(), self.receivers.len());
        loop {
            let is_over = seconds_since(begin_ns) > seconds_max || self.sent >= records;
            if is_over && self.had_by(readers) == self.sent {
                break;
            }
            self.step(readers, !is_over, &mut |_| {})?;
        }
        let (sent, sum) = (self.sent, self.sent * self.sent.saturating_sub(1) / 2);
        let is_whole = self.receivers.iter().all(|r| r.sum == sum && r.records == sent);
        ensure!(is_whole, "not each came once");
        Ok(())
    }

    /// Records that all of the first `readers` subscribers have.
    pub fn had_by(&self, readers: usize) -> u64 {
        self.receivers[..readers].iter().map(|receiver| receiver.records).min().unwrap_or(0)
    }

    /// Sends as the window allows, if it `is_sending`, and lets the first `readers` read; waits when
    /// nothing moves. `tell` hears of each record that the first of them is brought, with how long
    /// that took.
    ///
    /// # Errors
    /// When the system fails, or falls silent though it owes records.
    pub fn step(
        &mut self,
        readers: usize,
        is_sending: bool,
        tell: &mut dyn FnMut(u64),
    ) -> anyhow::Result<()> {
        let slowest = self.had_by(readers);
        if is_sending {
            self.fill(self.window - (self.sent - slowest));
        }
        let mut progress = self.sender.flush()?;
        progress |= self.sender.receive()?;
        let Self { receivers, sent_ns, window, .. } = self;
        for (at, receiver) in receivers[..readers].iter_mut().enumerate() {
            let mut came_ns = None;
            progress |= receiver.receive(&mut |number, _| {
                if at == 0 {
                    let now = *came_ns.get_or_insert_with(now_ns);
                    let sent = usize::try_from(number % *window).map_or(now, |at| sent_ns[at]);
                    tell(now.saturating_sub(sent));
                }
            })?;
        }
        if !progress {
            let fds = self.receivers[..readers].iter().map(Receiver::poll_fd);
            let mut fds: Vec<_> = fds.chain([self.sender.poll_fd()]).collect();
            wait(&mut fds).with_context(|| format!("{slowest} of {} records came", self.sent))?;
        }
        Ok(())
    }

    // A window that became full is filled again when a quarter of it is free, as in `drive`.
    fn fill(&mut self, room: u64) {
        self.filling |= room >= self.window / 4;
        if !self.filling {
            return;
        }
        let (before, now) = (self.sent, now_ns());
        while self.sent < before + room && !self.sender.has_a_write() {
            self.sender.publish();
            if let Ok(at) = usize::try_from(self.sent % self.window) {
                self.sent_ns[at] = now;
            }
            self.sent += 1;
        }
        self.filling = self.sent < before + room;
    }
}
