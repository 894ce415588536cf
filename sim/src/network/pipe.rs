//! One direction of a stream: what is on its way, in order.

use std::collections::VecDeque;

use aklight_broker::replication::PeerError;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Something on its way.
pub(super) enum Item<T> {
    /// A message, and the room that it takes until its receiver has it.
    Data(T, OwnedSemaphorePermit),
    /// No more will come.
    End,
}

/// What is on its way to one end.
pub(super) struct Pipe<T> {
    flight: VecDeque<(u64, Item<T>)>,
    last_due_us: u64,
    into: Option<mpsc::UnboundedSender<(T, OwnedSemaphorePermit)>>,
}

impl<T> Pipe<T> {
    pub(super) fn new(into: mpsc::UnboundedSender<(T, OwnedSemaphorePermit)>) -> Self {
        Self { flight: VecDeque::new(), last_due_us: 0, into: Some(into) }
    }

    /// Sends something; it overtakes nothing.
    pub(super) fn put(&mut self, due_us: u64, item: Item<T>) {
        self.last_due_us = self.last_due_us.max(due_us);
        self.flight.push_back((self.last_due_us, item));
    }

    /// Exchanges the last two that were sent: what TCP never does.
    pub(super) fn swap_last(&mut self) {
        let count = self.flight.len();
        if count >= 2
            && let Some((_, Item::Data(..))) = self.flight.back()
            && let Some(due_us) = self.flight.get(count - 2).map(|(due_us, _)| *due_us)
        {
            self.flight.swap(count - 2, count - 1);
            self.flight.iter_mut().skip(count - 2).for_each(|(due, _)| *due = due_us);
            if let Some((due, _)) = self.flight.back_mut() {
                *due = self.last_due_us;
            }
        }
    }

    /// What [`Self::deliver`] would hand over now.
    pub(super) fn due(&self, now_us: u64) -> impl Iterator<Item = &T> {
        self.flight.iter().take_while(move |(due_us, _)| *due_us <= now_us).filter_map(
            |(_, item)| match item {
                Item::Data(data, _) => Some(data),
                Item::End => None,
            },
        )
    }

    /// Hands over what is due; `true` when that was the end.
    pub(super) fn deliver(&mut self, now_us: u64) -> bool {
        while self.flight.front().is_some_and(|(due_us, _)| *due_us <= now_us) {
            match self.flight.pop_front() {
                Some((_, Item::Data(data, permit))) => {
                    if let Some(into) = &self.into {
                        // An end that is gone takes nothing, and that is found elsewhere.
                        let _ = into.send((data, permit));
                    }
                }
                Some((_, Item::End)) => {
                    self.close();
                    return true;
                }
                None => {}
            }
        }
        false
    }

    /// No more will be handed over.
    pub(super) fn close(&mut self) {
        self.into = None;
        self.flight.clear();
    }
}

impl Pipe<Result<Bytes, PeerError>> {
    /// The last thing that is handed over is this error; what is on its way is lost.
    pub(super) fn fail(&mut self, error: PeerError) {
        if let Some(into) = self.into.take()
            && let Ok(permit) = std::sync::Arc::new(Semaphore::new(1)).try_acquire_owned()
        {
            let _ = into.send((Err(error), permit));
        }
        self.flight.clear();
    }
}
