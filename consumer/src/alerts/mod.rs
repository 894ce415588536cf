//! Alerts: what happened, what of it must still be told, and the file that remembers both.
//!
//! # The order that keeps `kill -9` from losing or doubling
//!
//! 1. A record moves a machine. The new state of the machine, the record's offset, and every
//!    [`Notice`] and [`Announcement`] that follows from it are put into one [`Memory`].
//! 2. The memory is written as one file, atomically and synced ([`store`]).
//! 3. Only then is anybody told: the console prints, the WhatsApp queue takes its notices, the
//!    announcements go to the broker. And only then is the broker told that the record is done.
//! 4. What was told is struck from the memory, and the file is written again.
//!
//! Killed before 2, the broker sends the record again and it is judged again from the old state:
//! nothing was told. Killed between 2 and 4, the record is skipped, and the notice is found in
//! the file and told then. What was told already is found out where that can be: an announcement
//! keeps its sequence (PRODUCE_ONCE), a WhatsApp message is looked up at Twilio before it is sent
//! again. A line on the console cannot be looked up: killed within the milliseconds between
//! printing it and striking it, it is printed twice rather than never.

pub mod actions;
pub mod alert;
pub mod dead;
mod encoding;
pub mod memory;
pub mod store;

pub use actions::{Acknowledged, Action, Mute};
pub use alert::{Alert, People, Sense};
pub use memory::{Announcement, Destination, Memory, Notice};
