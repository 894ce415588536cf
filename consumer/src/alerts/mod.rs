//! Alerts: what happened, what of it must still be told, and the file that remembers both.
//!
//! # The order that keeps `kill -9` from losing or doubling
//!
//! 1. A record moves a machine. The new state of the machine, the record's offset, and every
//!    [`Notice`] and [`Announcement`] that follows from it are put into one [`Memory`].
//! 2. The memory is written as one file, atomically and synced ([`store`]).
//! 3. Only then is anybody told: the console prints, the channels' queues take the notices that
//!    are due, the announcements go to the broker. And only then is the broker told that the
//!    record is done.
//! 4. What was told is struck from the memory, and the file is written again.
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
//! their records (`engine::adopting`). Nothing that was recorded is told twice. What is not
//! covered: a notice is in the file of the consumer that wrote it and nowhere else. If that machine
//! dies between the record and the message (`--group-wait`, or as long as a channel fails), the
//! message goes when a consumer is started with that file again, and never if the file is lost;
//! until then the alert is in `aklight alerts list`. And a machine that dies in the moment between
//! handing a message on and recording the alert at the broker leaves a second message to its
//! successor; `--group-wait` makes that moment one in which nothing is handed on yet.

pub mod actions;
pub mod alert;
pub mod dead;
mod encoding;
pub mod memory;
pub mod store;

pub use actions::{Acknowledged, Action, Mute};
pub use alert::{Alert, People, Sense};
pub use memory::{Announcement, Destination, Memory, Notice};
