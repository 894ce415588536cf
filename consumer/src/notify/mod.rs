//! Telling people and programs: the console, WhatsApp, and records for whoever subscribes.
//!
//! [`message`] makes the words, [`console`] prints them, [`whatsapp`] sends them to telephones,
//! [`announce`] records every change under `alerts/`. The console is written at once; the other
//! two run beside the consuming, behind bounded queues, and report back what they delivered.

pub mod announce;
pub mod console;
pub mod message;
pub mod whatsapp;
