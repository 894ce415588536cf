//! What a user can say to the consumer.

use std::path::PathBuf;
use std::time::Duration;

use aklight_common::Pattern;

use crate::notify::ChannelArgs;
use crate::notify::console::Output;

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
    /// The topics to follow: '+' stands for one level, '#' for all below; separated by commas.
    /// Without info/docker/# containers' labels are no rules, without events/docker/# alerts do not
    /// say how a container ended, without actions/alerts nothing is acknowledged or muted
    #[arg(
        long,
        env = "AKLIGHT_PATTERNS",
        default_value = "metrics/docker/#,info/docker/#,events/docker/#,actions/alerts",
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
    /// The rules; without a file, those of config/rules.toml: machines and containers near their
    /// limits, containers that fail, are unhealthy or restart, producers that fall silent. Read
    /// again on SIGHUP; `aklight rules check FILE` finds mistakes
    #[arg(long, env = "AKLIGHT_RULES", value_parser = maybe_path, value_name = "FILE")]
    pub rules: Option<PathBuf>,
    /// The folder of NAME.offsets (offsets and alerts) and alerts.dead (what could not be told)
    #[arg(long, env = "AKLIGHT_OFFSETS_DIR", default_value = "offsets", value_name = "DIR")]
    pub offsets_dir: PathBuf,
    /// How to print samples and alerts
    #[arg(long, env = "AKLIGHT_OUTPUT", value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// How long an alert waits for others, to be told in one message with them
    #[arg(long, env = "AKLIGHT_GROUP_WAIT", default_value = "5s", value_parser = group_wait, value_name = "DURATION")]
    pub group_wait: Duration,
    /// Print alerts only, not every sample
    #[arg(long, env = "AKLIGHT_QUIET", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub quiet: bool,
    /// How to reach people.
    #[command(flatten)]
    pub channels: ChannelArgs,
}

/// Sends again what could not be delivered before.
#[derive(Debug, Clone, clap::Args)]
pub struct RetryArgs {
    /// The consumer's folder, where alerts.dead is
    #[arg(long, env = "AKLIGHT_OFFSETS_DIR", default_value = "offsets", value_name = "DIR")]
    pub offsets_dir: PathBuf,
    /// How to reach people.
    #[command(flatten)]
    pub channels: ChannelArgs,
}

/// The longest that alerts wait for each other: who waits longer is told too late.
const GROUP_WAIT_MAX: Duration = Duration::from_secs(300);

fn group_wait(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(wait) if wait <= GROUP_WAIT_MAX => Ok(wait),
        Ok(_) => Err(format!("at most {}", humantime::format_duration(GROUP_WAIT_MAX))),
        Err(error) => Err(format!("{error}: write 5s or 1m")),
    }
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
