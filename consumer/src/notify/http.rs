//! What the carriers that speak HTTP share, and of TLS all of them.

use std::time::Duration;

use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use serde::de::DeserializeOwned;

use super::sender::Patience;

/// The longest that a `Retry-After` is honoured: an alert of an hour ago is no alert.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// The longest answer that is read: Twilio's list of 200 messages with texts of 1,600 characters
/// has a quarter of it.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// What to do where there is nothing to check certificates by.
pub(super) const NO_ROOTS: &str = "are the system's root certificates installed (ca-certificates)? Where SSL_CERT_FILE or SSL_CERT_DIR is set, can it be read?";

/// A client that is patient to a degree, and follows nobody elsewhere.
pub(super) fn client(patience: &Patience) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .connect_timeout(patience.connect_timeout)
        .timeout(patience.request_timeout)
        .redirect(reqwest::redirect::Policy::none())
        .build()
}

/// Why a server's certificate is not believed, where that is the cause, and what to do. No patience
/// mends that.
pub(super) fn distrusted(who: &str, cause: &str) -> Option<String> {
    // The words of rustls, whose types neither lettre nor reqwest hands on.
    let (_, why) = cause.split_once("invalid peer certificate: ")?;
    Some(format!(
        "{who} shows a certificate that is not trusted ({why}): where an authority of your own signed it, name its PEM file in SSL_CERT_FILE, and the system's in SSL_CERT_DIR, as MONITORING.md says"
    ))
}

/// An answer's JSON, where it is not too long.
pub(super) async fn json<T: DeserializeOwned>(mut answer: reqwest::Response) -> Result<T, String> {
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(|error| source_text(&error))? {
        if body.len() + piece.len() > ANSWER_BYTES_MAX {
            return Err(format!("it is longer than {ANSWER_BYTES_MAX} bytes"));
        }
        body.extend_from_slice(&piece);
    }
    serde_json::from_slice(&body).map_err(|error| error.to_string())
}

/// The innermost cause: "connection refused" says more than "error sending request".
pub(super) fn source_text(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if std::ptr::addr_eq(cause, error) { "no cause given".to_owned() } else { cause.to_string() }
}

/// `Retry-After` as a wait: seconds, or a date against the answer's own date (or our clock).
pub(super) fn retry_after(headers: &HeaderMap, now_ms: u64) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let moment =
                |text: &str| jiff::fmt::rfc2822::parse(text).ok().map(|zoned| zoned.timestamp());
            let until = moment(text)?.as_millisecond();
            let sent = headers.get(DATE).and_then(|date| moment(date.to_str().ok()?));
            let now = sent.map_or(i64::try_from(now_ms).ok()?, jiff::Timestamp::as_millisecond);
            Duration::from_millis(u64::try_from(until - now).unwrap_or(0))
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_and_has_a_limit() {
        let check = |value: &str, expect: Option<u64>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().expect("a header"));
            headers.insert(DATE, "Sat, 21 Nov 2026 02:52:07 GMT".parse().expect("a header"));
            assert_eq!(retry_after(&headers, 0), expect.map(Duration::from_secs), "{value}");
        };
        check("3", Some(3));
        check("Sat, 21 Nov 2026 02:52:37 GMT", Some(30));
        check("Sat, 21 Nov 2026 02:52:00 GMT", Some(0));
        check("86400", Some(600));
        check("soon", None);
    }
}
