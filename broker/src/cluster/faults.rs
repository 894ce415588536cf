//! Broken on purpose, to show and to test what the others do: `aklight fault`.
//!
//! A broker that may be broken ([`Faults::allowed`]) carries one fault at a time. It touches what
//! goes out ([`FaultyTransport`]) and what comes in (the door asks [`Faults::cut_off`]); the orders
//! to break and to mend themselves always pass.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::replication::{Answers, Envelope, Kind, Peer, PeerError, PeerTransport};

/// Longest delay that may be asked for: beyond it a broker is as good as isolated.
pub const SLOW_MS_MAX: u64 = 60_000;

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// It answers nobody: neither clients nor brokers.
    Dead,
    /// Other brokers do not reach it, nor it them; clients do.
    Isolate,
    /// Every message to another broker takes so many milliseconds longer.
    Slow(u64),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dead => f.write_str("dead"),
            Self::Isolate => f.write_str("isolate"),
            Self::Slow(ms) => write!(f, "slow {ms}"),
        }
    }
}

/// The fault that a broker carries.
#[derive(Debug)]
pub struct Faults {
    allowed: bool,
    fault: watch::Sender<Option<Fault>>,
}

impl Faults {
    /// None yet.
    #[must_use]
    pub fn new(allowed: bool) -> Self {
        Self { allowed, fault: watch::channel(None).0 }
    }

    /// Whether this broker may be broken.
    #[must_use]
    pub const fn allowed(&self) -> bool {
        self.allowed
    }

    /// What is broken now.
    #[must_use]
    pub fn now(&self) -> Option<Fault> {
        *self.fault.borrow()
    }

    /// Follows what is broken.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<Option<Fault>> {
        self.fault.subscribe()
    }

    /// Breaks something, or mends it.
    pub fn set(&self, fault: Option<Fault>) {
        self.fault.send_replace(fault);
    }

    /// Whether other brokers are out of reach.
    #[must_use]
    pub fn cut_off(&self) -> bool {
        matches!(self.now(), Some(Fault::Dead | Fault::Isolate))
    }
}

/// A transport that fails when it is told to.
pub struct FaultyTransport {
    inner: Arc<dyn PeerTransport>,
    faults: Arc<Faults>,
}

impl FaultyTransport {
    /// Over a transport that works.
    #[must_use]
    pub fn new(inner: Arc<dyn PeerTransport>, faults: Arc<Faults>) -> Self {
        Self { inner, faults }
    }
}

async fn delay(faults: &Faults) -> Result<(), PeerError> {
    if let Some(Fault::Slow(ms)) = faults.now() {
        sleep(Duration::from_millis(ms)).await;
    }
    if faults.cut_off() { Err(broken()) } else { Ok(()) }
}

fn broken() -> PeerError {
    PeerError::Unreachable("broken on purpose (aklight fault)".to_owned())
}

impl PeerTransport for FaultyTransport {
    fn call(
        &self,
        to: &Peer,
        message: Envelope,
        ttl: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        let (inner, faults, to) = (self.inner.clone(), self.faults.clone(), to.clone());
        async move {
            if message.kind != Kind::Fault as u32 {
                delay(&faults).await?;
            }
            inner.call(&to, message, ttl).await
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
        let (inner, faults, to) = (self.inner.clone(), self.faults.clone(), to.clone());
        async move {
            delay(&faults).await?;
            let slowed = faults.clone();
            let messages = messages
                .then(move |message| {
                    let faults = slowed.clone();
                    async move { delay(&faults).await.ok().map(|()| message) }
                })
                // A message that cannot go out ends the stream, as a cut wire would.
                .scan((), |(), message| std::future::ready(message))
                .boxed();
            let answers = inner.stream(&to, kind, messages, ttl).await?;
            let mut fault = faults.follow();
            let cut = async move {
                let is_cut =
                    |fault: &Option<Fault>| matches!(fault, Some(Fault::Dead | Fault::Isolate));
                if fault.wait_for(is_cut).await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            Ok(answers.take_until(cut.boxed()).boxed())
        }
        .boxed()
    }
}
