//! What the carriers that speak HTTP share.

use std::time::Duration;

use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

use super::sender::Patience;

/// The longest that a `Retry-After` is honoured: an alert of an hour ago is no alert.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// A client that is patient to a degree, and follows nobody elsewhere.
pub(super) fn client(patience: &Patience) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .connect_timeout(patience.connect_timeout)
        .timeout(patience.request_timeout)
        .redirect(reqwest::redirect::Policy::none())
        .build()
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
