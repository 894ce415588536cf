//! The other brokers of the cluster: what they are called, and a way to write to them.
//!
//! [`Peers`] puts what is to be said into an [`Envelope`] and hands it to the transport. It holds
//! the directory of addresses, which the metadata keeps up to date, and the cluster's id, which a
//! broker learns once, when the cluster is formed or joined.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aklight_common::BrokerId;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use parking_lot::RwLock;

use super::transport::{
    Answers, Envelope, GroupId, Kind, Peer, PeerError, PeerTransport, WIRE_VERSION,
};

/// Writes to other brokers. Shared by everything that does.
pub struct Peers {
    me: BrokerId,
    transport: Arc<dyn PeerTransport>,
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    cluster: String,
    addresses: BTreeMap<BrokerId, String>,
}

impl Peers {
    /// Nobody is known yet.
    #[must_use]
    pub fn new(me: BrokerId, transport: Arc<dyn PeerTransport>) -> Self {
        Self { me, transport, known: RwLock::default() }
    }

    /// This broker.
    #[must_use]
    pub const fn me(&self) -> BrokerId {
        self.me
    }

    /// The cluster's id; empty as long as this broker is of none.
    #[must_use]
    pub fn cluster(&self) -> String {
        self.known.read().cluster.clone()
    }

    /// Notes the cluster's id.
    pub fn set_cluster(&self, cluster: &str) {
        cluster.clone_into(&mut self.known.write().cluster);
    }

    /// Notes where a broker is reached.
    pub fn set_address(&self, id: BrokerId, address: &str) {
        self.known.write().addresses.insert(id, address.to_owned());
    }

    /// Everybody known, this broker included where its address is.
    #[must_use]
    pub fn all(&self) -> Vec<Peer> {
        let known = self.known.read();
        known
            .addresses
            .iter()
            .map(|(id, address)| Peer { id: *id, address: address.clone() })
            .collect()
    }

    /// Everybody else.
    #[must_use]
    pub fn others(&self) -> Vec<Peer> {
        self.all().into_iter().filter(|peer| peer.id != self.me).collect()
    }

    /// Asks a broker something, waiting no longer than `ttl`.
    ///
    /// # Errors
    /// When it cannot be reached, or refuses.
    pub async fn call(
        &self,
        to: BrokerId,
        group: GroupId,
        kind: Kind,
        body: Bytes,
        ttl: Duration,
    ) -> Result<Bytes, PeerError> {
        let (peer, header) = self.header(to, group, kind)?;
        self.transport.call(&peer, Envelope { body, ..header }, ttl).await
    }

    /// Sends a broker messages as they come; an answer comes for each, in order.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn stream(
        &self,
        to: BrokerId,
        group: GroupId,
        kind: Kind,
        bodies: BoxStream<'static, Bytes>,
        ttl: Duration,
    ) -> Result<Answers, PeerError> {
        let (peer, header) = self.header(to, group, kind)?;
        let messages = bodies.map(move |body| Envelope { body, ..header.clone() }).boxed();
        self.transport.stream(&peer, kind, messages, ttl).await
    }

    fn header(
        &self,
        to: BrokerId,
        group: GroupId,
        kind: Kind,
    ) -> Result<(Peer, Envelope), PeerError> {
        let known = self.known.read();
        let address = known.addresses.get(&to).cloned();
        let address = address
            .ok_or_else(|| PeerError::Unreachable(format!("no address of broker {to} is known")))?;
        let header = Envelope {
            version: WIRE_VERSION,
            cluster: known.cluster.clone(),
            from: self.me.0,
            to: to.0,
            group: group.number(),
            kind: kind as u32,
            body: Bytes::new(),
        };
        Ok((Peer { id: to, address }, header))
    }
}
