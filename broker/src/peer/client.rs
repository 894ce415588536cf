//! Sends messages to other brokers: a [`PeerTransport`] over gRPC.
//!
//! What cannot be sent because it is too long is refused here, before anything is sent of it. All
//! other trouble is `Unreachable`: once a message is on its way, only an answer tells what became
//! of it.
//!
//! The messages of a stream are read by a task of their own, its answers by the caller. They fall
//! together: answers that are dropped, or at their end, end the call and drop the messages.

use std::error::Error;
use std::future::ready;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, Stream, StreamExt};
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::links::{Link, Links};
use super::wire::{self, check_length};
use crate::replication::{Answers, Envelope, Kind, Lane, Peer, PeerError, PeerTransport};

/// Carries messages over gRPC. Its futures must be polled within a tokio runtime.
#[derive(Default)]
pub struct GrpcTransport {
    links: Arc<Links>,
}

impl GrpcTransport {
    /// Connected to nobody yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl PeerTransport for GrpcTransport {
    fn call(
        &self,
        to: &Peer,
        message: Envelope,
        ttl: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        let (links, address) = (self.links.clone(), to.address.clone());
        async move {
            check_length(&message)?;
            let lane = Kind::from_number(message.kind).map_or(Lane::Control, Kind::lane);
            let link = links.get(&address, lane)?;
            let message = wire::Envelope::from(message);
            let answered = timeout(ttl, link.client().call(message)).await;
            let reply = outcome(&links, &link, answered, ttl)?;
            link.note_answer();
            reply.into_inner().into()
        }
        .boxed()
    }

    fn stream(
        &self,
        to: &Peer,
        kind: Kind,
        messages: BoxStream<'static, Envelope>,
        ttl: Duration,
    ) -> BoxFuture<'static, Result<Answers, PeerError>> {
        let (links, address) = (self.links.clone(), to.address.clone());
        async move {
            let link = links.get(&address, kind.lane())?;
            let refused = Arc::new(OnceLock::new());
            let messages = up_to_a_refused_one(messages, refused.clone());
            let opened = timeout(ttl, link.client().stream(messages)).await;
            let replies = outcome(&links, &link, opened, ttl)?.into_inner();
            link.note_answer();
            let reading = Reading { links, link, replies, refused };
            Ok(stream::unfold(Some(reading), Reading::next).boxed())
        }
        .boxed()
    }
}

/// The answers to a stream, while there are any.
struct Reading {
    links: Arc<Links>,
    link: Arc<Link>,
    replies: Streaming<wire::Reply>,
    /// Set when a message could not be sent: the error that ends the answers to those before it.
    refused: Arc<OnceLock<PeerError>>,
}

impl Reading {
    async fn next(reading: Option<Self>) -> Option<(Result<Bytes, PeerError>, Option<Self>)> {
        let mut reading = reading?;
        match reading.replies.message().await {
            Ok(Some(reply)) => {
                reading.link.note_answer();
                let answer = Result::from(reply);
                let rest = answer.is_ok().then_some(reading);
                Some((answer, rest))
            }
            Ok(None) => reading.refused.get().map(|error| (Err(error.clone()), None)),
            Err(status) => {
                reading.links.forget(&reading.link);
                Some((Err(unreachable(&reading.link, &status)), None))
            }
        }
    }
}

/// The messages, up to the first that is too long to be sent.
fn up_to_a_refused_one(
    messages: BoxStream<'static, Envelope>,
    refused: Arc<OnceLock<PeerError>>,
) -> impl Stream<Item = wire::Envelope> + Send {
    // Nothing is read after a refused one, so it is set once.
    messages.scan(refused, |refused, message| {
        let checked = check_length(&message).map_err(|error| refused.set(error));
        ready(checked.is_ok().then(|| wire::Envelope::from(message)))
    })
}

/// What came of sending: an error also says what the link is still good for.
fn outcome<T>(
    links: &Links,
    link: &Arc<Link>,
    sent: Result<Result<T, Status>, tokio::time::error::Elapsed>,
    ttl: Duration,
) -> Result<T, PeerError> {
    match sent {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(status)) => {
            links.forget(link);
            Err(unreachable(link, &status))
        }
        Err(_) => {
            links.note_timeout(link);
            let waited = format!("{}: no answer within {} ms", link.address, ttl.as_millis());
            Err(PeerError::Unreachable(waited))
        }
    }
}

/// Says why, by the cause behind all causes: "transport error" alone helps nobody.
fn unreachable(link: &Link, status: &Status) -> PeerError {
    let mut why = match status.message() {
        "" => status.code().description().to_owned(),
        text => text.to_owned(),
    };
    let mut cause = status.source();
    while let Some(error) = cause {
        why = error.to_string();
        cause = error.source();
    }
    PeerError::Unreachable(format!("{}: {why}", link.address))
}
