//! E-mail: each message is a mail to each recipient, handed to a mail server by SMTP. One mail to
//! all would be refused for all where the server refuses one of them.
//!
//! The address says how the line is protected: `smtps://` is TLS from the beginning, `smtp://`
//! with `?tls=required` is STARTTLS (with `opportunistic`, where the server has it), `smtp://`
//! alone is none. The certificate must be signed by an authority that the machine trusts, or one in
//! the file that `SSL_CERT_FILE` names. Every attempt at one mail carries the same `Message-ID`, for a server that took
//! a mail and whose answer was lost is given it again: at least once, and mail programs show the
//! copies of one Message-ID as one.
//!
//! A mail that the server took is sent, not delivered: what the next server does with it, nobody
//! tells.

use std::path::PathBuf;
use std::time::Duration;

use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

use super::carrier::{Failure, Found, Letter};
use super::http::{NO_ROOTS, distrusted};
use super::message::{line, title};
use super::secret::{Secret, given, secret};
use super::sender::Patience;
use crate::alerts::Destination;

/// Why a mail cannot be written.
type MailError = Box<dyn std::error::Error + Send + Sync>;

/// Most mails a minute to each recipient: more is read by nobody, and looks like spam to servers.
const PER_MINUTE: u32 = 20;

/// How many times as long as another carrier a mail server may take, from the connection to its
/// word on the mail: many look for spam and viruses first, and a mail that was taken but not in
/// time would be sent again.
const SLOWER: u32 = 6;

/// E-mail as typed.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "E-mail")]
pub struct EmailArgs {
    /// The mail server: smtps://user:password@host (TLS), smtp://…?tls=required (STARTTLS), or
    /// smtp://host (neither); off where this and the addresses are not set
    #[arg(long, env = "AKLIGHT_SMTP_URL", value_name = "URL", hide_env_values = true)]
    pub smtp_url: Option<Secret>,
    /// A file that holds the server's address; counts before the address itself
    #[arg(long, env = "AKLIGHT_SMTP_URL_FILE", value_name = "FILE")]
    pub smtp_url_file: Option<String>,
    /// The sender
    #[arg(long, env = "AKLIGHT_SMTP_FROM", value_name = "ADDRESS")]
    pub smtp_from: Option<String>,
    /// The recipients, separated by commas
    #[arg(long, env = "AKLIGHT_SMTP_TO", value_name = "ADDRESS,…")]
    pub smtp_to: Option<String>,
}

/// Why e-mail cannot be used as it is set up.
#[derive(Debug, thiserror::Error)]
pub enum EmailError {
    /// Some are set and others are not.
    #[error(
        "e-mail is set up in part only, {0} missing: set it, or none of the AKLIGHT_SMTP_ variables"
    )]
    Missing(String),
    /// The address's file cannot be read.
    #[error("cannot read the mail server's address from {}", path.display())]
    UrlFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not a server's address. It is not shown: it holds a password.
    #[error(
        "AKLIGHT_SMTP_URL is no mail server's address: write smtps://user:password@host, smtp://user:password@host?tls=required, or smtp://host"
    )]
    Url(#[source] lettre::transport::smtp::Error),
    /// Nothing to check a certificate by.
    #[error("cannot set up TLS for the mail server: {NO_ROOTS}")]
    Tls(#[source] lettre::transport::smtp::Error),
    /// Not a mail address.
    #[error("{variable} holds '{given}', which is no mail address: write alerts@example.org")]
    Address {
        /// Which variable.
        variable: &'static str,
        /// What it holds.
        given: String,
    },
}

impl EmailArgs {
    /// The way to the mail server, or `None` where none is given.
    ///
    /// # Errors
    /// [`EmailError`].
    pub fn resolve(&self, patience: &Patience) -> Result<Option<Email>, EmailError> {
        let file = given(&self.smtp_url_file);
        let url = secret(self.smtp_url.as_ref(), file.as_deref())
            .map_err(|(path, source)| EmailError::UrlFile { path, source })?;
        let required = [
            ("AKLIGHT_SMTP_URL", url.map(|url| url.reveal().to_owned())),
            ("AKLIGHT_SMTP_FROM", given(&self.smtp_from)),
            ("AKLIGHT_SMTP_TO", given(&self.smtp_to)),
        ];
        let missing: Vec<_> =
            required.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| *name).collect();
        if missing.len() == required.len() {
            return Ok(None);
        }
        let [Some(url), Some(from), Some(to)] = required.map(|(_, value)| value) else {
            return Err(EmailError::Missing(missing.join(" and ")));
        };
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(&url)
            .map_err(|error| match error.is_tls() {
                true => EmailError::Tls(error),
                false => EmailError::Url(error),
            })?
            .timeout(Some(patience.connect_timeout))
            .build();
        let from = address("AKLIGHT_SMTP_FROM", &from)?;
        let mut recipients = Vec::new();
        for to in to.split(',') {
            let to = address("AKLIGHT_SMTP_TO", to)?;
            if !recipients.contains(&to) {
                recipients.push(to);
            }
        }
        let patience = patience.request_timeout * SLOWER;
        Ok(Some(Email { transport, from, recipients, patience }))
    }
}

fn address(variable: &'static str, text: &str) -> Result<Mailbox, EmailError> {
    let given = text.trim();
    given.parse().map_err(|_| EmailError::Address { variable, given: given.to_owned() })
}

/// A mail server and who writes to whom.
#[derive(Clone)]
pub struct Email {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    recipients: Vec<Mailbox>,
    patience: Duration,
}

impl Email {
    /// Most mails a minute.
    #[must_use]
    pub fn per_minute(&self) -> u32 {
        let recipients = u32::try_from(self.recipients.len()).unwrap_or(u32::MAX);
        PER_MINUTE.saturating_mul(recipients)
    }

    /// To whom it writes.
    #[must_use]
    pub fn recipients(&self) -> &[Mailbox] {
        &self.recipients
    }

    /// Sends a mail.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn send(&self, letter: Letter<'_>) -> Result<Found, Failure> {
        let mail = self.mail(letter).map_err(|error| Failure::Permanent {
            reason: format!("the mail cannot be made: {error}"),
        })?;
        // The transport's own timeout is for the connection only.
        match tokio::time::timeout(self.patience, self.transport.send(mail)).await {
            Ok(Ok(_)) => Ok(Found { sid: None, arrived: false }),
            Ok(Err(error)) => Err(unsent(&error)),
            Err(_) => Err(too_slow()),
        }
    }

    fn mail(&self, letter: Letter<'_>) -> Result<Message, MailError> {
        let Destination::Email { to } = &letter.notice.destination else {
            return Err("this notice is for no mail address".into());
        };
        let lines: Vec<_> = letter.notice.alerts().map(line).collect();
        let body = format!("{}\r\n\r\n{}\r\n", lines.join("\r\n"), letter.reference);
        let mail = Message::builder()
            .from(self.from.clone())
            .to(to.parse()?)
            .subject(title(letter.notice))
            .message_id(Some(message_id(letter.reference)))
            .header(ContentType::TEXT_PLAIN);
        Ok(mail.body(body)?)
    }
}

/// `<c1-7-2026-11-21T02-52-12Z@aklight>`: of a reference, what may stand in a Message-ID.
fn message_id(reference: &str) -> String {
    let id: String = reference
        .trim_matches(['[', ']'])
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_') { c } else { '-' })
        .collect();
    format!("<{id}@aklight>")
}

fn too_slow() -> Failure {
    Failure::Unknown { reason: "the mail server does not answer in time".to_owned() }
}

fn unsent(error: &lettre::transport::smtp::Error) -> Failure {
    let source = std::error::Error::source(error);
    let cause = source.map_or_else(|| error.to_string(), ToString::to_string);
    let cause = error.status().map_or(cause.clone(), |code| format!("{code} {cause}"));
    if let Some(reason) = distrusted("the mail server", &cause) {
        Failure::Permanent { reason }
    } else if error.is_client() {
        // It cannot do what the settings ask for.
        Failure::Permanent { reason: format!("the mail server cannot be used: {cause}") }
    } else if error.is_permanent() {
        Failure::Permanent { reason: format!("the mail server refuses: {cause}") }
    } else if error.is_transient() {
        let reason = format!("the mail server asks for patience: {cause}");
        Failure::Passing { reason, after: None, outage: false }
    } else if error.is_timeout() {
        too_slow()
    } else {
        let reason = format!("no mail server ({cause})");
        Failure::Passing { reason, after: None, outage: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(url: &str, from: &str, to: &str) -> EmailArgs {
        EmailArgs {
            smtp_url: url.parse().ok(),
            smtp_from: Some(from.to_owned()),
            smtp_to: Some(to.to_owned()),
            smtp_url_file: None,
        }
    }

    #[tokio::test]
    async fn nothing_set_is_off_and_a_part_is_a_mistake() {
        let resolve = |args: EmailArgs| args.resolve(&Patience::default());
        assert!(resolve(args("", "", "")).expect("off").is_none());
        let part = resolve(args("smtp://localhost", "", "a@b.c")).err().expect("a part");
        assert!(part.to_string().contains("AKLIGHT_SMTP_FROM missing"), "{part}");
        let url = resolve(args("http://u:geheim@h", "a@b.c", "a@b.c")).err().expect("no server");
        assert!(!url.to_string().contains("geheim"), "{url}");
        let address = resolve(args("smtp://h", "a@b.c", "a@b.c, nobody")).err().expect("nobody");
        assert!(address.to_string().contains("'nobody'"), "{address}");
        for url in [
            "smtps://u:p@h",
            "smtp://u:p@h?tls=required",
            "smtp://h?tls=opportunistic",
            "smtp://h:2525",
        ] {
            assert!(resolve(args(url, "A <a@b.c>", "a@b.c,d@e.f")).expect(url).is_some());
        }
    }

    #[test]
    fn a_message_id_holds_the_reference() {
        assert_eq!(
            message_id("[c 1-7 2026-11-21T02:52:12Z]"),
            "<c-1-7-2026-11-21T02-52-12Z@aklight>"
        );
    }
}
