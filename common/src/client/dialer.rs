//! Which broker is tried next, and when.
//!
//! A small state without sockets. The list is gone round: after a failure the next broker is
//! tried at once, and only when every one has failed does a wait come ([`Backoff`]), longer with
//! each round. A connection ends the row of failures only when it has *proved* itself (the
//! broker answered more than the greeting), so that brokers that accept and hang up are not
//! dialled in a hot loop.
//!
//! What of this is told in the log is [`Telling`]'s business; the attempts are whispered.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::backoff::Backoff;
use super::telling::{Telling, Word};

/// A turn through the list of brokers.
#[derive(Debug)]
pub(crate) struct Dialer {
    brokers: Vec<String>,
    next: usize,
    failures: u32,
    backoff: Backoff,
    rng: SmallRng,
    telling: Telling,
}

impl Dialer {
    /// Begins with the first broker.
    pub(crate) fn new(brokers: Vec<String>, backoff: Backoff) -> Self {
        let rng = SmallRng::from_os_rng();
        let telling = Telling::new(brokers.len());
        Self { brokers, next: 0, failures: 0, backoff, rng, telling }
    }

    /// The broker whose turn it is; `None` only where the list is empty.
    pub(crate) fn broker(&self) -> Option<&str> {
        self.brokers.get(self.next).map(String::as_str)
    }

    /// The broker let this client in.
    pub(crate) fn connected(&mut self) {
        if let Some(broker) = self.brokers.get(self.next) {
            tracing::debug!(broker, after_failures = self.failures, "let in");
            tell(self.telling.connected(broker));
        }
    }

    /// The broker does what it is asked, though it did not yet prove that it goes on.
    pub(crate) fn serves(&mut self) {
        if let Some(broker) = self.brokers.get(self.next) {
            tell(self.telling.serves(broker));
        }
    }

    /// The broker did real work on this connection: the next loss is a new one.
    pub(crate) fn proved(&mut self) {
        self.serves();
        self.failures = 0;
    }

    /// The connection is lost or did not come about. Gives the wait before the next attempt, in
    /// milliseconds.
    pub(crate) fn failed(&mut self, reason: &str) -> u64 {
        let count = u32::try_from(self.brokers.len()).unwrap_or(u32::MAX).max(1);
        let broker = self.broker().unwrap_or("(none)").to_owned();
        self.next = (self.next + 1) % self.brokers.len().max(1);
        self.failures = self.failures.saturating_add(1);
        let wait_ms = if self.failures.is_multiple_of(count) {
            self.backoff.wait_ms(self.failures / count - 1, self.rng.random())
        } else {
            0
        };
        let next = self.broker().unwrap_or("(none)");
        tracing::debug!(broker, reason, next, wait_ms, "no connection");
        tell(self.telling.failed(&broker, reason));
        wait_ms
    }
}

fn tell(word: Option<Word>) {
    match word {
        None => {}
        Some(Word::Good(text)) => tracing::info!("{text}"),
        Some(Word::Bad(text)) => tracing::warn!("{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialer(brokers: &[&str]) -> Dialer {
        Dialer::new(brokers.iter().map(|b| (*b).to_owned()).collect(), Backoff::default())
    }

    #[test]
    fn the_next_broker_is_tried_at_once_and_a_round_of_failures_waits() {
        let mut dialer = dialer(&["a:1", "b:1", "c:1"]);
        for round in 0..3 {
            for broker in ["a:1", "b:1", "c:1"] {
                assert_eq!(dialer.broker(), Some(broker));
                let wait_ms = dialer.failed("refused");
                let ceiling_ms = if broker == "c:1" { 100 << round } else { 0 };
                assert!(wait_ms <= ceiling_ms, "{wait_ms} ms in round {round} after {broker}");
            }
        }
    }

    #[test]
    fn waits_grow_and_are_spread() {
        let longest = |failures: usize| {
            let waits: Vec<u64> = (0..200)
                .map(|_| {
                    let mut dialer = dialer(&["a:1"]);
                    (0..failures).map(|_| dialer.failed("refused")).last().unwrap_or(0)
                })
                .collect();
            assert!(waits.iter().min() < waits.iter().max(), "no jitter: {waits:?}");
            waits.into_iter().max().unwrap_or(0)
        };
        let (first, sixth, late) = (longest(1), longest(6), longest(30));
        assert!(first <= 100 && sixth > 200 && sixth <= 3200, "{first} {sixth}");
        assert!(late > 3200 && late <= 5000, "{late}");
    }

    #[test]
    fn only_a_proven_connection_ends_the_row_of_failures() {
        let mut dialer = dialer(&["a:1"]);
        for _ in 0..10 {
            dialer.connected();
            dialer.failed("hung up");
        }
        assert_eq!(dialer.failures, 10);
        dialer.connected();
        dialer.proved();
        assert!(dialer.failed("hung up") <= 100);
    }
}
