//! Records that other brokers pass on: checked, and put into the mailbox of the partition's actor.
//!
//! A stream begins with a hello, which is answered by whether this broker leads; then come batches.
//! Each is answered in its order. After one that is sent back the stream ends: what is behind it is
//! not stored, whoever sent it may rely on that (see `streams`).
//!
//! What others have on their way is bounded here, beside this broker's own memory for records: two
//! brokers that pass records on to each other must not wait for each other's memory.

use std::sync::Arc;

use aklight_common::BrokerId;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::RoutedBatch;
use super::passing::{Batch, Message, Said};
use super::placed::{Placed, ProduceError};
use super::streams::{StreamId, Streams};
use crate::replication::{Answers, PeerError, Role};

/// Bytes of records that other brokers may have on their way to one partition: several times what
/// one of them sends ahead; beyond it they are not read, which TCP tells them.
const BYTES_MAX: u32 = 16 << 20;

/// Batches of one stream that may wait for their answers: some more than another broker sends ahead.
const BATCHES_MAX: usize = 64;

/// The way in for other brokers' records. Clones are the same way in.
#[derive(Clone)]
pub(super) struct Entrance {
    mailbox: mpsc::Sender<RoutedBatch>,
    roles: watch::Receiver<Role>,
    streams: Arc<Streams>,
    room: Arc<Semaphore>,
}

/// The answer to one message, or where it will come from.
enum Ticket {
    Known(Said),
    Coming(oneshot::Receiver<Result<Placed, ProduceError>>),
    Refused(PeerError),
}

impl Entrance {
    pub(super) fn new(
        mailbox: mpsc::Sender<RoutedBatch>,
        roles: watch::Receiver<Role>,
        streams: Arc<Streams>,
    ) -> Self {
        Self { mailbox, roles, streams, room: Arc::new(Semaphore::new(BYTES_MAX as usize)) }
    }

    /// Answers a stream of another broker.
    pub(super) fn serve(&self, from: BrokerId, bodies: BoxStream<'static, Bytes>) -> Answers {
        let visit = Visit { entrance: self.clone(), from, stream: None, is_over: false };
        let tickets = stream::unfold((visit, bodies), |(mut visit, mut bodies)| async move {
            if visit.is_over {
                return None;
            }
            let ticket = visit.take(bodies.next().await?).await;
            visit.is_over = matches!(
                ticket,
                Ticket::Refused(_) | Ticket::Known(Said::Batch(Err(ProduceError::NotLeader)))
            );
            Some((ticket.answer(), (visit, bodies)))
        });
        // The first one that is sent back is told; nothing behind it is.
        let answers =
            stream::unfold(Some(tickets.buffered(BATCHES_MAX).boxed()), |tickets| async {
                let mut tickets = tickets?;
                let said = tickets.next().await?;
                let goes_on =
                    !matches!(said, Err(_) | Ok(Said::Batch(Err(ProduceError::NotLeader))));
                Some((said.map(|said| said.encode()), goes_on.then_some(tickets)))
            });
        answers.boxed()
    }
}

/// Another broker's stream.
struct Visit {
    entrance: Entrance,
    from: BrokerId,
    stream: Option<StreamId>,
    is_over: bool,
}

impl Visit {
    async fn take(&mut self, body: Bytes) -> Ticket {
        match (Message::decode(body), self.stream) {
            (Ok(Message::Hello), None) => self.welcome(),
            (Ok(Message::Batch(batch)), Some(stream)) => self.let_in(batch, stream).await,
            (Ok(_), _) => Ticket::Refused(PeerError::Refused(
                "a stream of records begins with one hello".to_owned(),
            )),
            (Err(error), _) => Ticket::Refused(PeerError::Refused(error.to_string())),
        }
    }

    fn welcome(&mut self) -> Ticket {
        let role = *self.entrance.roles.borrow();
        let Role::Leads(term) = role else {
            return Ticket::Known(Said::Batch(Err(ProduceError::NotLeader)));
        };
        self.stream = Some(self.entrance.streams.begin(self.from, term));
        Ticket::Known(Said::Welcome)
    }

    async fn let_in(&self, batch: Batch, stream: StreamId) -> Ticket {
        let bytes = u32::try_from(batch.body.bytes.len()).unwrap_or(BYTES_MAX);
        let room = self.entrance.room.clone();
        let Ok(permit) = room.acquire_many_owned(bytes.min(BYTES_MAX)).await else {
            return Ticket::Known(Said::Batch(Err(ProduceError::NotLeader)));
        };
        let (batch, answer) = RoutedBatch::new(batch.body, batch.once, permit);
        match self.entrance.mailbox.send(batch.over(stream)).await {
            Ok(()) => Ticket::Coming(answer),
            // The broker is shutting down: somebody else will lead.
            Err(_) => Ticket::Known(Said::Batch(Err(ProduceError::NotLeader))),
        }
    }
}

impl Ticket {
    async fn answer(self) -> Result<Said, PeerError> {
        match self {
            Self::Known(said) => Ok(said),
            Self::Refused(error) => Err(error),
            Self::Coming(answer) => Ok(Said::Batch(answer.await.unwrap_or_else(|_| {
                Err(ProduceError::Unknown("the leader of the partition is ending".to_owned()))
            }))),
        }
    }
}
