//! gRPC between brokers: carries envelopes over sockets. The one place that names tonic and prost.
//!
//! ```text
//! Peers ─▶ GrpcTransport ─▶ Links ─▶ one Connection a (address, lane) ~~~▶ serve ─▶ PeerHandler
//!          client.rs        links.rs connection.rs                       server.rs
//! ```
//!
//! - `client` sends: one message for one answer, or a stream of each. `links` keeps the
//!   connections, and lets go of those that fail; `connection` is one of them, over h2.
//! - `server` takes connections in and hands what they carry to a handler.
//! - `wire` turns envelopes and answers into what `proto/peer.proto` describes, and back.
//!
//! Nothing here looks into a message: whether it is for this broker, of this cluster, and what it
//! asks for, is the handler's to judge.
//!
//! # Who waits for whom
//!
//! A lane is a connection of its own, so a snapshot that fills one delays no heartbeat. Within a
//! connection each stream has a window: a handler that does not read its messages on makes their
//! sender wait once `STREAM_WINDOW` bytes are under way, and the same holds for answers that
//! nobody reads. All streams of a connection share `CONNECTION_WINDOW`, so as many streams may
//! stand still as fit into it before the others of their lane do.
//!
//! Left out: TLS, and who may connect. Brokers trust the network that they share.

mod client;
mod connection;
mod links;
mod server;
mod wire;

use std::time::Duration;

pub use client::GrpcTransport;
pub use server::serve;

use crate::replication::MESSAGE_BYTES_MAX;

/// Longest message on the wire: a body, and a little for the lines of the envelope, of which only
/// the cluster's name has no fixed length.
const WIRE_BYTES_MAX: usize = MESSAGE_BYTES_MAX + (4 << 10);

/// Bytes of one stream that are sent before the other side has read them. A read for replication
/// is about 1 MiB: the next ones are under way while one is written. At 50 ms between brokers this
/// still carries 80 MB/s.
const STREAM_WINDOW: u32 = 4 << 20;

/// The same for all streams of a connection: what eight streams that stand still may hold.
const CONNECTION_WINDOW: u32 = 8 * STREAM_WINDOW;

/// Longest HTTP/2 frame. The default, 16 KiB, makes sixty-four of each MiB.
const FRAME_BYTES_MAX: u32 = 256 << 10;

/// A connection is asked for a sign of life this often, also when nothing else is said on it: the
/// first message after a quiet hour shall not be the one that finds out.
const PING_EVERY: Duration = Duration::from_secs(10);

/// So long the answer may take. The same holds for bytes that the other machine's kernel does not
/// confirm: it has lost power, or the network between is cut.
const SILENCE_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
