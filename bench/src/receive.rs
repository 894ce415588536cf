//! The reading end of the load generator: a connection that counts what it is brought, and knows
//! each record by its number.

use std::net::SocketAddr;

use anyhow::Context;
use nix::poll::PollFd;

use crate::load::number_of;
use crate::peers::{Feed, Found};
use crate::wire::Wire;

/// A connection that reads.
pub struct Receiver {
    wire: Wire,
    feed: Box<dyn Feed>,
    /// Records that came.
    pub records: u64,
    /// The sum of their numbers, wrapping: that each came once is seen without keeping any.
    pub sum: u64,
}

impl Receiver {
    /// Connects, and waits until the peer will miss no record.
    ///
    /// # Errors
    /// When the peer is not there or refuses.
    pub fn connect(address: SocketAddr, mut feed: Box<dyn Feed>) -> anyhow::Result<Self> {
        let mut wire = Wire::connect(address)?;
        feed.begin(&mut wire.out);
        wire.flush()?;
        let mut receiver = Self { wire, feed, records: 0, sum: 0 };
        while !receiver.feed.is_ready() {
            receiver.wire.wait()?;
            receiver.receive(&mut |_, _| {})?;
        }
        Ok(receiver)
    }

    /// What to wait for.
    pub fn poll_fd(&self) -> PollFd<'_> {
        self.wire.poll_fd()
    }

    /// Reads what has come, hands each record with its number to `sink`, and sends what is to be
    /// asked or acknowledged. Gives back whether anything came.
    ///
    /// # Errors
    /// When the peer refuses something, or a record is none of ours.
    pub fn receive(&mut self, sink: &mut dyn FnMut(u64, Found<'_>)) -> anyhow::Result<bool> {
        let Self { wire, feed, records, sum } = self;
        let mut strange = None;
        let came = wire.receive(|bytes, out| {
            feed.take(bytes, out, &mut |record| match number_of(record.payload) {
                Some(number) => {
                    *records += 1;
                    *sum = sum.wrapping_add(number);
                    sink(number, record);
                }
                None => strange = Some(record.payload.escape_ascii().to_string()),
            })
        })?;
        let none = strange.map_or(Ok(()), Err);
        none.map_err(anyhow::Error::msg).context("a record that was never sent")?;
        wire.flush()?;
        Ok(came)
    }

    /// Reads until all that is stored has come, where the peer tells when that is.
    ///
    /// # Errors
    /// When the peer refuses something or falls silent.
    pub fn until_over(&mut self, sink: &mut dyn FnMut(u64, Found<'_>)) -> anyhow::Result<()> {
        while !self.feed.is_over() {
            if !self.receive(sink)? {
                self.wire.wait().with_context(|| format!("{} records came", self.records))?;
            }
        }
        Ok(())
    }

    /// Reads until `records` have come.
    ///
    /// # Errors
    /// When the peer refuses something or falls silent.
    pub fn until(&mut self, records: u64) -> anyhow::Result<()> {
        while self.records < records {
            if !self.receive(&mut |_, _| {})? {
                self.wire.wait().with_context(|| format!("{} records came", self.records))?;
            }
        }
        Ok(())
    }
}
