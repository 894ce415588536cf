//! `aklight top`: every host and container, live, in a terminal.
//!
//! ```text
//! subscription ─ records ─┐
//! keys, signals, time ────┼─► shell ─► app (model: what is known; page, filter, order) ─► draw
//! ask ─ LAST, FETCH, … ───┘     │                                                          │
//!                               └──────────────── at most ten frames a second ◄────────────┘
//! ```
//!
//! Pure: `record` (what a topic and a payload say), `series`, `container`, `alert` and `model` (what
//! is known), `rows` (which containers are listed, and in which order), `detail` and `app` (what is
//! looked at, and what keys do), `draw` (the screen). Around them: `ask` (questions to a broker),
//! `screen` (the terminal) and `shell` (waits for all of it).
//!
//! Everything comes over the line protocol, from any broker: the newest record of each topic by
//! LAST, the last minutes by FETCH, the rest as it is stored. Only how far the copies of a cluster
//! are behind is asked over HTTP. Left out: the mouse, and files.

mod alert;
mod app;
mod ask;
mod container;
mod detail;
mod draw;
mod figures;
mod model;
mod once;
mod record;
mod rows;
mod screen;
mod series;
mod shell;

#[cfg(test)]
mod tests;

use std::io::{IsTerminal, stdin, stdout};
use std::process::ExitCode;
use std::time::Duration;

use aklight_common::clock::{Clock, SystemClock};
use aklight_common::settings::{EXIT_DONE, EXIT_USAGE, no_color};
use clap::Args;
use nix::unistd::{Uid, User, gethostname};

use crate::connect::{BrokerListArgs, block_on};
use crate::http::HttpArgs;
use crate::output::OutputArgs;

use app::App;
use ask::Asker;
use draw::Theme;
use rows::Filter;

/// The shortest and the longest pause between two frames.
const INTERVALS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(60)];

/// What to show.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Begin with this filter: a part of a name, or a pattern with + and #
    #[arg(long = "match", value_name = "PATTERN", default_value = "", hide_default_value = true,
          value_parser = filter)]
    filter: Filter,
    /// How often to draw what is new, as in 500ms or 2s
    #[arg(long, default_value = "500ms", value_parser = pause)]
    interval: Duration,
    /// Print the list once, as plain text or JSON, and end
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    brokers: BrokerListArgs,
    #[command(flatten)]
    http: HttpArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl TopArgs {
    /// Whether it takes the whole terminal.
    pub fn draws(&self) -> bool {
        !self.once
    }
}

fn filter(text: &str) -> Result<Filter, String> {
    let filter = Filter::new(text);
    match filter.mistake() {
        Some(mistake) => Err(mistake.to_owned()),
        None => Ok(filter),
    }
}

fn pause(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(pause) if (INTERVALS[0]..=INTERVALS[1]).contains(&pause) => Ok(pause),
        Ok(_) => Err("from 100ms to 60s".to_owned()),
        Err(error) => Err(format!("{error}: write 500ms or 2s")),
    }
}

/// Shows it until somebody ends it, or prints it once.
pub fn run(args: &TopArgs) -> anyhow::Result<ExitCode> {
    let app = App::new(args.filter.clone(), whoever(), SystemClock::new().wall_ms());
    if args.once {
        block_on(once::print(app, &args.brokers, &args.output))?;
        return Ok(ExitCode::from(EXIT_DONE));
    }
    if !stdout().is_terminal() || !stdin().is_terminal() {
        anstream::eprintln!(
            "aklight: top needs a terminal: `aklight top --once` prints the list for scripts, and \
             `aklight tail 'metrics/docker/#'` prints samples as they come"
        );
        return Ok(ExitCode::from(EXIT_USAGE));
    }
    screen::hold_back_stops()?;
    let end = block_on(async {
        // Somebody who mistyped the address wants to hear it now, not be reconnected for ever.
        args.brokers.connect().await?.quit().await?;
        let asker = Asker { config: args.brokers.config(), http: args.http.clone() };
        shell::show(app, Theme::new(!no_color()), asker, args.interval).await
    })?;
    Ok(ExitCode::from(end))
}

/// Whose name stands in what is done about alerts.
fn whoever() -> String {
    let user = User::from_uid(Uid::current()).ok().flatten();
    let user = user.map_or_else(|| Uid::current().to_string(), |user| user.name);
    match gethostname() {
        Ok(host) => format!("{user}@{}", host.to_string_lossy()),
        Err(_) => user,
    }
}
