//! The simulated network between brokers.
//!
//! What a broker sends lies in a queue until it is due; then the world hands it to the receiver, by
//! a task on the receiver's own runtime. Time passes only when the world says so ([`Net::step`]).
//!
//! ```text
//! sender ── SimTransport ──▶ Inner { packets, streams } ── step ──▶ receiver's PeerHandler
//!    ▲                            │                                        │
//!    └──────────── step ──────────┴────────────── answer ──────────────────┘
//! ```
//!
//! A *call* is one message and one answer. Either may be lost, doubled, late, or overtaken by
//! another; a lost one ends with its sender's patience. A *stream* is what TCP makes of the same
//! links: in order and whole, or broken. What is lost comes later, a cut link holds it up, and
//! after a while each end believes, at a moment of its own, that the other is gone.
//!
//! A broker that is stopped (SIGSTOP) takes nothing: it waits in the kernel's buffers until the
//! broker goes on. A dead one refuses. A link goes one way, so that a partition may as well.
//!
//! Left out: bandwidth, and the connections of clients (`crate::client`).

mod call;
mod link;
mod pipe;
mod stream;
mod transport;

use std::collections::BTreeMap;
use std::sync::Arc;

use aklight_broker::replication::{Envelope, PeerHandler};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::dice::Dice;
use crate::plants::Plants;
use crate::trace::Trace;
use call::Calls;
pub use link::Link;
use stream::Streams;
pub use transport::SimTransport;

/// A message reaches its receiver no sooner than this: no packet is faster than a tick, so that the
/// order in which brokers take their turns within one cannot matter.
const DELAY_US_MIN: u64 = 1000;

/// The network. Clones share it.
#[derive(Clone)]
pub struct Net {
    inner: Arc<Mutex<Inner>>,
    trace: Trace,
}

/// A broker as the network reaches it.
pub(crate) struct Station {
    life: u32,
    is_stopped: bool,
    runtime: Handle,
    handler: Arc<dyn PeerHandler>,
}

/// What was carried and what was not.
#[derive(Debug, Clone, Copy, Default)]
pub struct Carried {
    /// Messages that arrived.
    pub arrived: u64,
    /// Calls or answers that were lost.
    pub lost: u64,
    /// Calls that arrived twice.
    pub doubled: u64,
    /// Streams that broke.
    pub broken: u64,
}

pub(crate) struct Inner {
    dice: Dice,
    links: BTreeMap<(u64, u64), Link>,
    stations: BTreeMap<u64, Station>,
    lives: BTreeMap<u64, u32>,
    calls: Calls,
    streams: Streams,
    carried: Carried,
    plants: Plants,
    next_id: u64,
}

/// Something that the world does once no lock is held: it may run code of brokers.
pub(crate) enum Delivery {
    Call { id: u64, to: u64, message: Envelope },
    Stream(stream::Opened),
}

impl Net {
    /// A network on which everything arrives.
    #[must_use]
    pub fn new(seed: u64, trace: Trace, plants: Plants) -> Self {
        let inner = Inner {
            dice: Dice::named(seed, "network"),
            links: BTreeMap::new(),
            stations: BTreeMap::new(),
            lives: BTreeMap::new(),
            calls: Calls::default(),
            streams: Streams::default(),
            carried: Carried::default(),
            plants,
            next_id: 0,
        };
        Self { inner: Arc::new(Mutex::new(inner)), trace }
    }

    /// A broker is up and takes messages. Gives the number of this life of it.
    pub fn join(&self, broker: u64, runtime: Handle, handler: Arc<dyn PeerHandler>) -> u32 {
        let mut inner = self.inner.lock();
        let life = inner.lives.entry(broker).or_default();
        *life += 1;
        let life = *life;
        inner.stations.insert(broker, Station { life, is_stopped: false, runtime, handler });
        life
    }

    /// A broker dies. Its connections break, at the other ends a little later.
    pub fn leave(&self, broker: u64) {
        let gone = {
            let mut inner = self.inner.lock();
            let gone = inner.stations.remove(&broker);
            let now_us = self.trace.now_us();
            inner.break_streams_of(broker, now_us);
            gone
        };
        // Its handler may hold on to streams, which reach for this network when they go.
        drop(gone);
    }

    /// A broker is stopped, or goes on.
    pub fn stop(&self, broker: u64, is_stopped: bool) {
        if let Some(station) = self.inner.lock().stations.get_mut(&broker) {
            station.is_stopped = is_stopped;
        }
    }

    /// How a link is from now on.
    pub fn set_link(&self, from: u64, to: u64, link: Link) {
        self.inner.lock().links.insert((from, to), link);
    }

    /// Changes all links.
    pub fn set_links(&self, link: &Link) {
        let mut inner = self.inner.lock();
        inner.links.values_mut().for_each(|each| *each = link.clone());
    }

    /// How a link is.
    #[must_use]
    pub fn link(&self, from: u64, to: u64) -> Link {
        self.inner.lock().link(from, to)
    }

    /// What was carried so far.
    #[must_use]
    pub fn carried(&self) -> Carried {
        self.inner.lock().carried
    }

    /// What carries a broker's messages.
    #[must_use]
    pub fn transport(&self, from: u64) -> Arc<SimTransport> {
        Arc::new(SimTransport::new(self.clone(), from))
    }

    /// Delivers what is due.
    pub fn step(&self) {
        let now_us = self.trace.now_us();
        let due = {
            let mut inner = self.inner.lock();
            let mut due = inner.step_calls(now_us, &self.trace);
            due.extend(inner.step_streams(now_us, &self.trace));
            due
        };
        for delivery in due {
            match delivery {
                Delivery::Call { id, to, message } => self.hand_over(id, to, message),
                Delivery::Stream(opened) => self.serve(opened),
            }
        }
    }

    fn station(&self, broker: u64) -> Option<(Handle, Arc<dyn PeerHandler>)> {
        let inner = self.inner.lock();
        let station = inner.stations.get(&broker)?;
        Some((station.runtime.clone(), station.handler.clone()))
    }
}

impl Inner {
    fn link(&self, from: u64, to: u64) -> Link {
        self.links.get(&(from, to)).cloned().unwrap_or_default()
    }

    fn delay_us(&mut self, from: u64, to: u64) -> u64 {
        let link = self.link(from, to);
        link.delay_us(&mut self.dice).max(DELAY_US_MIN)
    }

    fn is_stopped(&self, broker: u64) -> bool {
        self.stations.get(&broker).is_some_and(|station| station.is_stopped)
    }

    fn life(&self, broker: u64) -> Option<u32> {
        self.stations.get(&broker).map(|station| station.life)
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

/// A message in the trace.
fn note(trace: &Trace, what: &str, message: &Envelope) {
    let digest = u64::from(crc32c::crc32c(&message.body));
    let numbers = [message.from, message.to, u64::from(message.group), u64::from(message.kind)];
    let [from, to, group, kind] = numbers;
    trace.note(what, &[from, to, group, kind, message.body.len() as u64, digest]);
}

#[cfg(test)]
mod tests;
