//! The network as a broker sees it: see [`PeerTransport`].

use std::time::Duration;

use aklight_broker::replication::{Answers, Envelope, Kind, Peer, PeerError, PeerTransport};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tokio::time::timeout;

use super::Net;

/// One broker's way to the others.
pub struct SimTransport {
    net: Net,
    from: u64,
}

impl SimTransport {
    pub(super) const fn new(net: Net, from: u64) -> Self {
        Self { net, from }
    }
}

impl PeerTransport for SimTransport {
    fn call(
        &self,
        to: &Peer,
        message: Envelope,
        ttl: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        let net = self.net.clone();
        debug_assert_eq!((message.from, message.to), (self.from, to.id.0), "as addressed");
        async move {
            let waiting = {
                let now_us = net.trace.now_us();
                net.inner.lock().send_call(message, now_us)
            };
            match timeout(ttl, waiting).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(PeerError::Unreachable("the connection broke".to_owned())),
                Err(_) => Err(PeerError::Unreachable("no answer in time".to_owned())),
            }
        }
        .boxed()
    }

    fn stream(
        &self,
        to: &Peer,
        kind: Kind,
        messages: BoxStream<'static, Envelope>,
        ttl: Duration,
    ) -> BoxFuture<'static, Result<Answers, PeerError>> {
        let (net, from, to) = (self.net.clone(), self.from, to.id.0);
        async move { net.open_stream(from, to, kind, messages, ttl).await }.boxed()
    }
}
