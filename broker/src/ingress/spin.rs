//! Staying awake between records, for whoever wants answers sooner and has a core to spare.
//!
//! A thread that sleeps is woken within 40 to 50 µs on a virtual machine: about as long as all else
//! that a broker does for one record. While a spin lasts, one thread of the runtime looks for work
//! instead of sleeping; it begins with what a client sends, and ends some microseconds after the last
//! of it, so that a broker that nobody sends to costs nothing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use aklight_common::clock::SharedClock;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::Notify;

/// Keeps a runtime awake for a while after each read.
pub(super) struct Spin {
    lasts_us: u64,
    clock: SharedClock,
    /// By the clock that only rises.
    until_us: AtomicU64,
    is_awake: AtomicBool,
    wake: Notify,
}

impl Spin {
    pub(super) fn new(lasts: Duration, clock: SharedClock) -> Arc<Self> {
        Arc::new(Self {
            lasts_us: u64::try_from(lasts.as_micros()).unwrap_or(u64::MAX),
            clock,
            until_us: AtomicU64::new(0),
            is_awake: AtomicBool::new(false),
            wake: Notify::new(),
        })
    }

    /// Begins, or goes on.
    fn prolong(&self) {
        let until_us = self.clock.monotonic_us().saturating_add(self.lasts_us);
        self.until_us.store(until_us, Ordering::Relaxed);
        if !self.is_awake.swap(true, Ordering::AcqRel) {
            self.wake.notify_one();
        }
    }

    /// Spins whenever there is a reason, for ever.
    pub(super) async fn run(self: Arc<Self>) {
        loop {
            self.wake.notified().await;
            while self.clock.monotonic_us() < self.until_us.load(Ordering::Relaxed) {
                // Between two turns of a task that yields, its thread looks at all sockets.
                tokio::task::yield_now().await;
            }
            // A read at this very moment goes without; the next one does not.
            self.is_awake.store(false, Ordering::Release);
        }
    }
}

/// A reading half whose reads prolong the spin.
pub(super) struct Spinning<R> {
    pub(super) under: R,
    pub(super) spin: Arc<Spin>,
}

impl<R: AsyncRead + Unpin> AsyncRead for Spinning<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.under).poll_read(context, buffer);
        if read.is_ready() {
            self.spin.prolong();
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use aklight_common::clock::ManualClock;

    use super::*;

    #[tokio::test]
    async fn it_ends_some_time_after_the_last_read_and_begins_again_with_the_next() {
        let clock = ManualClock::at(1_000);
        let spin = Spin::new(Duration::from_micros(30), clock.clone());
        let spinning = tokio::spawn(spin.clone().run());
        let is_awake = || spin.is_awake.load(Ordering::Acquire);
        for _ in 0..2 {
            for _ in 0..3 {
                spin.prolong();
                clock.advance_us(29);
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
                assert!(is_awake(), "a microsecond is left");
            }
            clock.advance_us(1);
            let patience = tokio::time::timeout(Duration::from_secs(60), async {
                while is_awake() {
                    tokio::task::yield_now().await;
                }
            });
            patience.await.expect("it ends");
        }
        spinning.abort();
    }

    #[tokio::test]
    async fn what_is_read_is_what_comes_and_prolongs_it() {
        use tokio::io::AsyncReadExt;
        let spin = Spin::new(Duration::from_secs(1), ManualClock::at(1_000));
        let mut reading = Spinning { under: &b"PING\n"[..], spin: spin.clone() };
        let mut read = String::new();
        reading.read_to_string(&mut read).await.expect("read");
        assert_eq!(read, "PING\n");
        assert!(spin.is_awake.load(Ordering::Acquire));
        assert!(spin.until_us.load(Ordering::Relaxed) >= 1_000_000);
    }
}
