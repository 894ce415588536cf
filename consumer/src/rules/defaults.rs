//! The rules where no file gives any, each also in `config/rules.toml` (held by a test).
//!
//! A producer's own: CPU and memory over 80, disk over 90 percent full, silence. Containers': CPU
//! and memory near their own limit, ended badly, unhealthy, restarting, throttled. Figures are for
//! people who have set up nothing: a rule that rings without reason is switched off, and with it
//! all the others.

use aklight_common::Pattern;

use super::condition::{Condition, Measured, Test, VALUE};
use super::{Rule, Rules, Severity};

/// A minute: longer than a usual peak; and longer than a container that restarts every 20 seconds
/// seems well.
const MINUTE_MS: u64 = 60_000;

/// The rules.
#[must_use]
pub fn defaults() -> Rules {
    use Severity::{Critical, Info, Warning};
    let near_limit = Measured { for_ms: MINUTE_MS, ..number("limit_percent", "> 90", "< 80") };
    let failed = Measured { clear_for_ms: MINUTE_MS, ..number("failed", "== 1", "== 0") };
    let unhealthy = Measured {
        for_ms: 10_000,
        clear_for_ms: MINUTE_MS,
        ..number("health", "== unhealthy", "!= unhealthy")
    };
    let restarting = Measured { increase_ms: Some(600_000), ..number(VALUE, "> 2", "<= 2") };
    let list = vec![
        own("cpu-high", "cpu", five_seconds(VALUE, "> 80", "< 70")),
        own("memory-high", "memory", five_seconds(VALUE, "> 80", "< 70")),
        own("disk-full", "disk", five_seconds("fs_used_percent", "> 90", "< 80")),
        Rule {
            severity: Warning,
            condition: Condition::Absent { after_ms: 30_000 },
            ..own("producer-silent", "cpu", number(VALUE, "> 0", "<= 0"))
        },
        container("container-cpu", "cpu", Warning, near_limit),
        container(
            "container-memory",
            "memory",
            Critical,
            Measured { for_ms: 30_000, ..number(VALUE, "> 90", "< 80") },
        ),
        container("container-failed", "state", Critical, failed),
        container("container-unhealthy", "state", Warning, unhealthy),
        container("container-restarting", "restarts", Warning, restarting),
        container(
            "container-throttled",
            "throttling",
            Info,
            Measured { for_ms: MINUTE_MS, ..number(VALUE, "> 50", "< 30") },
        ),
    ];
    Rules { list, quiet: None }
}

fn own(name: &str, metric: &str, measured: Measured) -> Rule {
    rule(name, &format!("metrics/docker/+/{metric}"), Severity::Critical, measured)
}

fn container(name: &str, metric: &str, severity: Severity, measured: Measured) -> Rule {
    rule(name, &format!("metrics/docker/+/+/{metric}"), severity, measured)
}

fn rule(name: &str, pattern: &str, severity: Severity, measured: Measured) -> Rule {
    Rule {
        name: name.to_owned(),
        pattern: Pattern::new(pattern)
            .unwrap_or_else(|error| unreachable!("a pattern written by hand: {error}")),
        condition: Condition::Measured(measured),
        repeat_ms: None,
        severity,
        notify: None,
        fallback: Vec::new(),
    }
}

fn five_seconds(field: &str, fire: &str, clear: &str) -> Measured {
    Measured { for_ms: 5_000, ..number(field, fire, clear) }
}

fn number(field: &str, fire: &str, clear: &str) -> Measured {
    let test = |text: &str| -> Test {
        text.parse().unwrap_or_else(|error| unreachable!("a test written by hand: {error}"))
    };
    Measured {
        field: field.to_owned(),
        fire: test(fire),
        clear: test(clear),
        for_ms: 0,
        clear_for_ms: 0,
        increase_ms: None,
    }
}
