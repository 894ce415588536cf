//! What a producer is told: the flags, their environment variables and what they become.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aklight_common::client::{BrokersError, parse_brokers};
use aklight_common::wire::command::check_client_id;
use anyhow::Context;
use sysinfo::System;

use crate::docker::Watch;
use crate::docker::engine::Said;
use crate::docker::filter::{Filter, Pattern};
use crate::readings::Root;
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
        default_value = "127.0.0.1:7000",
        value_parser = brokers
    )]
    pub brokers: Brokers,

    /// What this producer is called in topics: one level of a topic [default: the host's name]
    #[arg(long, env = "AKLIGHT_ID", value_name = "NAME", value_parser = id)]
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

    /// Whether to watch the containers of a Docker or Podman engine: auto is where there is one
    #[arg(long, env = "AKLIGHT_DOCKER", value_name = "WHEN", default_value = "auto")]
    pub docker: WatchWhen,

    /// Where the engine is: unix:///PATH or tcp://HOST:PORT [default: the first usual socket]
    #[arg(long, env = "DOCKER_HOST", value_name = "URL")]
    pub docker_host: Option<Said>,

    /// Watch only containers that fit: web-*, image=nginx*, label=KEY[=VALUE]; may be repeated
    #[arg(long, env = "AKLIGHT_INCLUDE", value_name = "PATTERN", value_delimiter = ',')]
    pub include: Vec<Pattern>,

    /// Do not watch containers that fit; may be repeated
    #[arg(long, env = "AKLIGHT_EXCLUDE", value_name = "PATTERN", value_delimiter = ',')]
    pub exclude: Vec<Pattern>,

    /// Where the host's /proc and /sys/fs/cgroup are mounted, for a producer in a container
    #[arg(long, env = "AKLIGHT_HOST_ROOT", value_name = "DIR", default_value = "/")]
    pub host_root: PathBuf,
}

/// Whether to watch containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum WatchWhen {
    /// Where an engine is found, now or later.
    Auto,
    /// Never.
    Off,
}

/// A day of a producer's own four samples a second, at about 190 bytes each; with fifty containers
/// ten minutes.
const SPOOL_BYTES_DEFAULT: u64 = 64 << 20;

/// A list of brokers, as one value of one flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brokers(pub Vec<String>);

fn brokers(list: &str) -> Result<Brokers, BrokersError> {
    parse_brokers(list).map(Brokers)
}

fn id(text: &str) -> Result<String, String> {
    check_client_id(text.as_bytes()).map(str::to_owned)
}

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
    /// Which containers to watch, if any.
    pub docker: Option<Watch>,
}

impl ProducerArgs {
    /// Puts the defaults in.
    ///
    /// # Errors
    /// When no id is given and the host's name cannot be one.
    pub fn resolve(self) -> Result<Settings, anyhow::Error> {
        let id = match self.id {
            Some(id) => id,
            None => System::host_name()
                .map_err(anyhow::Error::from)
                .and_then(|name| id(&name).map_err(anyhow::Error::msg))
                .context("the host's name cannot be the producer's: give it one with --id")?,
        };
        let spool_dir =
            self.spool_dir.unwrap_or_else(|| Path::new(".aklight").join("spool").join(&id));
        let interval_us = u64::try_from(self.interval.as_micros()).unwrap_or(u64::MAX);
        let Brokers(brokers) = self.brokers;
        let docker = (self.docker == WatchWhen::Auto).then(|| Watch {
            producer: id.clone(),
            address: self.docker_host.and_then(|Said(address)| address),
            filter: Filter { include: self.include, exclude: self.exclude },
            host: Root::at(&self.host_root),
        });
        let spool_bytes = self.spool_bytes;
        Ok(Settings { brokers, id, interval_us, spool_dir, spool_bytes, docker })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::docker::engine::Address;

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
    fn what_is_no_name_or_no_broker_is_refused() {
        let error = typed(&["--id", "a/b"]).expect_err("no id");
        assert!(error.contains("a/b") && error.contains("one topic level"), "{error}");
        let error = typed(&["--brokers", "ok:7000,x:y"]).expect_err("no broker");
        assert!(error.contains("'x:y' is no broker"), "{error}");
    }

    #[test]
    fn containers_are_chosen_by_flags() {
        let watch = typed(&["--id", "web"]).expect("settings").docker.expect("a watch");
        assert_eq!((watch.producer.as_str(), watch.address), ("web", None));
        assert_eq!((watch.filter, watch.host), (Filter::default(), Root::system()));
        assert_eq!(typed(&["--docker=off"]).expect("settings").docker, None);
        let flags = ["--docker-host=tcp://proxy:2375", "--include=a,image=b", "--include=label=c"];
        let watch = typed(&flags).expect("settings").docker.expect("a watch");
        assert_eq!(watch.address, Some(Address::Tcp("proxy:2375".to_owned())));
        assert_eq!(watch.filter.include.len(), 3);
        let error = typed(&["--exclude=colour=red"]).expect_err("no pattern");
        assert!(error.contains("name=…, image=… or label="), "{error}");
    }

    #[test]
    fn what_is_too_small_is_refused() {
        assert!(typed(&["--interval", "1ms"]).expect_err("short").contains("100ms"));
        assert!(typed(&["--interval", "soon"]).is_err());
        assert!(typed(&["--spool-bytes", "1"]).is_err());
    }
}
