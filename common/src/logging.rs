//! Logs: one line an event, on stderr, the same from every process of AKLight.
//!
//! A line is the moment (RFC 3339, UTC), the level, the module that speaks, the text and then
//! `key=value`; with `--log-format json` it is one JSON object with the same parts. A level such
//! as `debug` concerns AKLight's own modules; what our libraries say is shown from `warn` on,
//! because a consensus library at `info` drowns everything else. Whoever wants another mixture
//! writes directives: `--log-level info,openraft=debug`.
//!
//! Which level counts: `--log-level` (or its variable, or the configuration file), else
//! `RUST_LOG`, else `info` for what serves and `warn` for what answers a question.
//!
//! Invariant: [`LogArgs::init`] starts no thread, since the producer forks after it. Left out:
//! log files and their rotation, which service managers and container engines do better.

use std::fmt;
use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{Directive, LevelFilter};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use crate::clock::{Clock, SystemClock};
use crate::settings;

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// For people: one plain line.
    #[default]
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// The flags about logs, the same for every command: flatten them into a command's own. They are
/// global: given once at the root, every subcommand takes them.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct LogArgs {
    /// How much to log: off, error, warn, info, debug, trace, or directives such as
    /// info,openraft=debug [default: RUST_LOG, else info, or warn for a client]
    #[arg(long, value_name = "LEVEL", env = "AKLIGHT_LOG_LEVEL", value_parser = check_level,
          global = true, help_heading = "Common options")]
    pub log_level: Option<String>,
    /// How a log line looks
    #[arg(long, value_name = "FORMAT", env = "AKLIGHT_LOG_FORMAT", value_enum,
          default_value_t = LogFormat::Text, global = true, help_heading = "Common options")]
    pub log_format: LogFormat,
}

impl LogArgs {
    /// Sends this process's events to stderr from now on. Does nothing when that was done before.
    pub fn init(&self) {
        self.init_from("info");
    }

    /// The same, for commands whose output is their answer: where nobody asks for a level, only
    /// what went wrong is logged.
    pub fn init_quiet(&self) {
        self.init_from("warn");
    }

    fn init_from(&self, default: &str) {
        let wanted = self.log_level.clone().or_else(settings::rust_log);
        let filter = EnvFilter::new(directives(wanted.as_deref().unwrap_or(default)));
        let lines = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            // Telling a closed stderr that it is closed would end the process.
            .log_internal_errors(false)
            .with_timer(Utc(SystemClock::new()));
        // An error means that a subscriber stands already: the first one wins.
        let _ = match self.log_format {
            LogFormat::Json => lines.json().flatten_event(true).try_init(),
            LogFormat::Text => {
                let colour = std::io::stderr().is_terminal() && !settings::no_color();
                lines.with_ansi(colour).try_init()
            }
        };
    }
}

/// The directives behind a level: a plain one is narrowed to our own modules. openraft warns of
/// every heartbeat that finds nobody, ten a second while a broker is away, which ours say once.
fn directives(wanted: &str) -> String {
    match wanted.parse::<LevelFilter>() {
        Ok(level) if level >= LevelFilter::WARN => {
            format!("warn,openraft=error,aklight={level}")
        }
        _ => wanted.to_owned(),
    }
}

/// Checks a level or a list of directives. A lone word must be a level: as a directive `deubg`
/// would silently mean a module of that name.
fn check_level(text: &str) -> Result<String, String> {
    let good = text.split(',').all(|one| {
        let one = one.trim();
        (!one.is_empty() && one.parse::<LevelFilter>().is_ok())
            || (one.contains('=') && one.parse::<Directive>().is_ok())
    });
    if good {
        return Ok(text.to_owned());
    }
    Err("write off, error, warn, info, debug or trace, or directives such as \
         info,openraft=debug"
        .to_owned())
}

/// The moment of an event, in RFC 3339 and UTC, to the microsecond.
struct Utc(SystemClock);

impl FormatTime for Utc {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        let us = i64::try_from(self.0.wall_us()).unwrap_or(i64::MAX);
        let moment = jiff::Timestamp::from_microsecond(us).map_err(|_| fmt::Error)?;
        write!(w, "{moment:.6}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_level_concerns_our_own_modules() {
        assert_eq!(directives("debug"), "warn,openraft=error,aklight=debug");
        assert_eq!(directives("error"), "error");
        assert_eq!(directives("info,openraft=debug"), "info,openraft=debug");
    }

    #[test]
    fn a_level_that_is_none_is_refused() {
        for good in ["off", "WARN", "info,openraft=debug", "aklight_broker=trace"] {
            check_level(good).expect(good);
        }
        for bad in ["", "deubg", "info,loud", "x=loud"] {
            assert!(check_level(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_moment_is_rfc_3339_in_utc() {
        let mut text = String::new();
        Utc(SystemClock::new()).format_time(&mut Writer::new(&mut text)).expect("written");
        assert!(text.ends_with('Z') && text.len() == "2026-01-01T00:00:00.000000Z".len(), "{text}");
    }
}
