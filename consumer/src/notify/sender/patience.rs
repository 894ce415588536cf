//! How patient to be with those who carry messages.

use std::time::Duration;

/// How long to wait for what. Tests are less patient than users.
#[derive(Debug, Clone)]
pub struct Patience {
    /// For a connection.
    pub connect_timeout: Duration,
    /// For an answer; a mail server has six times as long, for it looks at a mail first.
    pub request_timeout: Duration,
    /// Before the second attempt; doubles with each further one.
    pub backoff_first: Duration,
    /// The longest wait between attempts, which the jitter doubles at most.
    pub backoff_max: Duration,
    /// Failures in a row that open the circuit.
    pub breaker_failures: u32,
    /// How long it stays open at first; doubles with each failed trial.
    pub breaker_open: Duration,
    /// The longest that it stays open.
    pub breaker_open_max: Duration,
    /// When to ask what became of a message that was taken, each after the one before.
    pub follow_up: Vec<Duration>,
    /// How long a message is held up before the rule's fallback is told; it is tried on meanwhile.
    pub fallback_after: Duration,
    /// How long a message is tried, from when a run of the consumer hands it on. Nothing else ends
    /// the tries of what may pass: an alert older than this is no news any more and becomes a dead
    /// letter.
    pub age_max: Duration,
}

impl Default for Patience {
    /// Figures for people: an alert should ring within seconds where it can, within a few minutes
    /// by another channel, and within a minute of the end of an outage of half an hour at most;
    /// Twilio itself holds messages for up to four hours.
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            backoff_first: Duration::from_secs(1),
            backoff_max: Duration::from_secs(30),
            breaker_failures: 5,
            breaker_open: Duration::from_secs(15),
            breaker_open_max: Duration::from_secs(60),
            follow_up: [5, 25, 90].map(Duration::from_secs).to_vec(),
            fallback_after: Duration::from_secs(60),
            age_max: Duration::from_secs(1800),
        }
    }
}
