//! What the tests of the real binary stand on: a process, and a broker that does as it is told.

mod broker;
mod engine;
mod process;

pub use broker::{FakeBroker, Stored};
pub use engine::{FakeEngine, event};
pub use process::{Producer, alive, send, wait_until};
