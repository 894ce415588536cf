//! What stands in quotes in a rule, read: durations, names, comparisons. Each mistake says what
//! to write instead.

use std::str::FromStr;

use super::condition::Test;
use super::mistake::instead;

/// A comparison, as in `> 80` or `== unhealthy`.
pub(super) fn test(text: &str) -> Result<Test, String> {
    Test::from_str(text).map_err(|error| error.to_string())
}

/// A duration of some milliseconds at least.
pub(super) fn milliseconds(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!(
            "'{text}' is no duration: write a number and a unit, as in \"10s\", \"5m\" or \"1h 30m\""
        )
    };
    let duration = humantime::parse_duration(text).map_err(|_| wrong())?;
    let ms = u64::try_from(duration.as_millis()).map_err(|_| wrong())?;
    if ms == 0 {
        return Err(format!("'{text}' is no time at all: leave it out instead"));
    }
    Ok(ms)
}

/// One of several names.
pub(super) fn by_name<T: Copy>(known: &[(&str, T)], what: &str, given: &str) -> Result<T, String> {
    known.iter().find(|(name, _)| *name == given).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
        format!("unknown {what} '{given}': {}", instead(given, &names))
    })
}

/// Why a condition would fire and clear at once, where it would.
pub(super) fn at_once(fire: &Test, clear: &Test) -> Option<String> {
    if !fire.is_kin(clear) {
        return Some(format!(
            "'fire' (\"{fire}\") and 'clear' (\"{clear}\") compare different things: a number in both, or a word in both"
        ));
    }
    let value = fire.meets(clear)?;
    Some(format!(
        "at {value} the alert would fire (\"{fire}\") and clear (\"{clear}\") at once: clear on the other side, as in \"{}\"",
        fire.opposite()
    ))
}
