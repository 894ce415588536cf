//! What a producer is told: the flags, their environment variables and what they become.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aklight_common::client::parse_brokers;
use aklight_common::wire::command::check_client_id;
use sysinfo::System;

use crate::spool::SPOOL_BYTES_MIN;

/// Shortest interval: below it the collectors would measure their own cost.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// The settings of `aklight-producer` and `aklight producer`.
#[derive(Debug, Clone, clap::Args)]
pub struct ProducerArgs {
    /// The brokers, with commas between them; the first that answers is used
    #[arg(
        long,
        env = "AKLIGHT_BROKERS",
        value_name = "HOST:PORT,…",
        default_value = "127.0.0.1:7000"
    )]
    pub brokers: String,

    /// What this producer is called in topics: one level of a topic [default: the host's name]
    #[arg(long, env = "AKLIGHT_ID", value_name = "NAME")]
    pub id: Option<String>,

    /// How often to measure, as in 500ms, 1s or 1m
    #[arg(long, env = "AKLIGHT_INTERVAL", value_name = "TIME", default_value = "1s", value_parser = interval)]
    pub interval: Duration,

    /// Where samples are kept while no broker takes them [default: .aklight/spool/NAME]
    #[arg(long, env = "AKLIGHT_SPOOL_DIR", value_name = "DIR")]
    pub spool_dir: Option<PathBuf>,

    /// How many bytes of samples to keep there, at most; the oldest go first
    #[arg(long, env = "AKLIGHT_SPOOL_BYTES", value_name = "BYTES", default_value_t = SPOOL_BYTES_DEFAULT, value_parser = clap::value_parser!(u64).range(SPOOL_BYTES_MIN..))]
    pub spool_bytes: u64,
}

/// A day of four samples a second, at about 190 bytes each.
const SPOOL_BYTES_DEFAULT: u64 = 64 << 20;

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if interval < INTERVAL_MIN {
        return Err("the shortest interval is 100ms".to_owned());
    }
    Ok(interval)
}

/// The settings with every default in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The brokers, each `host:port`.
    pub brokers: Vec<String>,
    /// The producer's name.
    pub id: String,
    /// Microseconds between measurements.
    pub interval_us: u64,
    /// The spool's folder.
    pub spool_dir: PathBuf,
    /// The spool's limit.
    pub spool_bytes: u64,
}

impl ProducerArgs {
    /// Checks what clap could not and puts the defaults in.
    ///
    /// # Errors
    /// All that is wrong, a line each.
    pub fn resolve(self) -> Result<Settings, anyhow::Error> {
        let mut mistakes = Vec::new();
        let brokers = parse_brokers(&self.brokers).unwrap_or_else(|error| {
            mistakes.push(format!("--brokers: {error}"));
            Vec::new()
        });
        let id = self.id.or_else(|| System::host_name().ok()).unwrap_or_default();
        if let Err(rule) = check_client_id(id.as_bytes()) {
            mistakes.push(format!("--id '{id}': {rule}"));
        }
        if !mistakes.is_empty() {
            anyhow::bail!("{}", mistakes.join("\n"));
        }
        let spool_dir =
            self.spool_dir.unwrap_or_else(|| Path::new(".aklight").join("spool").join(&id));
        let interval_us = u64::try_from(self.interval.as_micros()).unwrap_or(u64::MAX);
        Ok(Settings { brokers, id, interval_us, spool_dir, spool_bytes: self.spool_bytes })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Typed {
        #[command(flatten)]
        args: ProducerArgs,
    }

    fn typed(flags: &[&str]) -> Result<Settings, String> {
        let flags = std::iter::once(&"producer").chain(flags);
        let typed = Typed::try_parse_from(flags).map_err(|error| error.to_string())?;
        typed.args.resolve().map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_put_in() {
        let settings = typed(&["--id", "web"]).expect("settings");
        assert_eq!(settings.brokers, ["127.0.0.1:7000"]);
        assert_eq!(settings.interval_us, 1_000_000);
        assert_eq!(settings.spool_dir, Path::new(".aklight/spool/web"));
        assert_eq!(settings.spool_bytes, 64 << 20);
        assert_eq!(typed(&[]).expect("settings").id, System::host_name().expect("a name"));
    }

    #[test]
    fn all_mistakes_come_at_once() {
        let error = typed(&["--id", "a/b", "--brokers", "x:y"]).expect_err("mistakes");
        assert!(error.contains("--id 'a/b'") && error.contains("'x:y'"), "{error}");
    }

    #[test]
    fn what_is_too_small_is_refused() {
        assert!(typed(&["--interval", "1ms"]).expect_err("short").contains("100ms"));
        assert!(typed(&["--interval", "soon"]).is_err());
        assert!(typed(&["--spool-bytes", "1"]).is_err());
    }
}
