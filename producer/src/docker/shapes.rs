//! What an engine says, as far as we need it.
//!
//! Every field may be missing or null: Docker leaves out what is not so, Podman leaves out more,
//! and versions differ. What is missing is nothing, zero or empty; an answer is refused only when
//! it is of another kind altogether.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Deserializer};

use super::engine::EngineError;
use super::filter::Filter;

/// The answer to `/version`.
#[derive(Debug, Deserialize)]
pub struct Version {
    /// The newest version of the API that the engine takes.
    #[serde(rename = "ApiVersion")]
    pub api_version: String,
    /// The oldest.
    #[serde(rename = "MinAPIVersion", default, deserialize_with = "lenient")]
    pub min_api_version: String,
    #[serde(rename = "Version", default, deserialize_with = "lenient")]
    version: String,
    #[serde(rename = "Components", default, deserialize_with = "lenient")]
    components: Vec<Component>,
}

#[derive(Debug, Default, Deserialize)]
struct Component {
    #[serde(rename = "Name", default, deserialize_with = "lenient")]
    name: String,
}

impl Version {
    /// Who it is, in words. Docker calls its engine "Engine", Podman "Podman Engine".
    #[must_use]
    pub fn words(&self) -> String {
        let podman = self.components.iter().any(|component| component.name.contains("Podman"));
        format!("{} {}", if podman { "Podman" } else { "Docker" }, self.version)
    }
}

/// How an engine says no.
#[derive(Debug, Deserialize)]
pub struct Refusal {
    /// Why.
    pub message: String,
}

/// A container in the answer to `/containers/json`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Listed {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Each begins with a slash.
    #[serde(deserialize_with = "lenient")]
    pub names: Vec<String>,
    /// The image's name, or its id where the name is another image's by now.
    #[serde(deserialize_with = "lenient")]
    pub image: String,
    /// One word.
    #[serde(deserialize_with = "lenient")]
    pub state: String,
    /// Its labels.
    #[serde(deserialize_with = "lenient")]
    pub labels: BTreeMap<String, String>,
}

impl Listed {
    /// Whether it is worth asking what it is: an image's id says nothing of the name that the
    /// container was made from. A name with a further slash is that of a link to it.
    #[must_use]
    pub fn may_fit(&self, filter: &Filter) -> bool {
        let mut names = self.names.iter().map(|name| name.trim_start_matches('/'));
        let name = names.find(|name| !name.contains('/')).unwrap_or_default();
        self.image.starts_with("sha256:") || filter.takes(name, &self.image, &self.labels)
    }
}

/// The answer to `/containers/ID/json`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Inspected {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Begins with a slash in Docker's answer.
    #[serde(deserialize_with = "lenient")]
    pub name: String,
    /// RFC 3339.
    #[serde(deserialize_with = "lenient")]
    pub created: String,
    /// How often the engine started it again.
    #[serde(deserialize_with = "lenient")]
    pub restart_count: u64,
    /// How it is.
    #[serde(deserialize_with = "lenient")]
    pub state: State,
    /// What it was made with.
    #[serde(deserialize_with = "lenient")]
    pub config: Config,
    /// Its limits.
    #[serde(deserialize_with = "lenient")]
    pub host_config: HostConfig,
}

/// How a container is.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct State {
    /// One word.
    #[serde(deserialize_with = "lenient")]
    pub status: String,
    /// Its first process, 0 for none.
    #[serde(deserialize_with = "lenient")]
    pub pid: i32,
    /// How it ended last.
    #[serde(deserialize_with = "lenient")]
    pub exit_code: i64,
    /// Whether it was killed for memory.
    #[serde(rename = "OOMKilled", deserialize_with = "lenient")]
    pub oom_killed: bool,
    /// RFC 3339.
    #[serde(deserialize_with = "lenient")]
    pub started_at: String,
    /// Where it has a health check.
    pub health: Option<Health>,
}

/// What a health check says.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Health {
    /// `healthy`, `unhealthy`, `starting` or `none`; empty in some versions of Podman.
    #[serde(deserialize_with = "lenient")]
    pub status: String,
}

/// What a container was made with.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    /// The image as it was named.
    #[serde(deserialize_with = "lenient")]
    pub image: String,
    /// Its labels.
    #[serde(deserialize_with = "lenient")]
    pub labels: BTreeMap<String, String>,
}

/// A container's limits.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HostConfig {
    /// Bytes; 0 for none.
    #[serde(deserialize_with = "lenient")]
    pub memory: i64,
    /// Billionths of a processor; 0 for none.
    #[serde(deserialize_with = "lenient")]
    pub nano_cpus: i64,
    /// Microseconds a period; 0 or less for none.
    #[serde(deserialize_with = "lenient")]
    pub cpu_quota: i64,
    /// Microseconds; 0 for the kernel's own.
    #[serde(deserialize_with = "lenient")]
    pub cpu_period: i64,
    /// `host` for the machine's own network.
    #[serde(deserialize_with = "lenient")]
    pub network_mode: String,
}

/// A line of `/events`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Event {
    /// What happened.
    #[serde(rename = "Action", deserialize_with = "lenient")]
    pub action: String,
    /// To whom.
    #[serde(rename = "Actor", deserialize_with = "lenient")]
    pub actor: Actor,
    /// Unix time in seconds.
    #[serde(deserialize_with = "lenient")]
    pub time: u64,
    /// The same in nanoseconds.
    #[serde(rename = "timeNano", deserialize_with = "lenient")]
    pub time_nano: u64,
}

/// To whom something happened.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Actor {
    /// The container.
    #[serde(rename = "ID", deserialize_with = "lenient")]
    pub id: String,
    /// Its labels, and among them `exitCode` and the like.
    #[serde(rename = "Attributes", deserialize_with = "lenient")]
    pub attributes: HashMap<String, String>,
}

/// The answer to `/containers/ID/stats`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// CPU time so far.
    #[serde(deserialize_with = "lenient")]
    pub cpu_stats: CpuStats,
    /// Memory now.
    #[serde(deserialize_with = "lenient")]
    pub memory_stats: MemoryStats,
    /// Processes now.
    #[serde(deserialize_with = "lenient")]
    pub pids_stats: PidsStats,
    /// Bytes so far.
    #[serde(deserialize_with = "lenient")]
    pub blkio_stats: BlkioStats,
    /// Bytes so far, by interface.
    pub networks: Option<HashMap<String, InterfaceStats>>,
}

/// CPU time so far.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct CpuStats {
    /// The container's.
    #[serde(deserialize_with = "lenient")]
    pub cpu_usage: CpuUsage,
    /// The machine's, in nanoseconds.
    #[serde(deserialize_with = "lenient")]
    pub system_cpu_usage: u64,
    /// Processors.
    #[serde(deserialize_with = "lenient")]
    pub online_cpus: u32,
    /// How often the quota stopped it.
    pub throttling_data: Option<Throttling>,
}

/// The container's CPU time.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct CpuUsage {
    /// In nanoseconds.
    #[serde(deserialize_with = "lenient")]
    pub total_usage: u64,
}

/// How often the quota stopped it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Throttling {
    /// Periods that there were.
    #[serde(deserialize_with = "lenient")]
    pub periods: u64,
    /// Those in which it was stopped.
    #[serde(deserialize_with = "lenient")]
    pub throttled_periods: u64,
    /// For how long, in nanoseconds.
    #[serde(deserialize_with = "lenient")]
    pub throttled_time: u64,
}

/// Memory now.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct MemoryStats {
    /// All of it.
    pub usage: Option<u64>,
    /// The limit, or the machine's memory.
    #[serde(deserialize_with = "lenient")]
    pub limit: u64,
    /// What `memory.stat` says.
    #[serde(deserialize_with = "lenient")]
    pub stats: HashMap<String, u64>,
}

/// Processes now.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct PidsStats {
    /// How many.
    pub current: Option<u64>,
    /// At most; the largest number there is where there is no limit.
    #[serde(deserialize_with = "lenient")]
    pub limit: u64,
}

/// Bytes of disks so far.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct BlkioStats {
    /// An entry a device and an operation.
    #[serde(deserialize_with = "lenient")]
    pub io_service_bytes_recursive: Vec<BlkioEntry>,
}

/// Bytes of one operation on a device.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct BlkioEntry {
    /// The device's numbers.
    #[serde(deserialize_with = "lenient")]
    pub major: u64,
    /// See above.
    #[serde(deserialize_with = "lenient")]
    pub minor: u64,
    /// `Read` or `read`, `Write` or `write`, and others.
    #[serde(deserialize_with = "lenient")]
    pub op: String,
    /// Bytes.
    #[serde(deserialize_with = "lenient")]
    pub value: u64,
}

/// Bytes of an interface so far.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names say it, and are the engine's")]
pub struct InterfaceStats {
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub rx_errors: u64,
    pub tx_errors: u64,
    pub rx_dropped: u64,
    pub tx_dropped: u64,
}

/// What an engine answered where it must answer something.
///
/// # Errors
/// When it says that there is no such thing.
pub fn present<T>(path: &str, answer: Option<T>) -> Result<T, EngineError> {
    let reason = "it is not there".to_owned();
    answer.ok_or_else(|| EngineError::Nonsense { path: path.to_owned(), reason })
}

/// Null is nothing.
fn lenient<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_podman_leaves_out_or_sets_to_null_is_nothing() {
        let inspected: Inspected = serde_json::from_str(
            r#"{"Id":"ab","Name":"/web","State":{"Status":"running","Health":null},
                "Config":{"Image":"docker.io/library/nginx:1","Labels":null},"HostConfig":null}"#,
        )
        .expect("read");
        assert_eq!(inspected.config.labels.len(), 0);
        assert_eq!(inspected.host_config.memory, 0);
        let stats: Stats = serde_json::from_str(
            r#"{"networks":null,"blkio_stats":{"io_service_bytes_recursive":null}}"#,
        )
        .expect("read");
        assert!(stats.memory_stats.usage.is_none());
        let listed: Vec<Listed> =
            serde_json::from_str(r#"[{"Id":"ab","Names":null,"Labels":null}]"#).expect("read");
        assert_eq!(listed[0].names.len(), 0);
    }
}
