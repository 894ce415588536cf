//! What is needed to reach Twilio.

use std::path::PathBuf;

use crate::notify::http::NO_ROOTS;
use crate::notify::secret::{Secret, given, secret};

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
    #[error("cannot set up HTTPS: {NO_ROOTS}")]
    Http(#[source] reqwest::Error),
}

impl TwilioArgs {
    /// The settings, or `None` where none is given.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn resolve(&self) -> Result<Option<Settings>, SettingsError> {
        let file = given(&self.twilio_auth_token_file);
        let token = secret(self.twilio_auth_token.as_ref(), file.as_deref())
            .map_err(|(path, source)| SettingsError::TokenFile { path, source })?;
        let required = [
            ("TWILIO_ACCOUNT_SID", given(&self.twilio_account_sid)),
            ("TWILIO_AUTH_TOKEN", token.map(|secret| secret.reveal().to_owned())),
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
            auth_token: Secret::new(token),
            from: address("TWILIO_FROM_NUMBER", &from)?,
            to: to.split(',').map(|n| address("TWILIO_TO_NUMBER", n)).collect::<Result<_, _>>()?,
            content_sid: given(&self.twilio_content_sid),
            base_url: base_url.trim_end_matches('/').to_owned(),
            per_minute: self.whatsapp_per_minute,
        }))
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
