//! Those who carry messages away: Twilio, a webhook, a mail server. One face for the sender.
//!
//! What an answer means is decided by each carrier and nowhere else: it is a [`Found`] or a
//! [`Failure`]. Only Twilio can be asked whether it has a message and what became of it. The
//! others may be sent a message again that they had already, when nobody knows whether they took
//! it: each message carries its reference (`Idempotency-Key`, `Message-ID`), the same in every
//! attempt, so that the receiver can tell.

use std::time::Duration;

use super::email::Email;
use super::message;
use super::webhook::Webhook;
use super::whatsapp::{Content, Twilio};
use crate::alerts::{Destination, Notice};
use crate::rules::Channel;

/// A message that a carrier has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What the carrier calls it; `None` where it does not say, or cannot be asked by it.
    pub sid: Option<String>,
    /// Whether it is known to have arrived.
    pub arrived: bool,
}

/// Why a message is not with its recipient.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It was not taken, but may be later.
    #[error("{reason}")]
    Passing {
        /// Why.
        reason: String,
        /// How long the carrier asks to wait.
        after: Option<Duration>,
        /// Whether the carrier itself is in trouble, rather than asking for patience.
        outage: bool,
    },
    /// It may have been taken or not.
    #[error("{reason}")]
    Unknown {
        /// Why nobody knows.
        reason: String,
    },
    /// The recipient has not written for 24 hours: only a template passes.
    #[error("{reason}")]
    OutsideWindow {
        /// In Twilio's words.
        reason: String,
    },
    /// It will never be taken.
    #[error("{reason}")]
    Permanent {
        /// Why.
        reason: String,
    },
}

/// A message, ready to go.
#[derive(Debug, Clone, Copy)]
pub struct Letter<'a> {
    /// What is to be told to whom.
    pub notice: &'a Notice,
    /// Who tells it.
    pub consumer: &'a str,
    /// What tells it from every other message.
    pub reference: &'a str,
}

/// A way for messages.
#[derive(Clone)]
pub enum Carrier {
    /// WhatsApp.
    Twilio(Twilio),
    /// An HTTP POST.
    Webhook(Webhook),
    /// E-mail.
    Email(Email),
}

impl Carrier {
    /// The channel that it serves.
    #[must_use]
    pub const fn channel(&self) -> Channel {
        match self {
            Self::Twilio(_) => Channel::WhatsApp,
            Self::Webhook(_) => Channel::Webhook,
            Self::Email(_) => Channel::Email,
        }
    }

    /// Who it is, for logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Twilio(_) => "Twilio",
            Self::Webhook(_) => "the webhook",
            Self::Email(_) => "the mail server",
        }
    }

    /// To whom it carries: one message each.
    #[must_use]
    pub fn destinations(&self) -> Vec<Destination> {
        match self {
            Self::Twilio(twilio) => {
                let to = twilio.settings().to.iter();
                to.map(|to| Destination::WhatsApp { to: to.clone() }).collect()
            }
            Self::Webhook(_) => vec![Destination::Webhook],
            Self::Email(email) => {
                let to = email.recipients().iter();
                to.map(|to| Destination::Email { to: to.to_string() }).collect()
            }
        }
    }

    /// Most messages a minute.
    #[must_use]
    pub fn per_minute(&self) -> u32 {
        match self {
            Self::Twilio(twilio) => twilio.settings().per_minute,
            Self::Webhook(webhook) => webhook.per_minute(),
            Self::Email(email) => email.per_minute(),
        }
    }

    /// Whether it can be asked for a message that it may have.
    #[must_use]
    pub const fn looks_up(&self) -> bool {
        matches!(self, Self::Twilio(_))
    }

    /// Whether there is another form for a recipient who is outside the window.
    #[must_use]
    pub fn has_template(&self) -> bool {
        matches!(self, Self::Twilio(twilio) if twilio.settings().content_sid.is_some())
    }

    /// Hands a message on; as a template where that is wanted.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn send(&self, letter: Letter<'_>, template: bool) -> Result<Found, Failure> {
        match self {
            Self::Twilio(twilio) => {
                let to = recipient(letter.notice)?;
                let template = twilio.settings().content_sid.clone().filter(|_| template);
                let content = match template {
                    Some(sid) => {
                        let variables = message::variables(letter.notice, letter.reference);
                        Content::Template { sid, variables }
                    }
                    None => Content::Body(message::body(letter.notice, letter.reference)),
                };
                twilio.send(to, &content).await
            }
            Self::Webhook(webhook) => webhook.send(letter).await,
            Self::Email(email) => email.send(letter).await,
        }
    }

    /// Looks for a message that was perhaps taken. The outer error is that of the looking, the
    /// inner one that of the message.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn find(
        &self,
        letter: Letter<'_>,
    ) -> Result<Option<Result<Found, Failure>>, Failure> {
        let Self::Twilio(twilio) = self else { return Ok(None) };
        let sent_at = message::moment(letter.notice.alert.at_ms);
        let day = sent_at.split('T').next().unwrap_or_default();
        twilio.find(recipient(letter.notice)?, letter.reference, day).await
    }

    /// Asks what became of a message that was taken. The outer error is that of the asking.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn status(&self, sid: &str) -> Result<Result<Found, Failure>, Failure> {
        match self {
            Self::Twilio(twilio) => twilio.status(sid).await,
            _ => Ok(Ok(Found { sid: None, arrived: false })),
        }
    }
}

fn recipient(notice: &Notice) -> Result<&str, Failure> {
    match &notice.destination {
        Destination::WhatsApp { to } => Ok(to),
        _ => Err(Failure::Permanent { reason: "this notice is for no telephone".to_owned() }),
    }
}
