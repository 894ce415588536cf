//! AKLight's consumer: follows topics, judges them by rules, and tells people what is wrong.
//!
//! ```text
//! broker ─▶ Subscription ─▶ engine ─┬─▶ rules (pure): sample → change
//!    ▲                        │     ├─▶ alerts: one file with offsets, states, what to tell
//!    └── acknowledgements ────┘     └─▶ notify: console, WhatsApp, webhook, e-mail, records
//!                                        under alerts/ and deliveries/
//! ```
//!
//! [`rules`] decides, [`alerts`] remembers, [`notify`] tells; [`engine`] holds the three together
//! and [`run`](mod@run) brings it sockets, signals and the time. What keeps a crash from losing
//! or doubling an alert is laid down in [`alerts`]. [`replay`] tries rules on what is stored.

pub mod alerts;
mod args;
pub mod engine;
pub mod lease;
pub mod load;
pub mod notify;
pub mod replay;
pub mod retry;
pub mod rules;
pub mod run;
pub mod sample;
mod setup;
mod takeover;

pub use args::{ConsumerArgs, RetryArgs};
pub use load::check_rules;
pub use retry::alerts_retry;
pub use run::run;
