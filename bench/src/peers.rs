//! The systems that are measured, each behind the same few traits.
//!
//! A driver is a codec and no more: it appends bytes to a buffer and reads bytes out of a slice,
//! however they were cut. Sockets, windows and clocks are the load generator's (`drive`), so that
//! every peer is sent the same load by the same code, pipelined as its own best client would. How
//! its server is started, with the settings of `design/limits.md`, stands beside the codec.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::load::Load;
use crate::wire::Wire;

pub mod aklight;
pub mod mosquitto;
pub mod nats;
pub mod redis;
mod resp;

/// Which records a connection sends: `first`, `first + step`, `first + 2 step`, …
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Its first record.
    pub first: u64,
    /// How many connections share the load.
    pub step: u64,
}

impl Share {
    /// All of them, from one connection.
    pub const WHOLE: Self = Self { first: 0, step: 1 };
}

/// What a look at the bytes of a peer found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Bytes that are done with; the rest is shown again when more has come.
    pub consumed: usize,
    /// Records that they acknowledge.
    pub acknowledged: u64,
}

/// The sending side of a connection.
pub trait Publisher {
    /// Appends what a connection says first.
    fn begin(&mut self, out: &mut Vec<u8>);

    /// Whether the peer has answered that.
    fn is_ready(&self) -> bool;

    /// Appends the next record of its share.
    fn publish(&mut self, out: &mut Vec<u8>);

    /// Reads answers, and appends what they ask for.
    ///
    /// # Errors
    /// When the peer refuses something, or acknowledges what is not so.
    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> anyhow::Result<Taken>;

    /// Whether records are acknowledged at all.
    fn is_acknowledged(&self) -> bool {
        true
    }

    /// Remembers from now on where each record is kept, where acknowledgements tell.
    fn keep_places(&mut self) {}

    /// Where its records are kept, in the order in which they were sent and acknowledged.
    fn places(&self) -> &[Place] {
        &[]
    }
}

/// Where a record is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// In which partition.
    pub partition: u64,
    /// Its number there.
    pub offset: u64,
}

/// A record as a feed brings it.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// What was sent.
    pub payload: &'a [u8],
    /// What the peer says before that, for [`Way::place`] to read where anyone asks.
    pub head: &'a [u8],
}

impl<'a> Found<'a> {
    /// One of a peer that does not say where it is kept.
    pub fn bare(payload: &'a [u8]) -> Self {
        Self { payload, head: &[] }
    }
}

/// The reading side of a connection: what is asked for is pushed, or asked for piece by piece.
pub trait Feed {
    /// Appends what a connection says first.
    fn begin(&mut self, out: &mut Vec<u8>);

    /// Whether the peer has taken that, and will miss no record from now on.
    fn is_ready(&self) -> bool;

    /// Whether all that was stored has come, where the peer tells.
    fn is_over(&self) -> bool {
        false
    }

    /// Reads records and hands each to `sink`, and appends what is to be asked next.
    /// Gives back how many bytes are done with.
    ///
    /// # Errors
    /// When the peer refuses something.
    fn take(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        sink: &mut dyn FnMut(Found<'_>),
    ) -> anyhow::Result<usize>;
}

/// When a record is safe, as the server is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Safety {
    /// On the disk before it is acknowledged.
    Synced,
    /// In the page cache: a crash of the process loses nothing, a loss of power may.
    Cached,
}

/// Which records a feed is to bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// All that are stored.
    All,
    /// Those of one topic, by its number in the load.
    Topic(usize),
    /// Those of all topics ending in `/cpu`: a quarter.
    Quarter,
    /// All that come from now on.
    Live,
}

/// What a server is started with.
pub struct Setup<'a> {
    /// Its folder: empty, or what its predecessor left there.
    pub dir: &'a Path,
    /// Where it listens for clients.
    pub listen: SocketAddr,
    /// When a record is safe.
    pub safety: Safety,
    /// Whether records are to come soon, where the server can be told, or many at once.
    pub is_prompt: bool,
    /// Where brokers meet, this one's place among them first; empty for a server alone.
    pub members: &'a [Member],
    /// Its number in `members`.
    pub number: usize,
}

/// A server's addresses in a cluster.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// For clients.
    pub clients: SocketAddr,
    /// For the other servers.
    pub peers: SocketAddr,
}

/// A way of a peer: what it is asked to do with the load.
pub trait Way: Sync {
    /// Its name in reports, beginning with the peer's: `redis streams`.
    fn name(&self) -> &'static str;

    /// Whether a reader may come later than the record.
    fn is_stored(&self) -> bool;

    /// The server's program, where it is found.
    fn program(&self) -> Option<PathBuf>;

    /// How the server is started.
    ///
    /// # Errors
    /// When its folder takes no configuration.
    fn command(&self, program: &Path, setup: &Setup<'_>) -> anyhow::Result<Command>;

    /// Says hello on a new connection until the server answers as one that serves.
    ///
    /// # Errors
    /// When it does not serve yet.
    fn greet(&self, wire: &mut Wire) -> anyhow::Result<()>;

    /// Makes what the load needs on a new server: a stream, where there must be one.
    ///
    /// # Errors
    /// When the server refuses.
    fn prepare(&self, _server: SocketAddr, _replicas: usize) -> anyhow::Result<()> {
        Ok(())
    }

    /// The server that leads what the load is stored in, by its place in the cluster, as another
    /// one says; `None` where there is none now, or ever.
    ///
    /// # Errors
    /// When that server does not answer.
    fn leader(&self, _server: SocketAddr) -> anyhow::Result<Option<usize>> {
        Ok(None)
    }

    /// A connection that sends.
    fn publisher(&self, load: &Arc<Load>, share: Share) -> Box<dyn Publisher>;

    /// The place and the topic that stand in a record's head; `None` where the peer tells neither.
    fn place<'a>(&self, _head: &'a [u8]) -> Option<(Place, &'a [u8])> {
        None
    }

    /// A connection that reads; `None` where the peer cannot.
    fn feed(&self, load: &Arc<Load>, wanted: Wanted) -> Option<Box<dyn Feed>>;
}

/// Every way of every peer, AKLight first; whether its program is there is for it to say.
pub fn all(aklight: &Path) -> Vec<Box<dyn Way>> {
    let own = |kind| aklight::Aklight { kind, ..aklight::Aklight::new(aklight) };
    vec![
        Box::new(own(aklight::Kind::Own)),
        Box::new(own(aklight::Kind::Cumulative)),
        Box::new(own(aklight::Kind::OnePartition)),
        Box::new(own(aklight::Kind::Spinning)),
        Box::new(redis::Redis::Streams),
        Box::new(redis::Redis::Stream),
        Box::new(redis::Redis::PubSub),
        Box::new(nats::Nats::JetStream),
        Box::new(nats::Nats::Core),
        Box::new(mosquitto::Mosquitto::Qos0),
        Box::new(mosquitto::Mosquitto::Qos1),
    ]
}

#[cfg(test)]
mod tests;
