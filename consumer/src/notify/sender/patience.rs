//! How patient to be with those who carry messages.

use std::time::Duration;

/// How long to wait for what. Tests are less patient than users.
#[derive(Debug, Clone)]
pub struct Patience {
    /// For a connection.
    pub connect_timeout: Duration,
    /// For an answer.
    pub request_timeout: Duration,
    /// Before the second attempt; doubles with each further one, with jitter.
    pub backoff_first: Duration,
    /// The longest wait between attempts.
    pub backoff_max: Duration,
    /// Attempts in all, before a notice becomes a dead letter.
    pub attempts_max: usize,
    /// Failures in a row that open the circuit.
    pub breaker_failures: u32,
    /// How long it stays open at first; doubles with each failed trial.
    pub breaker_open: Duration,
    /// The longest that it stays open.
    pub breaker_open_max: Duration,
    /// When to ask what became of a message that was taken, each after the one before.
    pub follow_up: Vec<Duration>,
    /// An alert older than this is no news any more and becomes a dead letter.
    pub age_max: Duration,
}

impl Default for Patience {
    /// Figures for people: an alert should ring within seconds where it can, and within the half
    /// hour of a usual outage otherwise; Twilio itself holds messages for up to four hours.
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            backoff_first: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
            attempts_max: 8,
            breaker_failures: 5,
            breaker_open: Duration::from_secs(15),
            breaker_open_max: Duration::from_secs(300),
            follow_up: [5, 25, 90].map(Duration::from_secs).to_vec(),
            age_max: Duration::from_secs(1800),
        }
    }
}
