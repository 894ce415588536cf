//! A webhook: each message is one POST, its body made by a template.
//!
//! Every attempt at one message carries the same `Idempotency-Key`, for the message may be sent
//! twice: when the consumer is killed, or the answer does not come, nobody knows whether it was
//! taken, and a webhook cannot be asked. At least once, therefore, and a receiver who looks at the
//! key sees each message once.
//!
//! 2xx is taken. 408, 429 and 5xx pass (with `Retry-After`, where it is given); every other answer
//! is final, a redirect as well: the message is for nobody but the address that was set.

pub mod template;

use std::path::PathBuf;

use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{StatusCode, Url};

use self::template::{Body, Template, TemplateError};
use super::carrier::{Failure, Found, Letter};
use super::http::{NO_ROOTS, client, distrusted, retry_after, source_text};
use super::secret::{Secret, given, secret};
use super::sender::Patience;
use aklight_common::clock::SharedClock;

/// Most messages a minute: a chat's usual limit is one a second.
const PER_MINUTE: u32 = 60;

/// What a receiver tells repeats by. Source: draft-ietf-httpapi-idempotency-key-header.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The webhook as typed.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Webhook")]
pub struct WebhookArgs {
    /// Where to POST alerts; off where it is not set. Give an address that holds a token by the
    /// environment or a file
    #[arg(long, env = "AKLIGHT_WEBHOOK_URL", value_name = "URL", hide_env_values = true)]
    pub webhook_url: Option<Secret>,
    /// A file that holds the address; counts before the address itself
    #[arg(long, env = "AKLIGHT_WEBHOOK_URL_FILE", value_name = "FILE")]
    pub webhook_url_file: Option<String>,
    /// What to POST: json, slack, discord, ntfy, or a file with a template (Jinja)
    #[arg(long, env = "AKLIGHT_WEBHOOK_TEMPLATE", value_name = "NAME|FILE")]
    pub webhook_template: Option<String>,
}

/// Why the webhook cannot be used as it is set up.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The address's file cannot be read.
    #[error("cannot read the webhook's address from {}", path.display())]
    UrlFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not an address. It is not shown: it may hold a token.
    #[error(
        "the webhook's address is no http:// or https:// address: write AKLIGHT_WEBHOOK_URL=https://host/path"
    )]
    Url,
    /// The template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The HTTP client cannot be made.
    #[error("cannot set up HTTPS: {NO_ROOTS}")]
    Http(#[source] reqwest::Error),
}

impl WebhookArgs {
    /// The webhook, or `None` where none is given.
    ///
    /// # Errors
    /// [`WebhookError`].
    pub fn resolve(
        &self,
        patience: &Patience,
        clock: SharedClock,
    ) -> Result<Option<Webhook>, WebhookError> {
        let file = given(&self.webhook_url_file);
        let url = secret(self.webhook_url.as_ref(), file.as_deref())
            .map_err(|(path, source)| WebhookError::UrlFile { path, source })?;
        let Some(url) = url else { return Ok(None) };
        let url = Url::parse(url.reveal()).map_err(|_| WebhookError::Url)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(WebhookError::Url);
        }
        let template = Template::named(given(&self.webhook_template).as_deref())?;
        let http = client(patience).map_err(WebhookError::Http)?;
        Ok(Some(Webhook { http, url, template, clock }))
    }
}

/// A webhook that can be sent to.
#[derive(Clone)]
pub struct Webhook {
    http: reqwest::Client,
    url: Url,
    template: Template,
    clock: SharedClock,
}

impl Webhook {
    /// Most messages a minute.
    #[must_use]
    pub const fn per_minute(&self) -> u32 {
        PER_MINUTE
    }

    /// Sends a message.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn send(&self, letter: Letter<'_>) -> Result<Found, Failure> {
        let permanent = |reason: String| Failure::Permanent { reason };
        let Body { text, headers } =
            self.template.render(letter).map_err(|error| permanent(error.to_string()))?;
        let key = letter.reference.trim_matches(['[', ']']);
        let key = HeaderValue::from_bytes(key.as_bytes())
            .map_err(|_| permanent("the consumer's id does not fit into a header".to_owned()))?;
        let kind = if text.starts_with(['{', '[']) {
            "application/json"
        } else {
            "text/plain; charset=utf-8"
        };
        let mut request = self.http.post(self.url.clone()).header(CONTENT_TYPE, kind);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let answer = request.header(IDEMPOTENCY_KEY, key).body(text).send().await;
        let answer = answer.map_err(|error| unsent(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(Found { sid: None, arrived: true });
        }
        let after = retry_after(answer.headers(), self.clock.wall_ms());
        let reason = format!("the webhook answers {}", status.as_u16());
        Err(match status {
            StatusCode::TOO_MANY_REQUESTS => Failure::Passing { reason, after, outage: false },
            // Whoever stands in between gave up waiting.
            StatusCode::GATEWAY_TIMEOUT => Failure::Unknown { reason },
            StatusCode::REQUEST_TIMEOUT => Failure::Passing { reason, after, outage: true },
            status if status.is_server_error() => Failure::Passing { reason, after, outage: true },
            status if status.is_redirection() => Failure::Permanent {
                reason: format!(
                    "{reason}, a redirect, which is not followed: set AKLIGHT_WEBHOOK_URL to where it leads"
                ),
            },
            _ => Failure::Permanent { reason },
        })
    }
}

/// The text of an error names the address, and the address may hold a token: it is left out.
fn unsent(error: &reqwest::Error) -> Failure {
    if let Some(reason) = distrusted("the webhook", &source_text(error)) {
        Failure::Permanent { reason }
    } else if error.is_connect() {
        let reason = format!("the webhook cannot be reached ({})", source_text(error));
        Failure::Passing { reason, after: None, outage: true }
    } else if error.is_timeout() {
        Failure::Unknown { reason: "the webhook does not answer in time".to_owned() }
    } else {
        let reason = format!("the connection to the webhook broke ({})", source_text(error));
        Failure::Unknown { reason }
    }
}
