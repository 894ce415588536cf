//! The line protocol over TCP.
//!
//! ```text
//! socket ─▶ intake (lines → commands; records go to their partitions at once) ─▶ Work, in order
//! Work ─▶ answers (waits for each in turn, pushes MESSAGEs between) ─▶ outbox ─▶ socket
//! ```
//!
//! A connection is two tasks with a queue between them: the `intake` never waits for an answer,
//! so a client may pipeline; the `answers` never read, so they keep the order. Everything a
//! connection holds is bounded: its lines by a budget of its own, its records on their way by the
//! broker's, its output by the outbox. A client that stops reading stops being read.

mod answers;
mod intake;
mod listener;
mod run;
mod spin;

pub use intake::Reading;
pub use listener::{converse, serve, turn_away};
