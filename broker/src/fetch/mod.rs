//! Reading: stored records on request ([`listing`]), new ones as they come ([`live`]), the newest
//! of each topic ([`newest`]), those of a stretch of time ([`span`]).
//!
//! All read the same log through `reader`, up to the high watermark and never beyond. Listings write
//! MESSAGE lines into a buffer of their connection; the others hand records to whoever asked. A
//! reader keeps nothing but its place in the log: a slow one lags behind there, and costs the broker
//! no memory.

pub mod barrier;
mod lines;
pub mod listing;
pub mod live;
pub mod newest;
pub mod outbox;
mod reader;
mod shared;
pub mod span;

pub use lines::Wanted;
pub use outbox::{Outbox, Writing};
pub use reader::{Gap, Sink};
pub use shared::{SharedLines, Subscriber};
