//! A whole AKLight cluster in one thread, driven by a seed.
//!
//! The brokers are the real ones ([`aklight_broker::Node`]); their network, disks, clocks and chance
//! are not. One seed decides everything: what clients do, what goes wrong, how long a message
//! takes. So what once failed fails again, as often as it takes to understand it.
//!
//! ```text
//! runner ── a process a seed ──▶ world ─┬─ hosts ──── brokers, each a runtime of its own
//!                                       ├─ network    calls and streams between them
//!                                       ├─ client     producers, consumers, readers, the audit
//!                                       ├─ nemesis    what goes wrong
//!                                       └─ teller ──▶ oracle
//! ```
//!
//! Determinism, held by `tests/runs.rs`: one thread; time that stands still until it is moved;
//! the system's clocks stopped ([`standstill`]); chance by seed, down to the C library's
//! ([`entropy`]); nothing drawn from addresses.
//!
//! The same makes a broker's instructions countable: [`paths`] are loads for a tool that counts them.
//!
//! Left out: what lies around [`aklight_broker::Node`], which is sockets, gRPC, HTTP and signals.
//! Tests with real processes see to those.

// The futures of a broker, put into those of the simulation, are deep.
#![recursion_limit = "256"]

pub mod changes;
pub mod client;
pub mod clock;
pub mod dice;
pub mod disk;
pub mod entropy;
pub mod gates;
pub mod host;
pub mod nemesis;
pub mod network;
pub mod paths;
pub mod plants;
pub mod runner;
pub mod standstill;
pub mod teller;
pub mod trace;
pub mod watchdog;
pub mod wire;
pub mod world;
