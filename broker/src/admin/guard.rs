//! Keeps strangers' web pages out. A page that somebody reads elsewhere may make their browser ask
//! any address that it reaches, and so this broker too, from inside the reader's network.
//!
//! - What it sends names its own `Origin`, which is not our `Host`: refused. A browser adds it to
//!   every POST, and programs that are no browser add none.
//! - It may let its own name lead to our address (DNS rebinding); then the two agree, and the name is
//!   a stranger's. So names that anybody could own are refused: known are addresses, names without a
//!   dot, names under domains that nobody can buy, the brokers' own, and those of `--http-hosts`.
//! - A POST must be JSON ([`read_json`]): a form or a text may be sent anywhere without asking.
//!
//! `/metrics` asks it as well, and tells strangers of the broker only.
//!
//! What it is not: authentication. Whoever reaches the port may read and change.

use std::net::IpAddr;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;

use super::{Started, problem::Problem};

/// Longest body of a request: some numbers, names and a reason.
pub(super) const BODY_BYTES_MAX: usize = 4096;

/// Domains that nobody can register: RFC 6761, RFC 6762, RFC 8375, ICANN's .internal, and two that
/// routers use and that the root does not delegate.
const PRIVATE_DOMAINS: [&str; 6] =
    [".localhost", ".local", ".home.arpa", ".internal", ".lan", ".home"];

/// Whom the guard knows.
#[derive(Clone)]
pub(super) struct Guard {
    pub(super) started: Started,
    /// Further names of this broker, as the user gave them.
    pub(super) hosts: Vec<String>,
}

/// A request's body as it came.
pub(super) type Body = Result<Bytes, BytesRejection>;

/// Lets a request through, or says why not.
pub(super) async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match guard.judge(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

impl Guard {
    /// Whether who asks may see what the brokers were told, or why not.
    pub(super) fn judge(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let host = text(header::HOST).unwrap_or_default();
        if let Some(origin) = text(header::ORIGIN) {
            let from = origin.split_once("://").map_or("", |(_, from)| from);
            if !from.eq_ignore_ascii_case(host) {
                return Err(Problem::forbidden(format!(
                    "refused: this was asked by the page of {origin}, and this is {host}"
                )));
            }
        }
        if self.knows(name_of(host)) {
            return Ok(());
        }
        Err(Problem::forbidden(format!(
            "refused: this broker does not know itself by the name {host}; ask it by its address, or start it with --http-hosts {}",
            name_of(host)
        )))
    }

    fn knows(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let is_own = |own: &str| name_of(own).eq_ignore_ascii_case(&name);
        !name.contains('.')
            || name.parse::<IpAddr>().is_ok()
            || PRIVATE_DOMAINS.iter().any(|domain| name.ends_with(domain))
            || self.hosts.iter().any(|host| is_own(host))
            || self.started.get().is_some_and(|services| {
                let brokers = services.sessions.metadata().brokers();
                is_own(&services.address)
                    || brokers.into_iter().any(|(_, broker)| is_own(&broker.http))
            })
    }
}

/// The name or address in `host:port`, without the brackets of `[::1]:7070`.
fn name_of(host: &str) -> &str {
    if let Some((address, _)) = host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        return address;
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

/// Reads a body of JSON.
pub(super) fn read_json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
) -> Result<T, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(Problem {
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            text: "send JSON, with the header Content-Type: application/json".to_owned(),
        });
    }
    let body = body.map_err(|_| {
        Problem::nonsense(format!("the body is longer than {BODY_BYTES_MAX} bytes or broke off"))
    })?;
    serde_json::from_slice(&body).map_err(|error| Problem::nonsense(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(headers: &[(&'static str, &str)]) -> Option<StatusCode> {
        let guard = Guard { started: Started::default(), hosts: vec!["mon.example.com".into()] };
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().expect("a header"));
        }
        guard.judge(&map).err().map(|problem| problem.status)
    }

    #[test]
    fn a_name_that_a_stranger_could_own_is_refused() {
        for host in [
            "127.0.0.1:7070",
            "[::1]:7070",
            "localhost:7070",
            "server",
            "nas.local:7070",
            "mon.example.com:7070",
            "Mon.Example.com",
        ] {
            assert_eq!(status(&[("host", host)]), None, "{host}");
        }
        for host in ["evil.com:7070", "localhost.evil.com", "127.0.0.1.nip.io:7070"] {
            assert_eq!(status(&[("host", host)]), Some(StatusCode::FORBIDDEN), "{host}");
        }
    }

    #[test]
    fn a_page_of_elsewhere_is_refused() {
        let host = ("host", "localhost:7070");
        assert_eq!(status(&[host, ("origin", "http://localhost:7070")]), None);
        for origin in ["http://evil.com", "null", "http://localhost:3000"] {
            assert!(status(&[host, ("origin", origin)]).is_some(), "{origin}");
        }
    }
}
