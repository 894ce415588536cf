//! What a container is, and how it is: the engine's answer in our own words.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::shapes::{HostConfig, Inspected};
use crate::sample::Sample;

/// Exit codes that are normal ends: done, SIGINT (Ctrl-C) and SIGTERM (`docker stop`).
const NORMAL_ENDS: [i64; 3] = [0, 130, 143];

/// The engine's word for one that runs.
const RUNNING: &str = "running";

/// Digits of an id that are shown, as `docker ps` does.
const SHORT_ID_DIGITS: usize = 12;

/// Longest text of labels in an `info` record: the rest of what a pipe takes whole is for what
/// every container has. Labels beyond it are left out, the last ones of the alphabet.
const LABEL_BYTES_MAX: usize = 2_800;

/// What the kernel takes for a period where nobody chose one (sched-bwc.rst).
const CPU_PERIOD_US: i64 = 100_000;

/// A container as the engine describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Details {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Without the slash.
    pub name: String,
    /// The image as it was named.
    pub image: String,
    /// All labels.
    pub labels: BTreeMap<String, String>,
    /// Unix time in milliseconds.
    pub created_ms: u64,
    /// The same; `None` for one that never ran.
    pub started_ms: Option<u64>,
    /// Its first process, where it has one.
    pub pid: Option<i32>,
    /// The engine's word.
    pub state: String,
    /// `healthy`, `unhealthy`, `starting`, or `none` of one without a check, or that does not run.
    pub health: String,
    /// How it ended last.
    pub exit_code: i64,
    /// Whether it was killed for memory.
    pub oom_killed: bool,
    /// How often the engine started it again.
    pub restarts: u64,
    /// Processors; 0 for no limit.
    pub limit_cpus: f64,
    /// Bytes; 0 for no limit.
    pub limit_bytes: u64,
    /// Whether its network is not the machine's own.
    pub own_network: bool,
}

impl Details {
    /// Out of the engine's answer.
    #[must_use]
    pub fn new(inspected: Inspected) -> Self {
        let Inspected { id, name, created, restart_count, state, config, host_config } = inspected;
        // Docker calls one that was paused or stopped unhealthy; nobody checks it.
        let checked = state.health.filter(|_| state.status == RUNNING);
        let health = checked.map(|health| health.status).unwrap_or_default();
        Self {
            name: name.trim_start_matches('/').to_owned(),
            image: config.image,
            labels: config.labels,
            created_ms: unix_ms(&created).unwrap_or(0),
            started_ms: unix_ms(&state.started_at),
            pid: Some(state.pid).filter(|pid| *pid > 0),
            state: state.status,
            health: if health.is_empty() { "none".to_owned() } else { health },
            exit_code: state.exit_code,
            oom_killed: state.oom_killed,
            restarts: restart_count,
            limit_cpus: limit_cpus(&host_config),
            limit_bytes: u64::try_from(host_config.memory).unwrap_or(0),
            own_network: host_config.network_mode != "host",
            id,
        }
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.state == RUNNING
    }

    /// Whether it is dead, restarting, or ended in no normal way.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        match self.state.as_str() {
            "dead" | "restarting" => true,
            "exited" => is_failure(self.exit_code, self.oom_killed),
            _ => false,
        }
    }

    /// The same container right after an end of it, whatever became of it since.
    #[must_use]
    pub fn ended(&self, exit_code: i64, oom_killed: bool) -> Self {
        let (state, health) = ("exited".to_owned(), "none".to_owned());
        Self { state, health, exit_code, oom_killed, ..self.clone() }
    }

    /// How it is now.
    #[must_use]
    pub fn state_sample(&self, wall_ms: u64) -> Sample {
        Sample::new(wall_ms, self.is_running(), "state")
            .with("state", self.state.as_str())
            .with("health", self.health.as_str())
            .with("exit_code", self.exit_code)
            .with("oom_killed", self.oom_killed)
            .with("failed", self.is_failed())
    }

    /// What it is, and whether it is there.
    #[must_use]
    pub fn info(&self, wall_ms: u64, present: bool, source: &'static str) -> Sample {
        let id = self.id.get(..SHORT_ID_DIGITS).unwrap_or(&self.id);
        let mut info = Sample::new(wall_ms, present, "present")
            .with("id", id)
            .with("image", self.image.as_str())
            .with("created", self.created_ms)
            .with_some("started", self.started_ms)
            .with("limit_cpus", self.limit_cpus)
            .with("limit_bytes", self.limit_bytes)
            .with("source", source);
        let mut left = LABEL_BYTES_MAX;
        for (name, value) in self.labels.iter().filter(|(name, _)| is_told(name)) {
            // Escaped, a byte may become six (`\u0001`); few do.
            let escaped = serde_json::Value::from(value.as_str()).to_string().len();
            match left.checked_sub(name.len() + escaped + ",\"\":".len()) {
                Some(rest) => left = rest,
                None => break,
            }
            info = info.with(name.clone(), value.as_str());
        }
        info
    }

    /// Whether two descriptions differ in what [`Self::info`] tells.
    #[must_use]
    pub fn tells_more_than(&self, before: &Self) -> bool {
        let told = |details: &Self| details.info(0, true, "").to_json();
        told(self) != told(before)
    }
}

/// Whether an end was none of the normal ones.
#[must_use]
pub fn is_failure(exit_code: i64, oom_killed: bool) -> bool {
    oom_killed || !NORMAL_ENDS.contains(&exit_code)
}

fn is_told(label: &str) -> bool {
    label.starts_with("aklight.")
        || label == "com.docker.compose.project"
        || label == "com.docker.compose.service"
}

fn limit_cpus(host: &HostConfig) -> f64 {
    let shares = |part: i64, whole: i64| {
        let in_thousandths = part.saturating_mul(1000) / whole;
        u32::try_from(in_thousandths).map_or(0.0, |n| f64::from(n) / 1000.0)
    };
    if host.nano_cpus > 0 {
        shares(host.nano_cpus, 1_000_000_000)
    } else if host.cpu_quota > 0 {
        let period = if host.cpu_period > 0 { host.cpu_period } else { CPU_PERIOD_US };
        shares(host.cpu_quota, period)
    } else {
        0.0
    }
}

/// Unix time in milliseconds; `None` of what is no time, or the year 1, which says "never".
fn unix_ms(text: &str) -> Option<u64> {
    let time: Timestamp = text.parse().ok()?;
    u64::try_from(time.as_millisecond()).ok().filter(|ms| *ms > 0)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A container that runs, as a test may change it.
    pub(crate) fn running(id: &str, name: &str) -> Details {
        let inspected = serde_json::from_value(serde_json::json!({
            "Id": id, "Name": format!("/{name}"), "Created": "2026-11-26T01:20:36.185443259Z",
            "State": {"Status": "running", "Pid": 42, "StartedAt": "2026-11-26T01:20:36.4667Z"},
            "Config": {"Image": "nginx:1"},
        }));
        Details::new(inspected.expect("an answer"))
    }

    #[test]
    fn what_docker_and_podman_say_is_understood() {
        let docker = running("ab", "web");
        assert_eq!((docker.name.as_str(), docker.health.as_str()), ("web", "none"));
        assert_eq!(docker.started_ms, Some(1_795_656_036_466));
        assert_eq!(docker.pid, Some(42));
        let podman: Inspected = serde_json::from_value(serde_json::json!({
            "Id": "cd", "Name": "db", "Created": "2026-11-26T02:20:36.1+01:00",
            "State": {"Status": "exited", "Pid": 0, "ExitCode": 137, "OOMKilled": true,
                "StartedAt": "0001-01-01T00:00:00Z", "Health": {"Status": ""}},
            "HostConfig": {"CpuQuota": 150_000, "NetworkMode": "host"},
        }))
        .expect("an answer");
        let podman = Details::new(podman);
        assert_eq!(podman.created_ms, 1_795_656_036_100);
        assert_eq!((podman.started_ms, podman.pid), (None, None));
        assert_eq!(podman.health, "none");
        assert_eq!(podman.limit_cpus, 1.5);
        assert!(podman.is_failed() && !podman.own_network);
    }

    #[test]
    fn health_is_of_those_that_run() {
        let health = |state: &str, health: &str| {
            let inspected =
                serde_json::json!({"State": {"Status": state, "Health": {"Status": health}}});
            Details::new(serde_json::from_value(inspected).expect("an answer")).health
        };
        assert_eq!(health("running", "unhealthy"), "unhealthy");
        assert_eq!(health("paused", "unhealthy"), "none");
        assert_eq!(health("exited", "unhealthy"), "none");
    }

    #[test]
    fn normal_ends_are_no_failures_unless_killed_for_memory() {
        for (code, oom_killed, expect) in
            [(0, false, false), (130, false, false), (143, false, false), (1, false, true)]
                .into_iter()
                .chain([(137, false, true), (0, true, true)])
        {
            assert_eq!(is_failure(code, oom_killed), expect, "{code} {oom_killed}");
        }
        let mut details = running("ab", "web");
        for (state, expect) in [("created", false), ("paused", false), ("restarting", true)] {
            state.clone_into(&mut details.state);
            assert_eq!(details.is_failed(), expect, "{state}");
        }
    }

    #[test]
    fn info_tells_our_labels_and_compose_names_and_stays_a_line() {
        let mut details = running(&"ab".repeat(32), "web");
        for (name, value) in [
            ("aklight.alert.memory", "> 90 for 2m"),
            ("com.docker.compose.service", "web"),
            ("com.docker.compose.config-hash", "x"),
            ("zzz", "x"),
        ] {
            details.labels.insert(name.to_owned(), value.to_owned());
        }
        let read: serde_json::Value =
            serde_json::from_str(&details.info(5, true, "cgroup v2").to_json()).expect("JSON");
        assert_eq!(
            read,
            serde_json::json!({"ts":5,"value":1,"unit":"present","id":"abababababab",
                "image":"nginx:1","created":1_795_656_036_185_u64,"started":1_795_656_036_466_u64,
                "limit_cpus":0,"limit_bytes":0,"source":"cgroup v2",
                "aklight.alert.memory":"> 90 for 2m","com.docker.compose.service":"web"})
        );
        for n in 0..100 {
            details.labels.insert(format!("aklight.{n}"), "\u{1}".repeat(60));
        }
        let json = details.info(5, true, "cgroup v2").to_json();
        assert!(json.len() < LABEL_BYTES_MAX + 600, "{}", json.len());
    }

    #[test]
    fn a_change_of_what_is_told_is_seen() {
        let before = running("ab", "web");
        let mut after = before.clone();
        "exited".clone_into(&mut after.state);
        assert!(!after.tells_more_than(&before));
        after.labels.insert("aklight.alert.cpu".to_owned(), "> 1".to_owned());
        assert!(after.tells_more_than(&before));
    }
}
