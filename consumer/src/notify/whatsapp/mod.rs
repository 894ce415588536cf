//! WhatsApp, by Twilio.
//!
//! Twilio knows no idempotency key: after a timeout nobody knows whether a message was taken, so
//! it is looked up by recipient, sender and day before it is sent again. And `201 queued` is not
//! yet delivered: the message is asked after until Twilio says how it ended.
//!
//! Left out: callbacks from Twilio, which would need an address that Twilio can reach.

pub mod settings;
pub mod twilio;

pub use settings::{Settings, SettingsError, TwilioArgs, masked};
pub use twilio::{Content, Twilio};
