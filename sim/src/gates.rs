//! The way of clients to brokers: what their ports and addresses are in the real world.

use std::collections::BTreeMap;
use std::sync::Arc;

use aklight_broker::services::Services;
use parking_lot::Mutex;
use tokio::io::DuplexStream;
use tokio::runtime::Handle;

use crate::wire::{Cut, Wire};

/// Bytes that a connection holds each way: what the kernel's buffers for a socket come to. More
/// than a client of a simulation sends without reading.
const SOCKET_BYTES: usize = 256 << 10;

/// Ports that clients connect to. Clones share them.
#[derive(Clone, Default)]
pub struct Gates {
    inner: Arc<Mutex<BTreeMap<u64, Gate>>>,
}

struct Gate {
    life: u32,
    runtime: Handle,
    services: Arc<Services>,
    connections: Vec<Cut>,
}

impl Gates {
    /// A broker lets clients in.
    pub fn open(&self, broker: u64, life: u32, runtime: Handle, services: Arc<Services>) {
        let gate = Gate { life, runtime, services, connections: Vec::new() };
        self.inner.lock().insert(broker, gate);
    }

    /// A broker lets nobody in any more.
    pub fn close(&self, broker: u64) {
        let gone = self.inner.lock().remove(&broker);
        drop(gone);
    }

    /// The brokers that let clients in.
    #[must_use]
    pub fn brokers(&self) -> Vec<u64> {
        self.inner.lock().keys().copied().collect()
    }

    /// Connects to a broker: the connection, and the number of the broker's life.
    #[must_use]
    pub fn connect(&self, broker: u64) -> Option<(DuplexStream, u32)> {
        let mut inner = self.inner.lock();
        let gate = inner.get_mut(&broker)?;
        let (here, there) = tokio::io::duplex(SOCKET_BYTES);
        let (wire, cut) = Wire::new(there);
        let (reading, writing) = tokio::io::split(wire);
        let services = gate.services.clone();
        gate.runtime.spawn(async move {
            // A client that is gone is no event here.
            let _ = aklight_broker::converse(Box::new(reading), Box::new(writing), services).await;
        });
        gate.connections.retain(Cut::is_used);
        gate.connections.push(cut);
        Some((here, gate.life))
    }

    /// All connections of a broker's clients break.
    pub fn reset(&self, broker: u64) {
        let connections = match self.inner.lock().get_mut(&broker) {
            Some(gate) => std::mem::take(&mut gate.connections),
            None => Vec::new(),
        };
        connections.iter().for_each(Cut::cut);
    }
}
