//! The line protocol, version 1: what is said between a broker and its clients.
//!
//! [`mod@line`] cuts a stream of bytes into lines, [`escape`] hides the four bytes that a field must
//! not hold, [`command`] is what a client says and [`reply`] what a broker says. All four are
//! pure: bytes in, values out, and back.
//!
//! Decoding borrows from the line and allocates only where a field holds an escape.

pub mod command;
mod error;
pub mod escape;
mod field;
pub mod line;
mod lines;
pub mod reply;

pub use command::{Command, ProducerMode};
pub use error::{ErrorCode, WireError};
pub use line::{Line, LineCutter, Lines};
pub use lines::{AckLines, MessageLines};
pub use reply::Reply;
