//! What rules do, as scripts: a line is a moment, what happens then, and what comes of it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use aklight_consumer::rules::machine::{LATE_MS, Phase, Reading, State, on_sample, on_tick};
use aklight_consumer::rules::{Audience, Change, Condition, Kind, Rule, file};
use aklight_consumer::sample::Sample;
use proptest::prelude::*;

/// A moment long enough after 1970 that minutes can be taken off it.
const START_MS: u64 = 1_795_229_527_000;

fn rule(conditions: &str) -> Rule {
    let text = format!("[[rule]]\nname = \"r\"\nmatch = \"m/#\"\n{conditions}\n");
    file::parse(Path::new("test"), &text).expect("a right rule").list.remove(0)
}

/// Judges a payload of this time; nothing where the rule does not see it.
fn judge(
    rule: &Rule,
    state: &State,
    at_ms: u64,
    fields: &str,
    now_ms: u64,
) -> (State, Option<Change>) {
    let payload = format!("{{\"ts\":{at_ms},{fields}}}");
    let sample = Sample::parse(payload.as_bytes()).expect(&payload);
    match Reading::of(rule, &sample, now_ms) {
        Some(reading) => on_sample(rule, state, reading, now_ms),
        None => (state.clone(), None),
    }
}

fn number(
    rule: &Rule,
    state: &State,
    at_ms: u64,
    value: f64,
    now_ms: u64,
) -> (State, Option<Change>) {
    judge(rule, state, at_ms, &format!("\"value\":{value}"), now_ms)
}

fn ms(text: &str) -> u64 {
    u64::try_from(humantime::parse_duration(text).expect(text).as_millis()).expect("short")
}

/// Plays `moment | sample, sample @age, word, or tick | what comes of it`. A word stands in the
/// field `health`.
fn story(conditions: &str, script: &str) {
    let rule = rule(conditions);
    let mut state = State::default();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let parts: Vec<_> = line.split('|').map(str::trim).collect();
        let [moment, event, expect] = parts[..] else { panic!("three parts: {line}") };
        let now_ms = START_MS + ms(moment);
        let (after, change) = if event == "tick" {
            on_tick(&rule, &state, now_ms, START_MS)
        } else {
            let (value, age) = event.split_once('@').unwrap_or((event, "0s"));
            let (age, ahead) = match age.strip_prefix('-') {
                Some(ahead) => (0, ms(ahead)),
                None => (ms(age), 0),
            };
            let fields = match value.trim().parse::<f64>() {
                Ok(number) => format!("\"value\":{number}"),
                Err(_) => format!("\"value\":1,\"health\":\"{}\"", value.trim()),
            };
            judge(&rule, &state, now_ms - age + ahead, &fields, now_ms)
        };
        state = after;
        assert_eq!(change.map_or_else(String::new, |change| said(&change)), expect, "{line}");
    }
}

fn said(change: &Change) -> String {
    let kind = match change.kind {
        Kind::Pending => "pending",
        Kind::Lapsed => "lapsed",
        Kind::Fired => "fired",
        Kind::Reminder => "reminder",
        Kind::Resolved => "resolved",
    };
    let who = match change.audience {
        Audience::Everyone => "everyone",
        Audience::Quiet => "quiet",
        Audience::Telephone => "telephone",
    };
    format!("{kind}, {who}")
}

const CPU: &str = "fire = \"> 80\"\nclear = \"< 70\"\nfor = \"5s\"";

#[test]
fn it_fires_when_the_threshold_held_for_long_enough_and_clears_below_the_other() {
    story(
        CPU,
        "0s | 50 |
         1s | 81 | pending, quiet
         3s | 85 |
         5s | 99 |
         6s | 82 | fired, everyone
         7s | 99 |
         8s | 75 |
         9s | 69 | resolved, everyone
        10s | 69 |",
    );
}

#[test]
fn a_short_peak_lapses_and_the_next_one_begins_anew() {
    story(
        CPU,
        "0s | 81 | pending, quiet
         4s | 80 | lapsed, quiet
         5s | 81 | pending, quiet
         9s | 81 |
        10s | 81 | fired, everyone",
    );
}

#[test]
fn without_for_the_first_sample_fires_and_without_clear_the_first_other_one_clears() {
    story("fire = \">= 80\"", "0s | 80 | fired, everyone\n1s | 79.9 | resolved, everyone");
}

#[test]
fn a_hole_between_two_samples_is_no_unbroken_run() {
    story(
        CPU,
        "0s     | 81 | pending, quiet
         1m 1s  | 81 |
         1m 5s  | 81 |
         1m 6s  | 81 | fired, everyone",
    );
}

#[test]
fn a_reminder_comes_as_often_as_asked_while_it_is_known_to_last() {
    story(
        "fire = \"> 80\"\nrepeat = \"1m\"",
        "0s     | 81   | fired, everyone
         59s    | 82   |
         59s    | tick |
         1m     | tick | reminder, everyone
         1m 1s  | tick |
         2m     | tick | reminder, everyone
         3m     | tick |
         3m 1s  | 83   |
         3m 2s  | tick | reminder, everyone
         3m 3s  | 10   | resolved, everyone
         9m     | tick |",
    );
}

#[test]
fn a_late_sample_changes_the_state_and_rings_no_telephone() {
    story(
        "fire = \"> 80\"",
        "0s    | 81 @3m    | fired, quiet
         1s    | 82 @2m 1s |
         2s    | 10 @2m 1s | resolved, quiet",
    );
}

#[test]
fn the_first_fresh_sample_makes_up_for_what_the_telephone_missed() {
    story(
        "fire = \"> 80\"",
        "0s     | 81 @3m    | fired, quiet
         1s     | 82 @2m    | fired, telephone
         2s     | 82        |
         10m    | 10 @2m 1s | resolved, quiet
         10m 1s | 10        | resolved, telephone
         10m 2s | 10        |",
    );
}

#[test]
fn a_sample_older_than_the_newest_says_nothing_new() {
    story("fire = \"> 80\"", "10s | 50 |\n11s | 90 @5s |\n12s | 90 | fired, everyone");
}

#[test]
fn a_source_whose_clock_ran_ahead_is_not_ignored_when_it_is_set_right() {
    story("fire = \"> 80\"", "0s | 50 @-1h |\n1s | 90 | fired, everyone");
}

#[test]
fn a_word_fires_and_is_over_only_when_it_stayed_away_for_long_enough() {
    story(
        "field = \"health\"\nfire = \"== unhealthy\"\nfor = \"10s\"\nclear_for = \"1m\"",
        "0s    | starting  |
         1s    | unhealthy | pending, quiet
         11s   | unhealthy | fired, everyone
         20s   | healthy   |
         40s   | unhealthy |
         60s   | healthy   |
         1m55s | healthy   |
         2m    | healthy   | resolved, everyone",
    );
}

#[test]
fn a_yes_or_no_is_a_boolean_or_a_number() {
    let rule = rule("field = \"oom_killed\"\nfire = \"== true\"");
    for (fields, fires) in [
        ("\"value\":0,\"oom_killed\":1", true),
        ("\"value\":0,\"oom_killed\":true", true),
        ("\"value\":0,\"oom_killed\":0", false),
        ("\"value\":0,\"oom_killed\":false", false),
        ("\"value\":0", false),
    ] {
        let (_, change) = judge(&rule, &State::default(), START_MS, fields, START_MS);
        assert_eq!(change.is_some(), fires, "{fields}");
    }
}

/// Fails, comes up, fails again, every 20 seconds for five minutes: one alert, one end.
#[test]
fn a_flapping_container_rings_once() {
    let rule = rule("fire = \"== 1\"\nclear = \"== 0\"\nclear_for = \"1m\"");
    let mut state = State::default();
    let mut told = Vec::new();
    for second in 0..600 {
        let failed = if second < 300 { f64::from(second / 20 % 2) } else { 0.0 };
        let now_ms = START_MS + u64::try_from(second).expect("small") * 1000;
        let (after, change) = number(&rule, &state, now_ms, failed, now_ms);
        state = after;
        told.extend(change.map(|change| (second, change.kind)));
    }
    // The last failure ended at 280 s.
    assert_eq!(told, [(20, Kind::Fired), (340, Kind::Resolved)]);
}

#[test]
fn a_hole_between_two_samples_is_no_time_of_being_clear() {
    story(
        "fire = \"> 80\"\nclear_for = \"1m\"",
        "0s    | 81 | fired, everyone
         10s   | 10 |
         3m    | 10 |
         3m59s | 10 |
         4m    | 10 | resolved, everyone",
    );
}

#[test]
fn growth_within_a_window_fires_and_a_counter_that_began_anew_is_a_new_baseline() {
    story(
        "fire = \"> 2\"\nincrease = \"10m\"",
        "0s     | 7 |
         1m     | 8 |
         2m     | 9 |
         3m     | 0 |
         4m     | 1 | fired, everyone
         5m     | 1 |
         10m59s | 1 |
         11m    | 1 | resolved, everyone
         11m1s  | 2 | fired, everyone",
    );
}

/// A mute outlasts a reminder: who was not told is told at its end all the same.
#[test]
fn a_reminder_is_none_for_a_telephone_that_was_not_told() {
    let rule = rule("fire = \"> 80\"\nrepeat = \"1m\"");
    let (mut state, _) = number(&rule, &State::default(), START_MS, 90.0, START_MS);
    state.told = false;
    let now_ms = START_MS + 60_000;
    let (state, reminder) = on_tick(&rule, &state, now_ms, START_MS);
    assert_eq!(reminder.map(|change| said(&change)).as_deref(), Some("reminder, quiet"));
    let (_, change) = number(&rule, &state, now_ms, 90.0, now_ms);
    assert_eq!(change.map(|change| said(&change)).as_deref(), Some("fired, telephone"));
}

#[test]
fn silence_that_was_withheld_is_told_when_it_may_be() {
    let rule = rule("absent = \"30s\"");
    let state = State { heard_ms: START_MS, ..State::default() };
    let (mut state, fired) = on_tick(&rule, &state, START_MS + 30_000, START_MS);
    assert_eq!(fired.map(|change| said(&change)).as_deref(), Some("fired, everyone"));
    state.told = false;
    let (state, again) = on_tick(&rule, &state, START_MS + 31_000, START_MS);
    assert_eq!(again.map(|change| said(&change)).as_deref(), Some("fired, telephone"));
    assert_eq!(on_tick(&rule, &state, START_MS + 32_000, START_MS).1, None);
}

#[test]
fn silence_fires_by_the_consumers_clock_and_the_next_sample_ends_it() {
    story(
        "absent = \"30s\"\nrepeat = \"1m\"",
        "0s     | 1    |
         29s    | tick |
         29s    | 1    |
         58s    | tick |
         59s    | tick | fired, everyone
         1m 30s | tick |
         1m 59s | tick | reminder, everyone
         2m     | 1    | resolved, everyone
         2m 29s | tick |
         2m 30s | tick | fired, everyone",
    );
}

#[test]
fn silence_counts_only_from_when_the_consumer_was_listening() {
    let rule = rule("absent = \"30s\"");
    let state = State { heard_ms: START_MS, ..State::default() };
    let connected_ms = START_MS + ms("1h");
    assert_eq!(on_tick(&rule, &state, connected_ms + ms("29s"), connected_ms).1, None);
    assert!(on_tick(&rule, &state, connected_ms + ms("30s"), connected_ms).1.is_some());
}

proptest! {
    /// Between `clear` and `fire` nothing ever changes, however the value wavers.
    #[test]
    fn a_value_that_hovers_around_the_threshold_never_flaps(
        values in prop::collection::vec(70.0..200.0_f64, 1..200),
    ) {
        let rule = rule(CPU);
        let mut state = State::default();
        let mut told = 0;
        for (n, value) in values.iter().enumerate() {
            let now_ms = START_MS + 1000 * n as u64;
            let (after, change) = number(&rule, &state, now_ms, *value, now_ms);
            state = after;
            told += usize::from(change.is_some_and(|c| matches!(c.kind, Kind::Fired | Kind::Resolved)));
        }
        prop_assert!(told <= 1, "{told} changes");
    }

    /// The oracle: whoever fires was beyond the threshold in every sample of the last `for`,
    /// without a hole; and nobody who was does not fire.
    #[test]
    fn it_fires_exactly_when_the_threshold_held_for_the_whole_of_for(
        samples in prop::collection::vec((60.0..100.0_f64, 100..3000_u64), 1..200),
    ) {
        let rule = rule(CPU);
        let mut state = State::default();
        let mut now_ms = START_MS;
        let mut run_from_ms: Option<u64> = None;
        for (value, step) in samples {
            now_ms += step;
            let was_firing = matches!(state.phase, Phase::Firing { .. });
            let (after, change) = number(&rule, &state, now_ms, value, now_ms);
            state = after;
            run_from_ms = if value > 80.0 { run_from_ms.or(Some(now_ms)) } else { None };
            let held = run_from_ms.is_some_and(|from| now_ms - from >= 5000);
            let fired = change.is_some_and(|c| c.kind == Kind::Fired);
            prop_assert_eq!(fired, held && !was_firing);
            let resolved = change.is_some_and(|c| c.kind == Kind::Resolved);
            prop_assert_eq!(resolved, was_firing && value < 70.0);
        }
    }

    /// Whatever samples come, late or early: the state's time never goes back nor ahead of the
    /// clock, and the telephone is never told the same thing twice running.
    #[test]
    fn the_telephone_hears_firing_and_resolved_in_turn(
        samples in prop::collection::vec((0.0..160.0_f64, 0..2000_u64, 0..2 * LATE_MS), 1..200),
    ) {
        let rule = rule("fire = \"> 80\"");
        let mut state = State::default();
        let mut now_ms = START_MS;
        let mut heard = Kind::Resolved;
        for (value, step, age) in samples {
            now_ms += step;
            let before = state.clone();
            let (after, change) = number(&rule, &state, now_ms - age, value, now_ms);
            state = after;
            prop_assert!(before.sample_ms <= state.sample_ms && state.sample_ms <= now_ms);
            if let Some(Change { kind, audience: Audience::Everyone | Audience::Telephone, late, .. }) = change {
                prop_assert!(!late);
                // Firing anew after an end that only came late is news.
                prop_assert!(kind != heard || kind == Kind::Fired);
                heard = kind;
            }
        }
    }
}

/// A file with every mistake there is, and all that is said of it.
#[test]
fn every_mistake_is_told_at_once_with_its_place_and_what_to_write_instead() {
    let text = include_str!("rules/mistakes.toml");
    let mistakes = file::parse(Path::new("mistakes.toml"), text).expect_err("mistakes");
    let expect = include_str!("rules/mistakes.expected");
    let found = mistakes.to_string();
    assert_eq!(found.trim_end(), expect.trim_end(), "\n--- found:\n{found}\n---");
}

#[test]
fn what_is_no_toml_is_told_with_its_place() {
    let text = "[[rule]]\nname = \"a\nmatch = \"m\"\n";
    let mistakes = file::parse(Path::new("x.toml"), text).expect_err("no TOML").to_string();
    assert!(mistakes.starts_with("x.toml:2:"), "{mistakes}");
    assert!(mistakes.contains("no TOML"), "{mistakes}");
}

/// The sample that users start from: every key is shown, and it holds no mistake.
#[test]
fn the_sample_file_is_right_and_shows_every_setting() {
    let text = include_str!("../../config/rules.toml");
    let rules = file::parse(Path::new("config/rules.toml"), text).expect("no mistake").list;
    assert!(rules.iter().any(|rule| matches!(rule.condition, Condition::Absent { .. })));
    for key in file::KEYS {
        let shown = text.lines().any(|line| line.starts_with(&format!("{key} = ")));
        assert!(shown, "'{key}' is shown");
    }
    for key in file::QUIET_KEYS {
        let shown = text.lines().any(|line| line.starts_with(&format!("#{key} = ")));
        assert!(shown, "'{key}' is shown");
    }
    // As it stands it does what happens without a file.
    let defaults = aklight_consumer::rules::defaults().list;
    let names = |rules: &[Rule]| rules.iter().map(|rule| rule.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&rules), names(&defaults));
    for (given, default) in rules.iter().zip(&defaults) {
        assert_eq!(
            (&given.name, &given.pattern, &given.condition, given.severity),
            (&default.name, &default.pattern, &default.condition, default.severity)
        );
    }
}

#[test]
fn quiet_hours_are_read_with_the_rules() {
    let text =
        "[quiet]\nfrom = \"22:00\"\nto = \"07:00\"\nzone = \"UTC\"\nexcept = [\"critical\"]\n";
    let rules = file::parse(Path::new("x"), text).expect("right");
    assert!(rules.list.is_empty() && rules.quiet.is_some());
}

#[test]
fn an_empty_file_is_no_rules() {
    assert_eq!(
        file::parse(Path::new("x"), "# none\n"),
        Ok(aklight_consumer::rules::Rules::default())
    );
}
