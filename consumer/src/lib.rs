//! AKLight's consumer: what is in trouble, and who is told.

pub mod rules;
pub mod sample;
