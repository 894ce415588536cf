//! What a client is told: which brokers there are, who it is, and how patient to be.

use std::time::Duration;

use super::backoff::Backoff;
use crate::limits::LINE_BYTES_MAX;

/// The port of the line protocol where none is given. Source: the conventions of field.md.
pub const PORT_DEFAULT: u16 = 7000;

/// How long a connection may take to come about: three seconds let a lost SYN be repeated once
/// or twice (after 1 s, then 2 s) and still move on quickly to the next broker.
pub const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(3);

/// How long a broker may take for the first answer on a connection: longer than the five seconds
/// for which one waits for a leader, so that its `unavailable` is heard; much shorter than other
/// answers may take, because one that takes connections and says nothing (it is stopped, or waits
/// for its peers) should cost a client little.
pub const GREETING_TIMEOUT_DEFAULT: Duration = Duration::from_secs(7);

/// How long an answer may take: longer than the six seconds at most after which a broker itself
/// says `unavailable`, so that this is heard; and how long a line may be silent before it is asked
/// for a sign of life, so that a broker that is stopped or cut off is left within a quarter minute.
pub const REQUEST_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// What every form of client is made from.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// The brokers, each `host:port`; names are resolved again at every connect, by
    /// [`super::blocking`] only when their address has failed for half a minute.
    pub brokers: Vec<String>,
    /// Who this client is: one topic level of at most 128 bytes.
    pub id: String,
    /// How long to wait between attempts to connect.
    pub backoff: Backoff,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// How long the first answer on a connection may take.
    pub greeting_timeout: Duration,
    /// How long an answer may take.
    pub request_timeout: Duration,
    /// The longest line that the brokers take, without its newline.
    pub line_bytes_max: usize,
}

impl ClientConfig {
    /// The usual settings for a client called `id`.
    #[must_use]
    pub fn new(brokers: Vec<String>, id: &str) -> Self {
        Self {
            brokers,
            id: id.to_owned(),
            backoff: Backoff::default(),
            connect_timeout: CONNECT_TIMEOUT_DEFAULT,
            greeting_timeout: GREETING_TIMEOUT_DEFAULT,
            request_timeout: REQUEST_TIMEOUT_DEFAULT,
            line_bytes_max: LINE_BYTES_MAX,
        }
    }

    /// The longest line that a broker may answer with: a stored record whose every byte had to
    /// be escaped, and the topic and numbers before it.
    pub(crate) fn reply_bytes_max(&self) -> usize {
        const HEAD_BYTES_MAX: usize = 512;
        self.line_bytes_max.saturating_mul(2).saturating_add(HEAD_BYTES_MAX)
    }
}

/// Why a list of brokers is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokersError {
    /// Nothing between two commas, or nothing at all.
    #[error("the list of brokers has an empty place: write host:port,host:port")]
    Empty,
    /// Not a host, or not a port.
    #[error("'{0}' is no broker: write host:port, as in broker1:7000 or [::1]:7000")]
    Malformed(String),
}

/// Reads `a:7000,b:7001`; a place without a port gets [`PORT_DEFAULT`].
///
/// # Errors
/// Which place is wrong, and how it is written right.
pub fn parse_brokers(list: &str) -> Result<Vec<String>, BrokersError> {
    list.split(',').map(|place| parse_broker(place.trim())).collect()
}

fn parse_broker(place: &str) -> Result<String, BrokersError> {
    if place.is_empty() {
        return Err(BrokersError::Empty);
    }
    let malformed = || BrokersError::Malformed(place.to_owned());
    // An IPv6 address stands in brackets where a port follows: its own colons hide the port's.
    let host_end = match place.strip_prefix('[') {
        Some(rest) => rest.find(']').ok_or_else(malformed)? + 2,
        None => place.find(':').unwrap_or(place.len()),
    };
    let (host, port) = place.split_at(host_end);
    let named = host.bytes().any(|b| b.is_ascii_alphanumeric() || b == b':')
        && host.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b'|'));
    if !named {
        return Err(malformed());
    }
    if port.is_empty() {
        return Ok(format!("{host}:{PORT_DEFAULT}"));
    }
    let port: u16 = port.strip_prefix(':').and_then(|p| p.parse().ok()).ok_or_else(malformed)?;
    if port == 0 {
        return Err(malformed());
    }
    Ok(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_hosts_with_or_without_a_port() {
        let brokers = parse_brokers("a:7001, b ,[::1]:7002,[::1],10.0.0.1").expect("brokers");
        assert_eq!(brokers, ["a:7001", "b:7000", "[::1]:7002", "[::1]:7000", "10.0.0.1:7000"]);
    }

    #[test]
    fn what_is_no_broker_is_named() {
        for bad in ["a:", "a:x", "a:0", "a:70000", ":7000", "a:1:2", "[::1", "http://a:1", "a b"] {
            let error = parse_brokers(&format!("ok:7000,{bad}")).expect_err(bad);
            assert_eq!(error, BrokersError::Malformed(bad.to_owned()));
        }
        assert_eq!(parse_brokers(""), Err(BrokersError::Empty));
        assert_eq!(parse_brokers("a:1,"), Err(BrokersError::Empty));
    }
}
