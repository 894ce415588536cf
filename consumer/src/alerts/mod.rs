//! Alerts: what happened, what of it must still be told, and the file that remembers both.
//!
//! # The order that keeps `kill -9` from losing or doubling
//!
//! 1. A record moves a machine. The new state of the machine, the record's offset, and every
//!    [`Notice`] and [`Announcement`] that follows from it are put into one [`Memory`].
//! 2. The memory is written as one file, atomically and synced ([`store`]).
//! 3. Only then is anybody told: the console prints, the channels' queues take the notices that
//!    are due, the announcements go to the broker.
//! 4. What was told is struck from the memory, and the file is written again. The broker is told
//!    that the record is done when it has stored the announcements that follow from it.
//!
//! Killed before 2, the broker sends the record again and it is judged again from the old state:
//! nothing was told. Killed between 2 and 4, the record is skipped, and the notice is found in
//! the file and told then. What was told already is found out where that can be:
//!
//! | to | killed between telling and striking |
//! |---|---|
//! | a record at the broker | keeps its sequence (PRODUCE_ONCE): once |
//! | WhatsApp | looked up at Twilio before it is sent again: once |
//! | a webhook | sent again under the same `Idempotency-Key`: at least once, and the receiver can tell |
//! | e-mail | sent again under the same `Message-ID`: at least once, and mail programs can tell |
//! | the console | printed again: within milliseconds, at least once |
//!
//! # Two consumers of one name
//!
//! Of the consumers of one id one works, on whatever machine: [`crate::lease`]. The others wait,
//! and one goes on where the first stopped: its place the broker knows, how alerts stand is in
//! their records (`engine::adopting`). What waited to be told in the file of the first one is
//! told by the second (`engine::untold`): the record of an alert names the messages that are to tell
//! of it, and it is stored before the broker is told that the sample is done. What was told already
//! is found out as after a kill (the table above), for the second one sends under the first one's
//! reference.
//!
//! What is not covered: a machine that dies in the moment between handing a message on and
//! recording the alert at the broker leaves a second message to its successor; `--group-wait`
//! makes that moment one in which nothing is handed on yet. One that is cut off from the brokers and
//! not from a carrier goes on telling what it has judged; if its successor asks the carrier in the
//! very moment in which it sends, both do.

pub mod actions;
pub mod alert;
pub mod dead;
mod encoding;
pub mod memory;
pub mod store;

pub use actions::{Acknowledged, Action, Mute};
pub use alert::{Alert, People, Sense};
pub use memory::{Announcement, Destination, Memory, Notice};
