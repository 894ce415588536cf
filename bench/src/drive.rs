//! The load generator: records out, acknowledgements in, one thread, never more than a window
//! of records on the way.
//!
//! A window that became full is filled again when a quarter of it is free: single
//! acknowledgements that trickle in would otherwise make single records trickle out, which no
//! good client does.

use anyhow::ensure;
use hdrhistogram::Histogram;
use nix::poll::PollFd;
use std::net::SocketAddr;

use crate::clock::{now_ns, seconds_since};
use crate::peers::Publisher;
use crate::usage::own_cpu_seconds;
use crate::wire::{WRITE_BYTES, Wire, wait};

/// What was sent, and what that took.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Records, all acknowledged.
    pub records: u64,
    /// From the first write to the last acknowledgement.
    pub seconds: f64,
    /// Processor time of the bench itself.
    pub client_cpu_seconds: f64,
}

/// A connection that sends.
pub struct Sender {
    wire: Wire,
    publisher: Box<dyn Publisher>,
    due: u64,
    sent: u64,
    acknowledged: u64,
    // Whether the window has room and was not full since.
    filling: bool,
}

impl Sender {
    /// Connects, and waits until the peer is ready for records.
    ///
    /// # Errors
    /// When the peer is not there or refuses.
    pub fn connect(address: SocketAddr, publisher: Box<dyn Publisher>) -> anyhow::Result<Self> {
        Self::over(Wire::connect(address)?, publisher)
    }

    /// The same, with a peer that may be silent for `patience_ms` and no longer.
    ///
    /// # Errors
    /// When the peer is not there, silent, or refuses.
    pub fn connect_for(
        address: SocketAddr,
        publisher: Box<dyn Publisher>,
        patience_ms: u16,
    ) -> anyhow::Result<Self> {
        let mut wire = Wire::connect(address)?;
        wire.patience_ms = patience_ms;
        Self::over(wire, publisher)
    }

    fn over(mut wire: Wire, mut publisher: Box<dyn Publisher>) -> anyhow::Result<Self> {
        publisher.begin(&mut wire.out);
        wire.flush()?;
        while !publisher.is_ready() {
            wire.wait()?;
            wire.flush()?;
            wire.receive(|bytes, out| Ok(publisher.take(bytes, out)?.consumed))?;
        }
        Ok(Self { wire, publisher, due: 0, sent: 0, acknowledged: 0, filling: true })
    }

    /// What to wait for.
    pub fn poll_fd(&self) -> PollFd<'_> {
        self.wire.poll_fd()
    }

    /// Whether what is to be sent is as much as one write takes.
    pub fn has_a_write(&self) -> bool {
        self.wire.unsent() >= WRITE_BYTES
    }

    /// Bytes that the socket did not take yet.
    pub fn unsent(&self) -> usize {
        self.wire.unsent()
    }

    /// Sends what the socket takes. Gives back whether it took any.
    ///
    /// # Errors
    /// When the peer has closed.
    pub fn flush(&mut self) -> anyhow::Result<bool> {
        self.wire.flush()
    }

    /// Records that are not acknowledged.
    pub fn on_the_way(&self) -> u64 {
        self.sent - self.acknowledged
    }

    /// Appends the next record to what is to be sent.
    pub fn publish(&mut self) {
        self.publisher.publish(&mut self.wire.out);
        self.sent += 1;
    }

    /// Sends one record and sleeps until it is acknowledged.
    ///
    /// # Errors
    /// When the peer refuses, closes or falls silent.
    pub fn send_one(&mut self) -> anyhow::Result<()> {
        self.publish();
        self.wire.flush()?;
        while self.on_the_way() > 0 {
            self.wire.wait()?;
            self.wire.flush()?;
            self.receive()?;
        }
        Ok(())
    }

    /// Reads what has come. Gives back whether anything has.
    ///
    /// # Errors
    /// When the peer refuses a record.
    pub fn receive(&mut self) -> anyhow::Result<bool> {
        let Self { wire, publisher, acknowledged, sent, .. } = self;
        wire.receive(|bytes, out| {
            let taken = publisher.take(bytes, out)?;
            *acknowledged += taken.acknowledged;
            ensure!(*acknowledged <= *sent, "more acknowledgements than records");
            Ok(taken.consumed)
        })
    }

    /// Records that are acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Records that were sent, or are to be sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// The peer's side of it.
    pub fn publisher(&self) -> &dyn Publisher {
        self.publisher.as_ref()
    }

    /// Owes the peer so many more records, for `pump` to send.
    pub fn owe(&mut self, records: u64) {
        self.due = self.sent + records;
    }

    /// Sends what is owed and reads what has come, without waiting, with at most `window` records
    /// on the way. Gives back whether anything moved.
    ///
    /// # Errors
    /// When the peer refuses a record, or is gone.
    pub fn pump(&mut self, window: u64) -> anyhow::Result<bool> {
        self.fill(window);
        let flushed = self.wire.flush()?;
        Ok(self.receive()? || flushed)
    }

    // Appends a write's worth of records, as far as the window has room.
    fn fill(&mut self, window: u64) {
        let room = window - self.on_the_way();
        let left = self.due - self.sent;
        self.filling |= room >= left.min(window.div_ceil(4));
        if !self.filling {
            return;
        }
        for _ in 0..room.min(left) {
            if self.has_a_write() {
                return;
            }
            self.publish();
        }
        self.filling = false;
    }
}

/// Sends `records` over the connections, with at most `window` of each on the way; fewer when
/// `seconds_max` is over before.
///
/// # Errors
/// When a peer refuses, closes or falls silent.
pub fn pipelined(
    senders: &mut [Sender],
    records: u64,
    window: u64,
    seconds_max: f64,
) -> anyhow::Result<Sent> {
    let before: u64 = senders.iter().map(|sender| sender.acknowledged).sum();
    let count = senders.len() as u64;
    ensure!(count > 0 && window > 0, "take at least one connection and a window of 1");
    for (at, sender) in (0..).zip(senders.iter_mut()) {
        sender.owe(records / count + u64::from(at < records % count));
    }
    let (begin_ns, cpu_before, mut late) = (now_ns(), own_cpu_seconds(), false);
    loop {
        if !late && seconds_since(begin_ns) > seconds_max {
            late = true;
            senders.iter_mut().for_each(|sender| sender.owe(0));
        }
        let (mut progress, mut done) = (false, true);
        for sender in senders.iter_mut() {
            progress |= sender.pump(window)?;
            done &= sender.acknowledged == sender.due;
        }
        if done {
            break;
        }
        if !progress {
            let mut fds: Vec<_> = senders.iter().map(Sender::poll_fd).collect();
            wait(&mut fds)?;
        }
    }
    let seconds = seconds_since(begin_ns);
    let records = senders.iter().map(|sender| sender.acknowledged).sum::<u64>() - before;
    Ok(Sent { records, seconds, client_cpu_seconds: own_cpu_seconds() - cpu_before })
}

/// A histogram of nanoseconds, exact to three digits.
///
/// # Errors
/// Never with these bounds.
pub fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1_000, 120_000_000_000, 3)?)
}

/// Sends records one by one, each when the last is acknowledged, for `seconds`; how long each took.
///
/// # Errors
/// When the peer refuses, closes or falls silent.
pub fn one_in_flight(sender: &mut Sender, seconds: f64) -> anyhow::Result<(Sent, Histogram<u64>)> {
    let mut took = histogram()?;
    let (begin_ns, cpu_before) = (now_ns(), own_cpu_seconds());
    while seconds_since(begin_ns) < seconds {
        let sent_ns = now_ns();
        sender.send_one()?;
        took.saturating_record(now_ns() - sent_ns);
    }
    let sent = Sent {
        records: took.len(),
        seconds: seconds_since(begin_ns),
        client_cpu_seconds: own_cpu_seconds() - cpu_before,
    };
    Ok((sent, took))
}
