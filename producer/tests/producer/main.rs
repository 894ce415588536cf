//! The real binary, seen from outside: its processes, and what it delivers to a broker.

mod containers;
mod delivery;
mod engines;
mod processes;
mod support;
