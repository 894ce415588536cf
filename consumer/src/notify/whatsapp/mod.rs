//! WhatsApp, by Twilio.
//!
//! ```text
//! engine ──notice──▶ bounded queue ──▶ Sender ──(rate limit, circuit breaker)──▶ Twilio
//!    ▲                                   │  jobs: send, ask first, follow up
//!    └── Accepted, Delivered, Dead ◀─────┘
//! ```
//!
//! Each notice is a [`job`]: a small machine that says what to do after each answer. One task,
//! the [`sender`], works on one job at a time and is never waited for by the consuming. Twilio
//! knows no idempotency key: after a timeout nobody knows whether a message was taken, so it is
//! looked up by recipient, sender and day before it is sent again. And `201 queued` is not yet
//! delivered: the message is asked after until Twilio says how it ended.
//!
//! Left out: callbacks from Twilio, which would need an address that Twilio can reach.

pub mod breaker;
pub mod job;
pub mod sender;
pub mod settings;
pub mod twilio;

pub use sender::{Event, Order, Sender};
pub use settings::{Patience, Settings, SettingsError, TwilioArgs, masked};
pub use twilio::{Content, Failure, Found, Twilio};
