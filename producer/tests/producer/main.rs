//! The real binary, seen from outside: its processes, and what it delivers to a broker.

mod delivery;
mod processes;
mod support;
