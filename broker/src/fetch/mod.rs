//! Reading: stored records on request ([`listing`]), new ones as they come ([`live`]).
//!
//! Both read the same log through `reader`, up to the high watermark and never beyond, and both
//! write MESSAGE lines into a buffer of their connection. A reader keeps nothing but its place in
//! the log: a slow one lags behind there, and costs the broker no memory.

pub mod barrier;
pub mod listing;
pub mod live;
pub mod outbox;
mod reader;

pub use outbox::{Outbox, Writing};
pub use reader::Gap;
