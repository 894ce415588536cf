//! What a user can say to the consumer.

use std::path::PathBuf;

use aklight_common::Pattern;

use crate::notify::console::Output;
use crate::notify::whatsapp::TwilioArgs;

/// Follows topics, judges them by rules, and tells people when something is wrong.
#[derive(Debug, Clone, clap::Args)]
pub struct ConsumerArgs {
    /// The brokers, separated by commas; the port is 7000 where none is given
    #[arg(
        long,
        env = "AKLIGHT_BROKERS",
        default_value = "127.0.0.1:7000",
        value_name = "HOST:PORT,…"
    )]
    pub brokers: String,
    /// The name of this consumer: under it offsets and alerts are kept
    #[arg(long, env = "AKLIGHT_ID", default_value = "consumer1", value_name = "NAME")]
    pub id: String,
    /// The topics to follow: '+' stands for one level, '#' for all below; separated by commas
    #[arg(
        long,
        env = "AKLIGHT_PATTERNS",
        default_value = "metrics/docker/#",
        value_delimiter = ',',
        value_name = "PATTERN,…"
    )]
    pub patterns: Vec<Pattern>,
    /// Whether to go on where the last run ended; otherwise begin with what is new, and keep
    /// nothing
    #[arg(
        long,
        env = "AKLIGHT_PERSISTENT",
        default_value_t = true,
        action = clap::ArgAction::Set,
        value_name = "true|false"
    )]
    pub persistent: bool,
    /// The rules; without a file: CPU and memory over 80 percent, disk over 90 percent full.
    /// Read again on SIGHUP; `aklight check-rules FILE` finds mistakes
    #[arg(long, env = "AKLIGHT_RULES", value_parser = maybe_path, value_name = "FILE")]
    pub rules: Option<PathBuf>,
    /// The folder of NAME.offsets (offsets and alerts) and alerts.dead (what could not be told)
    #[arg(long, env = "AKLIGHT_OFFSETS_DIR", default_value = "offsets", value_name = "DIR")]
    pub offsets_dir: PathBuf,
    /// How to print samples and alerts
    #[arg(long, env = "AKLIGHT_OUTPUT", value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Print alerts only, not every sample
    #[arg(long, env = "AKLIGHT_QUIET", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub quiet: bool,
    /// How to reach WhatsApp.
    #[command(flatten)]
    pub twilio: TwilioArgs,
}

/// Sends again what could not be delivered before.
#[derive(Debug, Clone, clap::Args)]
pub struct RetryArgs {
    /// The consumer's folder, where alerts.dead is
    #[arg(long, env = "AKLIGHT_OFFSETS_DIR", default_value = "offsets", value_name = "DIR")]
    pub offsets_dir: PathBuf,
    /// How to reach WhatsApp.
    #[command(flatten)]
    pub twilio: TwilioArgs,
}

/// A path, which compose files may hand on empty; `resolved` drops the empty one.
#[expect(clippy::unnecessary_wraps, reason = "clap's parsers give a Result")]
fn maybe_path(text: &str) -> Result<PathBuf, std::convert::Infallible> {
    Ok(PathBuf::from(text))
}

impl ConsumerArgs {
    /// The rules file, where one is named.
    #[must_use]
    pub fn rules_file(&self) -> Option<&std::path::Path> {
        self.rules.as_deref().filter(|path| !path.as_os_str().is_empty())
    }
}
