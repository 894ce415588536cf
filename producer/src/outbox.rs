//! The outbox: every sample is kept here until a broker has answered for it.
//!
//! A sample that comes while a broker is connected and nothing older waits is handed to the link
//! at once. Any other is late: it is marked so and waits in the backlog, and is handed over when
//! its turn comes. Sequences are given as samples come and everything leaves in their order, so
//! the broker sees the samples of a metric in the order in which they were measured.
//!
//! What the link holds is also kept here, until the answer. When the connection is lost it is
//! written to the spool: the link will send it again, and if this process dies before, its
//! successor will.
//!
//! Invariant: [`SEQUENCE_WINDOW`] ≥ [`SEGMENT_SPAN_MAX`] + [`IN_FLIGHT_SPAN_MAX`], so that no
//! sample that is sent again after a restart lies below the broker's window.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use aklight_common::client::blocking::{LinkEvent, ProducerLink};
use aklight_common::limits::SEQUENCE_WINDOW;
use tracing::{info, warn};

use crate::backlog::{Backlog, Taken};
use crate::outgoing::Outgoing;
use crate::record::Record;
use crate::sample::mark_late;
use crate::sequences::Sequences;
use crate::spool::SEGMENT_SPAN_MAX;

/// How far the sequences that the link holds may lie apart: the other half of the broker's
/// window, see [`SEGMENT_SPAN_MAX`]. So it also bounds how many there are: a tick of four hundred
/// containers that run, about a megabyte. What comes beyond it is late.
pub const IN_FLIGHT_SPAN_MAX: u64 = 4000;

const _: () = assert!(SEGMENT_SPAN_MAX + IN_FLIGHT_SPAN_MAX <= SEQUENCE_WINDOW);

/// The way from a measurement to a broker.
#[derive(Debug)]
pub struct Outbox {
    link: ProducerLink,
    sequences: Sequences,
    backlog: Backlog,
    in_flight: BTreeMap<u64, InFlight>,
    is_up: bool,
    /// Whether the log said that late samples wait, and none was answered for since.
    late_told: bool,
}

#[derive(Debug)]
struct InFlight {
    record: Outgoing,
    spooled: bool,
}

impl Outbox {
    /// An outbox with nothing on its way.
    #[must_use]
    pub fn new(link: ProducerLink, sequences: Sequences, backlog: Backlog) -> Self {
        Self {
            link,
            sequences,
            backlog,
            in_flight: BTreeMap::new(),
            is_up: false,
            late_told: false,
        }
    }

    /// Takes a sample in.
    pub fn submit(&mut self, record: Record) {
        let sequence = self.sequences.take();
        let key = record.key().to_owned();
        let Record { topic, payload } = record;
        let mut record = Outgoing { sequence, topic, key, payload };
        if self.link.is_connected() && self.backlog.is_empty() && self.has_room(sequence) {
            let Some(refused) = self.hand_over(Taken { record, spooled: false }) else { return };
            record = refused.record;
        }
        mark_late(&mut record.payload);
        self.backlog.push(record);
    }

    /// Does all that can be done without waiting.
    pub fn drive(&mut self) {
        for event in self.link.drive() {
            match event {
                LinkEvent::Connected { .. } => self.connected(),
                LinkEvent::Disconnected { .. } => self.disconnected(),
                LinkEvent::Stored { sequence, .. } => self.answered(sequence),
                LinkEvent::Refused { sequence, error } => {
                    warn!("the broker refused sample {sequence} for good: {error}");
                    self.answered(sequence);
                }
            }
        }
        self.send_backlog();
    }

    /// What to poll, and whether for writing too.
    #[must_use]
    pub fn fd(&self) -> Option<(BorrowedFd<'_>, bool)> {
        self.link.fd().map(|fd| (fd, self.link.wants_write()))
    }

    /// When [`Self::drive`] is due though nothing arrives, in monotonic milliseconds.
    #[must_use]
    pub fn next_wake_ms(&self) -> Option<u64> {
        self.link.next_wake_ms()
    }

    /// Whether nothing is left that a broker could be sent now: all is answered for, or there is
    /// no connection.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !self.link.is_connected() || (self.in_flight.is_empty() && self.backlog.is_empty())
    }

    /// Keeps on disk what no broker has answered for, for the next process.
    pub fn close(&mut self) {
        let lost = self.keep_in_flight() + self.backlog.in_memory();
        let lost = lost + self.backlog.take_lost();
        if lost > 0 {
            warn!("{lost} samples are lost: no broker took them and there was no room in a spool");
        }
    }

    /// Which broker it is, the link has told.
    fn connected(&mut self) {
        // Told once: from here on the backlog empties and nothing more goes.
        let lost = self.backlog.take_lost();
        if lost > 0 {
            warn!("{lost} samples were lost while no broker took them: there was no more room");
        }
        let late = self.backlog.len();
        if late > 0 && !self.late_told {
            info!("late samples to send: {late}");
            self.late_told = true;
        }
        self.is_up = true;
    }

    fn disconnected(&mut self) {
        if self.is_up {
            self.keep_in_flight();
        }
        self.is_up = false;
    }

    fn answered(&mut self, sequence: u64) {
        self.late_told = false;
        if let Some(InFlight { spooled: true, .. }) = self.in_flight.remove(&sequence) {
            self.backlog.done(sequence);
        }
    }

    fn send_backlog(&mut self) {
        while self.link.is_connected()
            && let Some(taken) = self.backlog.take_oldest()
        {
            let refused = if self.has_room(taken.record.sequence) {
                self.hand_over(taken)
            } else {
                Some(taken)
            };
            if let Some(refused) = refused {
                self.backlog.put_back(refused);
                return;
            }
        }
    }

    fn has_room(&self, sequence: u64) -> bool {
        let oldest = self.in_flight.first_key_value();
        oldest.is_none_or(|(oldest, _)| sequence - oldest < IN_FLIGHT_SPAN_MAX)
    }

    /// Gives a sample to the link, and gives it back when the link has no room.
    fn hand_over(&mut self, taken: Taken) -> Option<Taken> {
        let Outgoing { sequence, topic, key, payload } = &taken.record;
        if self.link.send_with(*sequence, topic, key.as_bytes(), payload).is_err() {
            return Some(taken);
        }
        let Taken { record, spooled } = taken;
        self.in_flight.insert(record.sequence, InFlight { record, spooled });
        None
    }

    /// Writes to disk what the link holds and the spool does not. Answers how many samples could
    /// not be written.
    fn keep_in_flight(&mut self) -> u64 {
        let unkept: Vec<Outgoing> = self
            .in_flight
            .values()
            .filter(|sent| !sent.spooled)
            .map(|sent| sent.record.clone())
            .collect();
        if unkept.is_empty() {
            return 0;
        }
        if !self.backlog.keep_sent(&unkept) {
            return unkept.len() as u64;
        }
        self.in_flight.values_mut().for_each(|sent| sent.spooled = true);
        0
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use aklight_common::client::ClientConfig;
    use aklight_common::clock::SystemClock;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;
    use crate::sample::Sample;

    #[test]
    fn a_large_tick_is_not_late_while_a_broker_is_there() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let broker = listener.local_addr().expect("an address").to_string();
        let config = ClientConfig::new(vec![broker], "p1");
        let link = ProducerLink::new(config, 1, SystemClock::shared());
        let mut outbox = Outbox::new(link, Sequences::open(None, None, 1), Backlog::new(None));
        outbox.drive();
        let (mut broker, _) = listener.accept().expect("a producer");
        broker.write_all(b"OK\n").expect("written");
        while !outbox.link.is_connected() {
            let (socket, _) = outbox.fd().expect("a connection");
            let ready =
                poll(&mut [PollFd::new(socket, PollFlags::POLLIN)], PollTimeout::from(200_u8));
            ready.expect("waited");
            outbox.drive();
        }
        // Four hundred containers that run, before the broker has answered for one sample.
        for n in 0..3600_u64 {
            let payload = Sample::new(n, n, "percent").to_json().into_bytes();
            outbox.submit(Record { topic: "metrics/docker/p1/web/cpu".to_owned(), payload });
        }
        assert_eq!((outbox.in_flight.len(), outbox.backlog.len()), (3600, 0));
        let late = |sent: &&InFlight| sent.record.payload.ends_with(b"\"late\":true}");
        assert_eq!(outbox.in_flight.values().filter(late).count(), 0);
    }
}
