//! Twilio's Messages resource: send, look up, ask after. What an answer means is decided here and
//! nowhere else.
//!
//! Which failures pass: 429 and code 20429 (too many requests), 63018 (WhatsApp's own limit),
//! 5xx, and connections that did not come about. Every other 4xx is permanent: Twilio advises
//! against logic for each code. After a timeout, or an answer that broke off, nobody knows.

use std::time::Duration;

use aklight_common::clock::SharedClock;
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;

use super::{Settings, SettingsError};
use crate::notify::carrier::{Failure, Found};
use crate::notify::http::{client, distrusted, json, retry_after, source_text};
use crate::notify::sender::Patience;

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Free text: only within 24 hours of the recipient's last message.
    Body(String),
    /// An approved template, for any time.
    Template {
        /// Its id.
        sid: String,
        /// Its variables, a JSON object.
        variables: String,
    },
}

/// Twilio's codes that mean something of their own here.
mod code {
    /// Free text outside the 24-hour window.
    pub(super) const OUTSIDE_WINDOW: u32 = 63016;
    /// WhatsApp's limit for a sender.
    pub(super) const CHANNEL_LIMIT: u32 = 63018;
    /// Too many requests.
    pub(super) const TOO_MANY: u32 = 20429;
}

/// How far back a message is looked for: Twilio's newest come first, and a page of these holds
/// all that was sent while one message was in doubt.
const LOOKED_THROUGH: &str = "200";

/// A client of one account.
#[derive(Clone)]
pub struct Twilio {
    http: Client,
    settings: Settings,
    clock: SharedClock,
}

#[derive(Debug, Deserialize)]
struct MessageJson {
    sid: Option<String>,
    status: Option<String>,
    error_code: Option<u32>,
    body: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ListJson {
    messages: Vec<MessageJson>,
}

#[derive(Debug, Default, Deserialize)]
struct ErrorJson {
    code: Option<u32>,
    message: Option<String>,
}

impl Twilio {
    /// A client for the account of `settings`.
    ///
    /// # Errors
    /// When HTTPS cannot be set up on this machine.
    pub fn new(
        settings: Settings,
        patience: &Patience,
        clock: SharedClock,
    ) -> Result<Self, SettingsError> {
        // Twilio does not redirect; the token must not follow somebody who does.
        let http = client(patience).map_err(SettingsError::Http)?;
        Ok(Self { http, settings, clock })
    }

    /// Who is written to by these settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Hands a message to Twilio.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn send(&self, to: &str, content: &Content) -> Result<Found, Failure> {
        let mut form = vec![("To", to), ("From", self.settings.from.as_str())];
        match content {
            Content::Body(body) => form.push(("Body", body)),
            Content::Template { sid, variables } => {
                form.extend([("ContentSid", sid.as_str()), ("ContentVariables", variables)]);
            }
        }
        let request = self.http.post(self.url("Messages.json", &[])).form(&form);
        let answer = self.ask(request).await?;
        // Taken, whatever the rest of the answer: a body that cannot be read changes nothing.
        match json::<MessageJson>(answer).await {
            Ok(message) => fate(&message),
            Err(_) => Ok(Found { sid: None, arrived: false }),
        }
    }

    /// Looks for a message to `to` with `reference` in its text, sent on `day` (YYYY-MM-DD) or
    /// later. The outer error is that of the looking, the inner one that of the message.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn find(
        &self,
        to: &str,
        reference: &str,
        day: &str,
    ) -> Result<Option<Result<Found, Failure>>, Failure> {
        let query = [
            ("To", to),
            ("From", &self.settings.from),
            // Together with the `=` that follows: on that day or later.
            ("DateSent>", day),
            ("PageSize", LOOKED_THROUGH),
        ];
        let answer = self.ask(self.http.get(self.url("Messages.json", &query))).await?;
        let list: ListJson = json(answer).await.map_err(unreadable)?;
        let is_it = |message: &&MessageJson| {
            message.body.as_ref().is_some_and(|body| body.contains(reference))
        };
        Ok(list.messages.iter().find(is_it).map(fate))
    }

    /// Asks what became of a message. The outer error is that of the asking.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn status(&self, sid: &str) -> Result<Result<Found, Failure>, Failure> {
        let url = self.url(&format!("Messages/{sid}.json"), &[]);
        let answer = self.ask(self.http.get(url)).await?;
        let message: MessageJson = json(answer).await.map_err(unreadable)?;
        Ok(fate(&message))
    }

    fn url(&self, resource: &str, query: &[(&str, &str)]) -> Url {
        let Settings { base_url, account_sid, .. } = &self.settings;
        let text = format!("{base_url}/2010-04-01/Accounts/{account_sid}/{resource}");
        let mut url = Url::parse(&text)
            .unwrap_or_else(|error| unreachable!("the base was checked when it was read: {error}"));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    async fn ask(&self, request: reqwest::RequestBuilder) -> Result<Response, Failure> {
        let Settings { account_sid, auth_token, .. } = &self.settings;
        let request = request.basic_auth(account_sid, Some(auth_token.reveal()));
        let answer = request.send().await.map_err(|error| unsent(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let after = retry_after(answer.headers(), self.clock.wall_ms());
        let ErrorJson { code, message } = json(answer).await.unwrap_or_default();
        let code_text = code.map(|code| format!(", code {code}")).unwrap_or_default();
        let message = message.unwrap_or_default();
        let reason = format!("Twilio answers {}{code_text}: {message}", status.as_u16());
        Err(match status {
            // Whoever stood between Twilio and us gave up waiting.
            StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => {
                Failure::Unknown { reason }
            }
            status if status.is_server_error() => Failure::Passing { reason, after, outage: true },
            StatusCode::TOO_MANY_REQUESTS => Failure::Passing { reason, after, outage: false },
            _ => by_code(code, reason, after),
        })
    }
}

fn by_code(code: Option<u32>, reason: String, after: Option<Duration>) -> Failure {
    match code {
        Some(code::OUTSIDE_WINDOW) => Failure::OutsideWindow { reason },
        Some(code::CHANNEL_LIMIT | code::TOO_MANY) => {
            Failure::Passing { reason, after, outage: false }
        }
        _ => Failure::Permanent { reason },
    }
}

/// What became of a message that Twilio took.
fn fate(message: &MessageJson) -> Result<Found, Failure> {
    let status = message.status.as_deref().unwrap_or_default();
    let failed = matches!(status, "failed" | "undelivered" | "canceled");
    if failed || message.error_code.is_some() {
        let code = message.error_code;
        let shown = code.map_or_else(|| "without a code".to_owned(), |code| format!("code {code}"));
        return Err(by_code(
            code,
            format!("Twilio took the message but says '{status}', {shown}"),
            None,
        ));
    }
    Ok(Found { sid: message.sid.clone(), arrived: matches!(status, "delivered" | "read") })
}

fn unsent(error: &reqwest::Error) -> Failure {
    // The text of an error names the address, and the address the account: leave it out.
    let reason = |what: &str| format!("{what} ({})", source_text(error));
    if let Some(reason) = distrusted("Twilio", &source_text(error)) {
        Failure::Permanent { reason }
    } else if error.is_builder() {
        Failure::Permanent { reason: reason("the request cannot be made") }
    } else if error.is_connect() {
        Failure::Passing { reason: reason("Twilio cannot be reached"), after: None, outage: true }
    } else if error.is_timeout() {
        Failure::Unknown { reason: "Twilio does not answer in time".to_owned() }
    } else {
        Failure::Unknown { reason: reason("the connection to Twilio broke") }
    }
}

fn unreadable(why: String) -> Failure {
    Failure::Unknown { reason: format!("Twilio's answer cannot be read ({why})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_was_taken_may_still_have_failed() {
        let check = |status: &str, error_code: Option<u32>| {
            fate(&MessageJson {
                sid: Some("SM1".to_owned()),
                status: Some(status.to_owned()),
                error_code,
                body: None,
            })
        };
        let sid = Some("SM1".to_owned());
        assert_eq!(check("queued", None), Ok(Found { sid: sid.clone(), arrived: false }));
        assert_eq!(check("read", None), Ok(Found { sid, arrived: true }));
        assert!(matches!(check("failed", Some(63016)), Err(Failure::OutsideWindow { .. })));
        assert!(matches!(check("undelivered", Some(63018)), Err(Failure::Passing { .. })));
        assert!(matches!(check("failed", None), Err(Failure::Permanent { .. })));
    }
}
