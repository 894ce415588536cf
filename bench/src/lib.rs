//! The bench: one load for AKLight and its peers, and what each does with it.
//!
//! Every number is a ratio of rounds that alternate between the systems (`plan`, `stats`), because
//! a machine that others share drifts by 15 % from minute to minute. `peers` holds a small driver
//! for each system, `drive` the one load generator, `server` the processes that are measured,
//! `work` the rows of the table, `report` what is written in the end. `counts` is for what no clock shows: instructions and
//! allocations, counted under `valgrind`.

pub mod agents;
pub mod clock;
pub mod counts;
pub mod disk;
pub mod drive;
pub mod load;
pub mod order;
pub mod peers;
pub mod plan;
pub mod programs;
pub mod receive;
pub mod report;
pub mod rows;
pub mod server;
pub mod stats;
pub mod tail;
pub mod usage;
pub mod valgrind;
pub mod wire;
pub mod work;
