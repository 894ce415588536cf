//! What AKLight promises, held against a history of what clients saw.
//!
//! Who breaks a cluster on purpose, simulated or real, tells an [`Oracle`] each thing that a client
//! did or was told, as an [`Event`], in the order in which it happened; in the end also what every
//! replica holds. The oracle answers with the [`Violation`]s: promises of the protocol that this
//! history breaks.
//!
//! ```text
//! Event ──▶ Oracle ──▶ each invariant (one file each in `invariants`) ──▶ Violation
//!                └──▶ History: what was sent, and what was seen at each offset
//! ```
//!
//! It is pure: no clock, no disk, no network, so that a history can be made up in a test. It is
//! small: a record costs about 32 bytes, a consumer one bit more, so that an hour of chaos fits
//! into memory.
//!
//! Left out: the harness's own part. It must give each record a number of its own, write that
//! number into the payload, and never call unknown what is known, or known what is unknown.

mod event;
mod history;
mod invariants;
mod ledger;
mod oracle;
mod violation;

pub use event::{Event, Once, Outcome, RecordId, Seen};
pub use history::{Counts, History};
pub use oracle::{Limits, Oracle};
pub use violation::{Rule, Violation};
