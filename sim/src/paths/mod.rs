//! What a record costs on the hottest paths: loads that are the same in every run, for a tool that
//! counts instructions.
//!
//! `.ci/instructions` runs a path under callgrind, then once more with twice the rounds: the
//! difference is what the records cost, and what a start costs drops out. It holds that against the
//! figures that the repository keeps.
//!
//! ```text
//! parse    bytes → commands                          LineCutter, Command
//! route    commands → a body for each partition      Partitioner, BodyBuilder
//! append   bodies → a segment                        Log, driven
//! index    a segment → its index, and a look for a topic
//! filter   FETCH of a quarter, from segments          ┐
//! deliver  FETCH of everything, from segments         │ a whole broker, by its lines
//! push     SUBSCRIBE to everything, from memory       │
//! ingest   PRODUCE: all of parse … append, and Raft   ┘
//! ```
//!
//! They are here because a count must be the same each time: one thread, clocks that stand still and
//! chance by seed are what a simulation has. Each path goes through the narrowest interface that is
//! public, so that what is behind it may be changed.
//!
//! Left out: sockets, real disks, and time. What those cost the bench measures.

mod broker;
mod lines;
mod load;
mod log;
mod served;
mod stream;

use clap::ValueEnum;

/// A hot path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Path {
    /// Bytes into commands
    Parse,
    /// Commands into a body for each partition
    Route,
    /// Bodies into a segment
    Append,
    /// A segment into its index, and a look for a topic
    Index,
    /// A quarter of a log's records, by pattern, into lines
    Filter,
    /// Stored records into lines
    Deliver,
    /// New records into lines
    Push,
    /// Lines into stored records: all of it
    Ingest,
}

/// Goes a path so many times over, and says how many records went it.
///
/// # Errors
/// When something did not come out as it must: a count of failures is no count.
pub fn run(path: Path, rounds: u64) -> anyhow::Result<u64> {
    match path {
        Path::Parse => lines::parse(rounds),
        Path::Route => lines::route(rounds),
        Path::Append => log::append(rounds),
        Path::Index => log::index(rounds),
        Path::Filter => served::filter(rounds),
        Path::Deliver => served::deliver(rounds),
        Path::Push => served::push(rounds),
        Path::Ingest => served::ingest(rounds),
    }
}
