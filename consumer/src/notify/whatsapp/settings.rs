//! What is needed to reach Twilio, and how patient to be with it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Twilio as typed on the command line or in the environment. Empty values count as absent:
/// compose files hand on variables that nobody has set.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "WhatsApp, by Twilio")]
pub struct TwilioArgs {
    /// The account; WhatsApp is off where this, the token and the numbers are not set
    #[arg(long, env = "TWILIO_ACCOUNT_SID", hide_env_values = true, value_name = "AC…")]
    pub twilio_account_sid: Option<String>,
    /// The account's token. Give it by the environment or a file: a command line is seen by all
    #[arg(long, env = "TWILIO_AUTH_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub twilio_auth_token: Option<Secret>,
    /// A file that holds the token; counts before the token itself
    #[arg(long, env = "TWILIO_AUTH_TOKEN_FILE", value_name = "FILE")]
    pub twilio_auth_token_file: Option<String>,
    /// The number to send from
    #[arg(long, env = "TWILIO_FROM_NUMBER", hide_env_values = true, value_name = "+NUMBER")]
    pub twilio_from_number: Option<String>,
    /// The numbers to send to, separated by commas
    #[arg(long, env = "TWILIO_TO_NUMBER", hide_env_values = true, value_name = "+NUMBER,…")]
    pub twilio_to_number: Option<String>,
    /// The approved template to use outside WhatsApp's 24-hour window. Its variables: 1 FIRING or
    /// RESOLVED, 2 rule, 3 severity, 4 what happened, 5 reference
    #[arg(long, env = "TWILIO_CONTENT_SID", value_name = "HX…")]
    pub twilio_content_sid: Option<String>,
    /// Where Twilio is, when not at api.twilio.com; for tests against a server of one's own
    #[arg(long, env = "TWILIO_BASE_URL", value_name = "URL")]
    pub twilio_base_url: Option<String>,
    /// Most messages a minute
    // The sandbox takes one in three seconds; a person reads fewer.
    #[arg(long, env = "AKLIGHT_WHATSAPP_PER_MINUTE", default_value_t = PER_MINUTE_DEFAULT, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4800))]
    pub whatsapp_per_minute: u32,
}

/// One message in three seconds: what Twilio's WhatsApp sandbox takes.
const PER_MINUTE_DEFAULT: u32 = 20;

const BASE_URL_DEFAULT: &str = "https://api.twilio.com";

/// A text that is never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, to be sent and nothing else.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Twilio, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The account.
    pub account_sid: String,
    /// Its token.
    pub auth_token: Secret,
    /// The sender, as `whatsapp:+…`.
    pub from: String,
    /// The recipients, as `whatsapp:+…`.
    pub to: Vec<String>,
    /// The template for outside the 24-hour window.
    pub content_sid: Option<String>,
    /// Where Twilio is, without a slash at the end.
    pub base_url: String,
    /// Most messages a minute.
    pub per_minute: u32,
}

/// Why WhatsApp cannot be used as it is set up.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Some are set and others are not.
    #[error(
        "WhatsApp is set up in part only, {0} missing: set it, or none of the TWILIO_ variables"
    )]
    Missing(String),
    /// Not a telephone number.
    #[error("{variable} holds '{masked}', which is no telephone number: write +34600000000")]
    Number {
        /// Which variable.
        variable: &'static str,
        /// What it holds.
        masked: String,
    },
    /// The token's file cannot be read.
    #[error("cannot read the Twilio token from {}", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not a URL.
    #[error("TWILIO_BASE_URL is '{0}', which is no http:// or https:// address")]
    Url(String),
    /// The HTTP client cannot be made.
    #[error("cannot set up HTTPS: are the system's root certificates installed (ca-certificates)?")]
    Http(#[source] reqwest::Error),
}

impl TwilioArgs {
    /// The settings, or `None` where none is given.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn resolve(&self) -> Result<Option<Settings>, SettingsError> {
        let given = |value: &Option<String>| value.clone().filter(|text| !text.trim().is_empty());
        let token = self.token()?;
        let required = [
            ("TWILIO_ACCOUNT_SID", given(&self.twilio_account_sid)),
            ("TWILIO_AUTH_TOKEN", token.map(|secret| secret.0)),
            ("TWILIO_FROM_NUMBER", given(&self.twilio_from_number)),
            ("TWILIO_TO_NUMBER", given(&self.twilio_to_number)),
        ];
        let missing: Vec<_> =
            required.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| *name).collect();
        if missing.len() == required.len() {
            return Ok(None);
        }
        let [Some(account_sid), Some(token), Some(from), Some(to)] = required.map(|(_, v)| v)
        else {
            return Err(SettingsError::Missing(missing.join(" and ")));
        };
        let base_url = given(&self.twilio_base_url).unwrap_or_else(|| BASE_URL_DEFAULT.to_owned());
        let url = reqwest::Url::parse(&base_url).ok();
        if !url.is_some_and(|url| matches!(url.scheme(), "http" | "https")) {
            return Err(SettingsError::Url(base_url));
        }
        Ok(Some(Settings {
            account_sid,
            auth_token: Secret(token),
            from: address("TWILIO_FROM_NUMBER", &from)?,
            to: to.split(',').map(|n| address("TWILIO_TO_NUMBER", n)).collect::<Result<_, _>>()?,
            content_sid: given(&self.twilio_content_sid),
            base_url: base_url.trim_end_matches('/').to_owned(),
            per_minute: self.whatsapp_per_minute,
        }))
    }

    fn token(&self) -> Result<Option<Secret>, SettingsError> {
        let token = match self.twilio_auth_token_file.as_deref().filter(|path| !path.is_empty()) {
            Some(path) => {
                let unreadable = |source| SettingsError::TokenFile { path: path.into(), source };
                Some(Secret(crate::load::load_secret(path.as_ref()).map_err(unreadable)?))
            }
            None => self.twilio_auth_token.clone(),
        };
        Ok(token.filter(|secret| !secret.0.is_empty()))
    }
}

/// A number as Twilio's WhatsApp addresses are written. Numbers have 7 to 15 digits (E.164).
fn address(variable: &'static str, text: &str) -> Result<String, SettingsError> {
    let number = text.trim();
    let number = number.strip_prefix("whatsapp:").unwrap_or(number);
    let digits = number.strip_prefix('+').unwrap_or_default();
    if !(7..=15).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(SettingsError::Number { variable, masked: masked(number) });
    }
    Ok(format!("whatsapp:{number}"))
}

/// An address as logs may show it: `whatsapp:+34******89`.
#[must_use]
pub fn masked(address: &str) -> String {
    const SHOWN_AT_END: usize = 2;
    let (channel, number) = match address.rsplit_once(':') {
        Some((channel, number)) => (format!("{channel}:"), number),
        None => (String::new(), address),
    };
    // The plus and the country's code.
    const SHOWN_AT_START: usize = 3;
    let length = number.chars().count();
    let hide = |(n, c): (usize, char)| {
        let shown = n < SHOWN_AT_START || n + SHOWN_AT_END >= length;
        if shown && length > SHOWN_AT_START + SHOWN_AT_END { c } else { '*' }
    };
    channel + &number.chars().enumerate().map(hide).collect::<String>()
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn args(sid: &str, token: &str, from: &str, to: &str) -> TwilioArgs {
        TwilioArgs {
            twilio_account_sid: Some(sid.to_owned()),
            twilio_auth_token: token.parse().ok(),
            twilio_from_number: Some(from.to_owned()),
            twilio_to_number: Some(to.to_owned()),
            whatsapp_per_minute: 20,
            ..TwilioArgs::default()
        }
    }

    #[test]
    fn several_recipients_and_a_token_that_is_never_shown() {
        let settings = args("AC1", "geheim", "+14155238886", "+34600000001, whatsapp:+34600000002")
            .resolve()
            .expect("right")
            .expect("set");
        assert_eq!(settings.from, "whatsapp:+14155238886");
        assert_eq!(settings.to, ["whatsapp:+34600000001", "whatsapp:+34600000002"]);
        assert!(!format!("{settings:?}").contains("geheim"));
    }

    #[test]
    fn nothing_set_is_off_and_a_part_is_a_mistake() {
        assert!(args("", "", "", "").resolve().expect("off").is_none());
        let error = args("AC1", "", "+14155238886", "").resolve().expect_err("a part");
        assert!(error.to_string().contains("TWILIO_AUTH_TOKEN and TWILIO_TO_NUMBER"), "{error}");
        let error = args("AC1", "t", "+14155238886", "600000001").resolve().expect_err("no +");
        assert!(error.to_string().contains("TWILIO_TO_NUMBER"), "{error}");
        assert!(!error.to_string().contains("600000001"), "{error}");
    }

    #[test]
    fn a_token_file_counts_before_the_token() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        std::fs::write(&path, "from-file\n").expect("written");
        let mut args = args("AC1", "typed", "+14155238886", "+34600000001");
        args.twilio_auth_token_file = Some(path.display().to_string());
        let settings = args.resolve().expect("right").expect("set");
        assert_eq!(settings.auth_token.reveal(), "from-file");
        std::fs::write(&path, "\n").expect("written");
        assert!(
            args.resolve().expect_err("empty").to_string().contains("TWILIO_AUTH_TOKEN missing")
        );
        args.twilio_auth_token_file = Some("/nowhere".to_owned());
        assert!(args.resolve().expect_err("no file").to_string().contains("/nowhere"));
    }

    #[test]
    fn numbers_are_masked() {
        assert_eq!(masked("whatsapp:+34600000089"), "whatsapp:+34*******89");
        assert_eq!(masked("+123"), "****");
    }
}
