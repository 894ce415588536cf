//! What can go wrong between a client and its brokers, told so that a user knows what to do.

use std::io;
use std::time::Duration;

use crate::wire::WireError;
use crate::wire::reply::NoReply;

/// Why an answer did not come, or is a refusal.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// None of the brokers could be reached.
    #[error("no broker answers at {tried}: is one running? start it with `aklight up`")]
    NoBroker {
        /// Each broker with the reason.
        tried: String,
    },
    /// The connection broke. Whether the broker did what it was asked is not known.
    #[error("the connection to {broker} broke ({source}): try again when the broker is back")]
    Lost {
        /// The broker.
        broker: String,
        /// Why.
        source: io::Error,
    },
    /// No answer within the request's time. Whether the broker will still act is not known.
    #[error("{broker} did not answer within {waited:?}: is it overloaded or stopped? try again")]
    TimedOut {
        /// The broker.
        broker: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The broker refused.
    #[error("refused: {0}")]
    Refused(#[from] WireError),
    /// Whoever answers does not speak this protocol.
    #[error("{broker} does not answer as an AKLight broker ({what}): is the port right?")]
    NotABroker {
        /// Where.
        broker: String,
        /// What it said instead.
        what: String,
    },
}

impl ClientError {
    pub(crate) fn unexpected(broker: &str, what: impl Into<String>) -> Self {
        Self::NotABroker { broker: broker.to_owned(), what: what.into() }
    }

    pub(crate) fn no_reply(broker: &str, error: &NoReply) -> Self {
        Self::unexpected(broker, error.to_string())
    }
}
