//! Settings: how flags, the environment and a file become one struct.
//!
//! Every command of AKLight reads its settings here, in two steps: as typed, then resolved. A
//! flag counts over its environment variable, that over the file named by `--config` (or
//! `AKLIGHT_CONFIG`), and the file over the default. The file is TOML; its keys are the long names of
//! the flags, with `-` or `_`; an array stands for a list with commas:
//!
//! ```toml
//! data-dir = "/var/lib/aklight"
//! listen = "0.0.0.0:7000"
//! brokers = ["broker1:7000", "broker2:7000"]
//! ```
//!
//! How it works: the file is found and read before clap runs; each value becomes the default of
//! its argument, so that clap itself keeps the order and shows the value in `--help`. Every value
//! is first tried against its argument alone, so that all mistakes of a file come at once, each
//! with its line.
//!
//! This is also the one place of the library that reads the environment. Left out: sections (a
//! file belongs to one command), what clap demands of flags that go together (it asks that of
//! flags and variables only), and changing settings while a process runs.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use clap::builder::Resettable;
use clap::error::{ContextKind, ErrorKind};
use clap::{Arg, ArgAction, Command, Parser};
use toml::de::{DeTable, DeValue};

/// The exit code of a command that did what it was asked to.
pub const EXIT_DONE: u8 = 0;
/// The exit code of a command that failed.
pub const EXIT_FAILED: u8 = 1;
/// The exit code of a command that was called wrongly.
pub const EXIT_USAGE: u8 = 2;
/// The exit code of a command that was ended by Ctrl-C: 128 and the number of SIGINT, as shells
/// count it. SIGTERM, which is how service managers say goodbye, is answered with [`EXIT_DONE`].
pub const EXIT_INTERRUPTED: u8 = 130;

/// The flag that names the file, and its environment variable.
const CONFIG_FLAG: &str = "config";
const CONFIG_ENV: &str = "AKLIGHT_CONFIG";

/// Reads this process's settings, or says what is wrong with them and ends it: with
/// [`EXIT_USAGE`], or with [`EXIT_DONE`] where `--help` or `--version` was asked for.
pub fn parse<T: Parser>() -> T {
    parse_from(env::args_os()).unwrap_or_else(|error: clap::Error| error.exit())
}

/// Reads settings from the given arguments (the first is the program's name), the environment
/// and the file that either names.
///
/// # Errors
/// What is wrong, as clap shows it.
pub fn parse_from<T: Parser>(
    args: impl IntoIterator<Item = impl Into<OsString>>,
) -> Result<T, clap::Error> {
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let mut command = with_config_flag(T::command());
    if let Some(file) = config_file(&args) {
        let path = chosen_path(&command, &args);
        match resolve(&command, &path, &file) {
            Ok(values) => command = with_defaults(command, &path, &values),
            Err(mistakes) => {
                return Err(command.error(ErrorKind::InvalidValue, mistakes.join("\n  ")));
            }
        }
    }
    let mut matches = command.try_get_matches_from_mut(args)?;
    T::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// The command with `--config`, which every subcommand takes as well. For whoever renders help,
/// completions or manual pages; [`parse`] adds it by itself.
#[must_use]
pub fn with_config_flag(command: Command) -> Command {
    command.arg(
        Arg::new(CONFIG_FLAG)
            .long(CONFIG_FLAG)
            .value_name("FILE")
            .env(CONFIG_ENV)
            .global(true)
            .value_parser(clap::value_parser!(PathBuf))
            .help_heading("Common options")
            .help("Settings from a TOML file: its keys are the flags' long names"),
    )
}

/// Whether colours are unwanted: `NO_COLOR` is there and not empty (<https://no-color.org>).
#[must_use]
pub fn no_color() -> bool {
    env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// What `RUST_LOG` says, where it says anything.
pub(crate) fn rust_log() -> Option<String> {
    env::var("RUST_LOG").ok().filter(|value| !value.is_empty())
}

/// The file that the arguments name, else the environment.
fn config_file(args: &[OsString]) -> Option<PathBuf> {
    let mut given = None;
    let mut args = args.iter().skip(1);
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--") => break,
            Some("--config") => given = args.next().map(PathBuf::from).or(given),
            Some(text) => {
                given = text.strip_prefix("--config=").map(PathBuf::from).or(given);
            }
            None => {}
        }
    }
    given.or_else(|| env::var_os(CONFIG_ENV).filter(|v| !v.is_empty()).map(PathBuf::from))
}

/// The names of the subcommands that the arguments choose, from the root on.
fn chosen_path(command: &Command, args: &[OsString]) -> Vec<String> {
    let mut path = Vec::new();
    let mut at = command;
    let mut args = args.iter().skip(1).filter_map(|arg| arg.to_str());
    while let Some(text) = args.next() {
        if let Some(long) = text.strip_prefix("--") {
            let takes_next = at
                .get_arguments()
                .any(|arg| arg.get_long() == Some(long) && arg.get_action().takes_values());
            if takes_next {
                args.next();
            }
        } else if let Some(next) = at.find_subcommand(text) {
            path.push(next.get_name().to_owned());
            at = next;
        }
    }
    path
}

/// The value of each argument that the file sets, by the argument's long name.
type Values = BTreeMap<String, Vec<String>>;

/// Reads a file for the command at the end of `path`, or says all that is wrong with it.
fn resolve(command: &Command, path: &[String], file: &Path) -> Result<Values, Vec<String>> {
    let name = file.display();
    let text = fs::read_to_string(file)
        .map_err(|error| vec![format!("the settings file {name} cannot be read: {error}")])?;
    let table = DeTable::parse(&text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(&text, span.start));
        vec![format!("{name}:{line}: this is no TOML: {}", error.message())]
    })?;

    let levels = levels(command, path);
    let mut values = Values::new();
    let mut mistakes = Vec::new();
    for (key, value) in table.get_ref() {
        let place = format!("{name}:{}", line_of(&text, key.span().start));
        let long = key.get_ref().replace('_', "-");
        let Some((owner, arg)) = find_arg(&levels, &long) else {
            mistakes.push(format!("{place}: {}", unknown(key.get_ref(), &levels)));
            continue;
        };
        let checked = plain(value.get_ref()).and_then(|list| {
            let list = as_arg_takes(arg, list);
            check(owner, arg, &list).map(|()| list)
        });
        match checked {
            Ok(list) if values.contains_key(&long) => {
                mistakes.push(format!("{place}: {long} is set twice (also to {})", list.join(",")));
            }
            Ok(list) => {
                values.insert(long, list);
            }
            Err(why) => mistakes.push(format!("{place}: {long}: {why}")),
        }
    }
    if mistakes.is_empty() { Ok(values) } else { Err(mistakes) }
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
}

/// The commands along a path, the root first.
fn levels<'a>(command: &'a Command, path: &[String]) -> Vec<&'a Command> {
    let mut levels = vec![command];
    for name in path {
        levels.extend(levels.last().and_then(|last| last.find_subcommand(name)));
    }
    levels
}

/// The argument with a long name that a file may set, nearest to the end of the path.
fn find_arg<'a>(levels: &[&'a Command], long: &str) -> Option<(&'a Command, &'a Arg)> {
    levels.iter().rev().find_map(|command| {
        settable(command).find(|arg| arg.get_long() == Some(long)).map(|arg| (*command, arg))
    })
}

fn settable(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| {
        let info = matches!(
            arg.get_action(),
            ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
        );
        !info && arg.get_long().is_some_and(|long| long != CONFIG_FLAG)
    })
}

fn unknown(key: &str, levels: &[&Command]) -> String {
    let known: Vec<&str> =
        levels.iter().flat_map(|command| settable(command)).filter_map(Arg::get_long).collect();
    let wanted = key.replace('_', "-");
    match nearest(&wanted, &known) {
        Some(near) => format!("no setting is called '{key}': did you mean '{near}'?"),
        None if known.is_empty() => {
            format!("no setting is called '{key}': this command has none")
        }
        None => format!("no setting is called '{key}': there are {}", known.join(", ")),
    }
}

/// The known name that a mistyped one most likely meant.
///
/// Near enough is a third of its letters wrong, or two of a short one: beyond that a guess
/// sends people the wrong way.
#[must_use]
pub fn nearest<'a>(wanted: &str, known: &[&'a str]) -> Option<&'a str> {
    let far = (wanted.chars().count() / 3).max(2);
    known
        .iter()
        .map(|name| (edits(wanted, name), *name))
        .filter(|(edits, _)| *edits <= far)
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein's distance: how many letters to change, add or drop.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = change.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// A value as it would be typed: one text, or several for an array.
fn plain(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    match value {
        DeValue::String(text) => Ok(vec![text.to_string()]),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map(|number| vec![number.to_string()])
            .map_err(|_| format!("{} is too large a number", number.as_str())),
        DeValue::Float(number) => Ok(vec![number.as_str().to_owned()]),
        DeValue::Boolean(flag) => Ok(vec![flag.to_string()]),
        DeValue::Datetime(moment) => Ok(vec![moment.to_string()]),
        DeValue::Array(items) => {
            let mut list = Vec::new();
            for item in items {
                match item.get_ref() {
                    DeValue::Array(_) | DeValue::Table(_) => {
                        return Err("a list holds plain values only".to_owned());
                    }
                    one => list.extend(plain(one)?),
                }
            }
            Ok(list)
        }
        DeValue::Table(_) => {
            Err("this is a section, and there are none: write the keys at the top".to_owned())
        }
    }
}

/// Several values stay several where the argument is repeated; else they become a comma list.
fn as_arg_takes(arg: &Arg, list: Vec<String>) -> Vec<String> {
    let repeated =
        matches!(arg.get_action(), ArgAction::Append) && arg.get_value_delimiter().is_none();
    if repeated { list } else { vec![list.join(",")] }
}

/// Tries values against one argument alone, with nothing else demanded or set.
fn check(owner: &Command, arg: &Arg, list: &[String]) -> Result<(), String> {
    if !arg.get_action().takes_values() {
        return match list {
            [one] if one == "true" || one == "false" => Ok(()),
            _ => Err("this is true or false".to_owned()),
        };
    }
    let long = arg.get_long().unwrap_or_default();
    let alone = owner
        .clone()
        .mut_args(|arg| arg.required(false).env(Resettable::<clap::builder::OsStr>::Reset))
        .subcommand_required(false)
        .no_binary_name(true);
    let typed = list.iter().map(|value| format!("--{long}={value}"));
    let Err(error) = alone.try_get_matches_from(typed) else { return Ok(()) };
    let about_value = matches!(
        error.kind(),
        ErrorKind::InvalidValue
            | ErrorKind::ValueValidation
            | ErrorKind::InvalidUtf8
            | ErrorKind::NoEquals
            | ErrorKind::WrongNumberOfValues
            | ErrorKind::TooManyValues
            | ErrorKind::TooFewValues
    );
    // Anything else (a conflict, something still missing) is not this value's fault.
    if !about_value || error.get(ContextKind::InvalidArg).is_none() {
        return Ok(());
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let text = text.split("\n\n").next().unwrap_or_default();
    Err(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Makes each value the default of its argument, wherever along the path it is declared.
fn with_defaults(mut command: Command, path: &[String], values: &Values) -> Command {
    let set: Vec<(String, Vec<String>)> = settable(&command)
        .filter_map(|arg| {
            let list = values.get(arg.get_long()?)?;
            Some((arg.get_id().to_string(), list.clone()))
        })
        .collect();
    for (id, list) in set {
        command = command.mut_arg(id, |arg| {
            // What is a secret in the environment is one in a file: `--help` shows neither.
            let secret = arg.is_hide_env_values_set();
            let hidden = secret || arg.is_hide_default_value_set();
            arg.required(false).hide_default_value(hidden).default_values(list)
        });
    }
    match path.split_first() {
        Some((next, rest)) => command.mut_subcommand(next, |sub| with_defaults(sub, rest, values)),
        None => command,
    }
}

#[cfg(test)]
mod tests;
