//! A client of an engine's HTTP API that can look and not touch: its one way to make a request is
//! a GET, so that whatever is wrong elsewhere in this program, no container is ever started,
//! stopped or removed by it.
//!
//! An engine speaks several versions of its API, and refuses those that are too new or too old for
//! it. So it is asked first which it takes (`/version`, which needs none), and the newest is used
//! that both know.
//!
//! Each request has a connection of its own and a time limit. Answers are read by `hyper`, and
//! are bounded. What is left out: TLS and ssh (a proxy or a tunnel stands in), named pipes, and
//! typed models of everything an engine may say: [`super::shapes`] has what is needed.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::HOST;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::shapes::{Event, Refusal, Version, present};

/// The newest version of the API that was tried: Docker 29 speaks it.
const API_NEWEST: ApiVersion = ApiVersion(1, 52);

/// Longest wait for an answer. An engine with much to do takes a second or two.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest answer: a thousand containers in a list are about 2 MiB.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Longest event: labels are in it, and nothing limits those.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// Where an engine without TLS listens on TCP.
const TCP_PORT: u16 = 2375;

/// What was said of where the engine is. A variable that is set to nothing says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said(pub Option<Address>);

impl FromStr for Said {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            Ok(Self(None))
        } else {
            text.parse().map(|address| Self(Some(address)))
        }
    }
}

/// Where an engine is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A socket of this machine.
    Unix(PathBuf),
    /// A host and a port: an engine elsewhere, or a proxy that lets GETs through only.
    Tcp(String),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let other = || {
            format!(
                "an engine is reached at unix:///PATH or tcp://HOST:PORT, not at '{text}'; for TLS \
                 or ssh let a proxy or a tunnel listen there"
            )
        };
        if let Some(path) = text.strip_prefix("unix://").filter(|path| path.starts_with('/')) {
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let place = text.strip_prefix("tcp://").map(|place| place.trim_end_matches('/'));
        match place.ok_or_else(other)?.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Ok(Self::Tcp(format!("{host}:{port}")))
            }
            None if place.is_some_and(|host| !host.is_empty()) => {
                Ok(Self::Tcp(format!("{}:{TCP_PORT}", place.unwrap_or_default())))
            }
            _ => Err(other()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(place) => write!(f, "tcp://{place}"),
        }
    }
}

/// A version of the API: `1.41`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct ApiVersion(u32, u32);

impl ApiVersion {
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

/// Why an engine gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// There is nobody, or we may not speak to him.
    #[error("{address} cannot be reached: {source}{}", hint(source))]
    Unreachable {
        /// Where.
        address: Address,
        /// Why.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] hyper::Error),
    /// No answer in time.
    #[error("no answer to {0} within {ANSWER_TIMEOUT:?}")]
    Slow(String),
    /// An answer that says no.
    #[error("{path} was answered with {status}: {message}")]
    Refused {
        /// What was asked.
        path: String,
        /// The status.
        status: StatusCode,
        /// The engine's words.
        message: String,
    },
    /// An answer that we do not understand.
    #[error("the answer to {path} is not what an engine says: {reason}")]
    Nonsense {
        /// What was asked.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The engine hung up: it ends, or is started again.
    #[error("it ended the stream of events")]
    Ended,
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => {
            " (run the producer as root or in the group docker, or name a proxy with DOCKER_HOST)"
        }
        _ => "",
    }
}

/// An engine that answers.
#[derive(Debug)]
pub struct Engine {
    address: Address,
    version: ApiVersion,
    words: String,
}

impl Engine {
    /// Asks who is there and which version of the API to use.
    ///
    /// # Errors
    /// When nobody answers, or in no way that we understand.
    pub async fn connect(address: &Address) -> Result<Self, EngineError> {
        let path = "/version";
        let said: Version = present(path, get(address, path).await?)?;
        let version =
            ApiVersion::parse(&said.api_version).ok_or_else(|| EngineError::Nonsense {
                path: path.to_owned(),
                reason: format!("'{}' is no version", said.api_version),
            })?;
        let oldest = ApiVersion::parse(&said.min_api_version).unwrap_or(version);
        Ok(Self {
            address: address.clone(),
            version: version.min(API_NEWEST).max(oldest),
            words: said.words(),
        })
    }

    /// Who it says it is, for the log.
    #[must_use]
    pub fn words(&self) -> String {
        let ApiVersion(major, minor) = self.version;
        format!("{} at {}, API {major}.{minor}", self.words, self.address)
    }

    /// Asks for something; `None` where there is no such thing.
    ///
    /// # Errors
    /// When there is no answer, or none that we understand.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, EngineError> {
        get(&self.address, &self.versioned(path)).await
    }

    /// Asks for events: what happens from now on, or from a moment on that is past (in Unix
    /// nanoseconds), as far as the engine remembers.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn events(&self, filters: &str, since: Option<u64>) -> Result<Events, EngineError> {
        let mut path = format!("/events?filters={}", escaped(filters));
        if let Some(nanos) = since {
            let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
            path.push_str(&format!("&since={seconds}.{rest:09}"));
        }
        let answer = ask(&self.address, &self.versioned(&path)).await?;
        Ok(Events { body: answer.into_body(), rest: Vec::new() })
    }

    fn versioned(&self, path: &str) -> String {
        let ApiVersion(major, minor) = self.version;
        format!("/v{major}.{minor}{path}")
    }
}

/// A stream of events.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    rest: Vec<u8>,
}

impl Events {
    /// The next one. May be dropped while it waits, and asked again.
    ///
    /// # Errors
    /// When the stream ends or breaks, or holds something else.
    pub async fn next(&mut self) -> Result<Event, EngineError> {
        let nonsense = |reason| EngineError::Nonsense { path: "/events".to_owned(), reason };
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return serde_json::from_slice(&line).map_err(|error| nonsense(error.to_string()));
            }
            if self.rest.len() > EVENT_BYTES_MAX {
                return Err(nonsense("an event without end".to_owned()));
            }
            let frame = self.body.frame().await.ok_or(EngineError::Ended)??;
            if let Some(bytes) = frame.data_ref() {
                self.rest.extend_from_slice(bytes);
            }
        }
    }
}

async fn get<T: DeserializeOwned>(address: &Address, path: &str) -> Result<Option<T>, EngineError> {
    let nonsense = |reason| EngineError::Nonsense { path: path.to_owned(), reason };
    let answer = match ask(address, path).await {
        Err(EngineError::Refused { status: StatusCode::NOT_FOUND, .. }) => return Ok(None),
        answer => answer?,
    };
    let bytes = within(path, read(answer)).await?.map_err(nonsense)?;
    serde_json::from_slice(&bytes).map(Some).map_err(|error| nonsense(error.to_string()))
}

/// The whole of an answer.
async fn read(answer: Response<Incoming>) -> Result<Bytes, String> {
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    body.map(http_body_util::Collected::to_bytes).map_err(|error| error.to_string())
}

/// Makes the request, and answers when the head of a good answer is there.
async fn ask(address: &Address, path: &str) -> Result<Response<Incoming>, EngineError> {
    let mut connection = within(path, connect(address)).await??;
    let request =
        Request::get(path).header(HOST, "engine").body(Empty::<Bytes>::new()).map_err(|error| {
            EngineError::Nonsense { path: path.to_owned(), reason: error.to_string() }
        })?;
    let answer = within(path, connection.send_request(request)).await??;
    let status = answer.status();
    if status == StatusCode::OK {
        return Ok(answer);
    }
    let words = within(path, read(answer)).await?.unwrap_or_default();
    let message = match serde_json::from_slice(&words) {
        Ok(Refusal { message }) => message,
        Err(_) => String::from_utf8_lossy(&words).trim().to_owned(),
    };
    Err(EngineError::Refused { path: path.to_owned(), status, message })
}

async fn within<T>(path: &str, answer: impl Future<Output = T>) -> Result<T, EngineError> {
    timeout(ANSWER_TIMEOUT, answer).await.map_err(|_| EngineError::Slow(path.to_owned()))
}

async fn connect(address: &Address) -> Result<SendRequest<Empty<Bytes>>, EngineError> {
    let unreachable = |source| EngineError::Unreachable { address: address.clone(), source };
    match address {
        Address::Unix(path) => {
            shake_hands(UnixStream::connect(path).await.map_err(unreachable)?).await
        }
        Address::Tcp(place) => {
            shake_hands(TcpStream::connect(place).await.map_err(unreachable)?).await
        }
    }
}

async fn shake_hands(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<SendRequest<Empty<Bytes>>, EngineError> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the answer: who reads that hears of its errors too.
    tokio::spawn(connection);
    Ok(sender)
}

/// A text as a query holds it (RFC 3986): all but letters and digits as percent and two digits.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_a_socket_or_a_host() {
        let unix = Address::Unix(PathBuf::from("/run/docker.sock"));
        assert_eq!("unix:///run/docker.sock".parse(), Ok(unix));
        assert_eq!("tcp://proxy:2376".parse(), Ok(Address::Tcp("proxy:2376".to_owned())));
        assert_eq!("tcp://proxy".parse(), Ok(Address::Tcp("proxy:2375".to_owned())));
        assert_eq!("tcp://[::1]:1/".parse(), Ok(Address::Tcp("[::1]:1".to_owned())));
        for text in
            ["ssh://host", "/run/docker.sock", "npipe://x", "unix://x", "tcp://", "tcp://x:y"]
        {
            let error = text.parse::<Address>().expect_err(text);
            assert!(error.contains("unix:///PATH or tcp://HOST:PORT"), "{error}");
        }
    }

    #[test]
    fn a_variable_of_nothing_says_nothing() {
        assert_eq!("".parse(), Ok(Said(None)));
        assert_eq!("tcp://x".parse(), Ok(Said(Some(Address::Tcp("x:2375".to_owned())))));
        assert!("x".parse::<Said>().is_err());
    }

    #[test]
    fn versions_compare_by_their_numbers() {
        let parse = |text| ApiVersion::parse(text).expect("a version");
        assert!(parse("1.9") < parse("1.41"));
        assert_eq!(ApiVersion::parse("one"), None);
    }

    #[test]
    fn a_query_holds_letters_and_digits() {
        assert_eq!(escaped("{\"a\":[1]}"), "%7B%22a%22%3A%5B1%5D%7D");
    }
}
