//! The promises, one a file. Each looks at the history as it grows and once more at its end.

mod delivered;
mod dense;
mod durable;
mod ends;
mod honest;
mod key_order;
mod leaders;
mod once;
mod positions;
mod replicas;
mod settles;
mod unchanging;

use crate::oracle::Limits;
use crate::violation::Found;
use crate::{Event, History};

/// A promise that can be broken.
pub(crate) trait Invariant: Send {
    /// Something happened; `history` is what was known before.
    fn observe(&mut self, event: &Event, history: &History, found: &mut Found);

    /// Nothing more happens.
    fn finish(&mut self, history: &History, found: &mut Found) {
        let _ = (history, found);
    }
}

/// Each of them.
pub(crate) fn all(limits: Limits) -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(durable::Durable),
        Box::new(unchanging::Unchanging),
        Box::new(dense::Dense::default()),
        Box::new(leaders::Leaders::default()),
        Box::new(ends::Ends::default()),
        Box::new(key_order::KeyOrder),
        Box::new(once::StoredOnce),
        Box::new(honest::Honest),
        Box::new(positions::Positions::default()),
        Box::new(delivered::Delivered::default()),
        Box::new(settles::Settles::new(limits)),
        Box::new(replicas::Replicas::default()),
    ]
}

#[cfg(test)]
pub(crate) mod story;
