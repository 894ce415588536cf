//! Telling people and programs: console, WhatsApp, webhook, e-mail, and records for whoever
//! subscribes.
//!
//! [`message`] makes the words, [`console`] prints them, and a [`sender`] for each other channel
//! hands them to its [`carrier`] ([`whatsapp`], [`webhook`], [`email`]); [`announce`] records every
//! change under `alerts/` and every delivery under `deliveries/`. The console is written at once;
//! the others run beside the consuming, behind bounded queues, and report back what they
//! delivered.

pub mod announce;
pub mod carrier;
pub mod console;
pub mod email;
mod http;
pub mod message;
pub mod secret;
pub mod sender;
pub mod sparkline;
pub mod webhook;
pub mod whatsapp;

pub use channels::ChannelArgs;

mod channels;
