//! The newest values of containers, under OpenTelemetry's names (semantic conventions of container
//! metrics, as Prometheus spells them) or cAdvisor's, which dashboards of the last ten years ask for;
//! what neither has a name for is `aklight_container_…` with both.
//!
//! A container that was removed, and a value that no sample confirmed for a minute, are left out. What
//! a sample does not hold is left out as well, never guessed.

use std::collections::{BTreeMap, BTreeSet};

use aklight_common::Pattern;
use aklight_common::record::Record;
use aklight_common::wire::WireError;
use serde_json::Value;

use super::exposition::{Exposition, Family, Kind, Labels};
use crate::config::MetricNames;
use crate::fetch::newest::{newest, show};
use crate::services::Services;

/// Age at which a value is no longer the newest that there should be, in microseconds.
const STALE_US: u64 = 60 * 1_000_000;

/// What is known of one container.
#[derive(Default)]
struct Container {
    info: Value,
    /// By metric.
    samples: BTreeMap<String, Value>,
    seen_us: u64,
}

/// A producer's name and a container's, as the topic spells it.
type Name = (String, String);

/// All containers' values.
pub(super) fn text(services: &Services, names: MetricNames) -> Result<String, WireError> {
    let now_us = services.stamp.now_us();
    let find = |pattern| {
        let pattern = Pattern::new(pattern).into_iter().collect::<Vec<_>>();
        newest(&services.partitions, &pattern)
    };
    // Topics stay as long as their records: whoever was removed this week is told apart unread.
    let mut wanted = find("metrics/docker/+/+/+");
    wanted.retain(|sample| sample.time_us + STALE_US > now_us);
    let there: BTreeSet<_> = wanted.iter().filter_map(|sample| name_of(&sample.topic)).collect();
    let mut infos = find("info/docker/+/+");
    infos.retain(|info| name_of(&info.topic).is_some_and(|name| there.contains(&name)));
    wanted.append(&mut infos);
    let mut containers: BTreeMap<Name, Container> = BTreeMap::new();
    let mut look = |_, _, record: &Record<'_>| {
        if let Ok(payload) = serde_json::from_slice(record.payload) {
            place(&mut containers, record, payload);
        }
    };
    show(&services.partitions, &wanted, &mut look)?;
    let mut all = Exposition::default();
    for ((producer, name), container) in &containers {
        if container.info["value"] != 0 {
            container.expose(producer, &plain(name), names, now_us, &mut all);
        }
    }
    Ok(all.into_text())
}

/// Of which container a topic tells.
fn name_of(topic: &str) -> Option<Name> {
    let mut levels = topic.split('/').skip(2).map(str::to_owned);
    Some((levels.next()?, levels.next()?))
}

fn place(containers: &mut BTreeMap<Name, Container>, record: &Record<'_>, payload: Value) {
    let Some(name) = name_of(record.topic) else { return };
    let container = containers.entry(name).or_default();
    match record.topic.split('/').nth(4) {
        Some(metric) => {
            container.samples.insert(metric.to_owned(), payload);
            container.seen_us = container.seen_us.max(record.time_us);
        }
        None => container.info = payload,
    }
}

/// A container's name without the topic's escapes: `%` and two hexadecimal digits for a byte.
fn plain(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            _ => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Container {
    fn number(&self, metric: &str, field: &str) -> Option<f64> {
        self.samples.get(metric)?.get(field)?.as_f64()
    }

    fn text(&self, field: &str) -> &str {
        self.info[field].as_str().unwrap_or_default()
    }

    fn is_running(&self) -> bool {
        self.number("state", "value") == Some(1.0)
    }

    /// When it was started, in seconds.
    fn started(&self) -> Option<f64> {
        self.info["started"].as_f64().filter(|ms| *ms > 0.0).map(|ms| ms / 1000.0)
    }

    fn expose(
        &self,
        producer: &str,
        name: &str,
        names: MetricNames,
        now_us: u64,
        all: &mut Exposition,
    ) {
        let labels = match names {
            MetricNames::Otel => self.otel(producer, name, now_us, all),
            MetricNames::Cadvisor => self.cadvisor(producer, name, all),
        };
        let state = self.samples.get("state");
        let health = state.and_then(|state| state["health"].as_str());
        let healthy = match health {
            Some("healthy") => Some(1.0),
            Some("unhealthy") => Some(0.0),
            _ => None,
        };
        all.put(RUNNING, &labels, self.number("state", "value"));
        all.put(FAILED, &labels, self.number("state", "failed"));
        all.put(HEALTHY, &labels, healthy);
        all.put(RESTARTS, &labels, self.number("restarts", "value"));
        all.put(PROCESSES, &labels, self.number("pids", "value"));
        all.put(MEMORY_RATIO, &labels, self.number("memory", "value").map(|n| n / 100.0));
        all.put(PRESSURE, &labels, self.number("pressure", "value").map(|n| n / 100.0));
    }

    fn otel(&self, producer: &str, name: &str, now_us: u64, all: &mut Exposition) -> Labels {
        let labels = Labels::default()
            .with("container_name", name)
            .with("container_id", self.text("id"))
            .with("container_image_name", self.text("image"))
            .with("host_name", producer);
        let io = |label: &str, direction: &str| labels.clone().with(label, direction);
        let uptime = self.started().filter(|_| self.is_running());
        all.put(OTEL_CPU, &labels, self.number("cpu", "value").map(|n| n / 100.0));
        all.put(OTEL_CPU_TIME, &labels, self.cpu_seconds());
        all.put(OTEL_MEMORY, &labels, self.number("memory", "bytes"));
        let receive = io("network_io_direction", "receive");
        all.put(OTEL_NETWORK, &receive, self.number("network", "rx_bytes"));
        let transmit = io("network_io_direction", "transmit");
        all.put(OTEL_NETWORK, &transmit, self.number("network", "tx_bytes"));
        let read = io("disk_io_direction", "read");
        all.put(OTEL_DISK, &read, self.number("disk", "read_bytes"));
        let write = io("disk_io_direction", "write");
        all.put(OTEL_DISK, &write, self.number("disk", "written_bytes"));
        all.put(OTEL_UPTIME, &labels, uptime.map(|at| (now_us as f64 / 1e6 - at).max(0.0)));
        all.put(THROTTLED, &labels, self.throttled_seconds());
        labels
    }

    fn cadvisor(&self, producer: &str, name: &str, all: &mut Exposition) -> Labels {
        let id = format!("/docker/{}", self.text("id"));
        let labels = Labels::default()
            .with("id", &id)
            .with("name", name)
            .with("image", self.text("image"))
            .with("host", producer)
            .with(
                "container_label_com_docker_compose_project",
                self.text("com.docker.compose.project"),
            )
            .with(
                "container_label_com_docker_compose_service",
                self.text("com.docker.compose.service"),
            );
        let number = |metric, field| self.number(metric, field);
        let memory = number("memory", "bytes");
        let quota = self.info["limit_cpus"].as_f64().filter(|cpus| *cpus > 0.0);
        all.put(CADVISOR_CPU, &labels.clone().with("cpu", "total"), self.cpu_seconds());
        all.put(CADVISOR_THROTTLED, &labels, self.throttled_seconds());
        all.put(CADVISOR_MEMORY, &labels, memory);
        all.put(CADVISOR_WORKING_SET, &labels, memory);
        all.put(CADVISOR_RSS, &labels, number("memory", "rss_bytes"));
        for (family, metric, field) in CADVISOR_COUNTERS {
            all.put(family, &labels, number(metric, field));
        }
        all.put(CADVISOR_SEEN, &labels, Some((self.seen_us / 1_000_000) as f64));
        all.put(CADVISOR_START, &labels, self.started());
        all.put(CADVISOR_MEMORY_LIMIT, &labels, self.info["limit_bytes"].as_f64());
        all.put(CADVISOR_QUOTA, &labels, quota.map(|cpus| (cpus * CFS_PERIOD_US).round()));
        all.put(CADVISOR_PERIOD, &labels, quota.map(|_| CFS_PERIOD_US));
        labels
    }

    fn cpu_seconds(&self) -> Option<f64> {
        self.number("cpu", "usage_us").map(|us| us / 1e6)
    }

    fn throttled_seconds(&self) -> Option<f64> {
        self.number("throttling", "throttled_us").map(|us| us / 1e6)
    }
}

/// The kernel's period of CPU quotas unless it is told another, in microseconds.
const CFS_PERIOD_US: f64 = 100_000.0;

const RUNNING: Family =
    ("aklight_container_running", Kind::Gauge, "1 while the container runs, 0 while it does not.");
const FAILED: Family = (
    "aklight_container_failed",
    Kind::Gauge,
    "1 for a container that is dead, restarting, ended with an error or was killed for memory.",
);
const HEALTHY: Family = (
    "aklight_container_healthy",
    Kind::Gauge,
    "1 healthy, 0 unhealthy, by the container's own check.",
);
const RESTARTS: Family = (
    "aklight_container_restarts_total",
    Kind::Counter,
    "Restarts by the engine since the container was created.",
);
const PROCESSES: Family = ("aklight_container_processes", Kind::Gauge, "Processes and threads.");
const MEMORY_RATIO: Family = (
    "aklight_container_memory_used_ratio",
    Kind::Gauge,
    "Memory used of the limit, or of the machine's memory where there is none.",
);
const PRESSURE: Family = (
    "aklight_container_pressure_ratio",
    Kind::Gauge,
    "Time in which something waited for CPU, memory or disk, of the last 10 seconds.",
);
const THROTTLED: Family = (
    "aklight_container_throttled_seconds_total",
    Kind::Counter,
    "Time for which the container was throttled.",
);

const OTEL_CPU: Family = ("container_cpu_usage", Kind::Gauge, "CPU usage, in CPUs.");
const OTEL_CPU_TIME: Family =
    ("container_cpu_time_seconds_total", Kind::Counter, "CPU time consumed.");
const OTEL_MEMORY: Family = (
    "container_memory_usage_bytes",
    Kind::Gauge,
    "Memory usage, without file pages that are not in use.",
);
const OTEL_NETWORK: Family =
    ("container_network_io_bytes_total", Kind::Counter, "Bytes received and transmitted.");
const OTEL_DISK: Family =
    ("container_disk_io_bytes_total", Kind::Counter, "Bytes read from and written to disks.");
const OTEL_UPTIME: Family =
    ("container_uptime_seconds", Kind::Gauge, "Time since the container was started.");

const CADVISOR_CPU: Family = (
    "container_cpu_usage_seconds_total",
    Kind::Counter,
    "Cumulative cpu time consumed in seconds.",
);
const CADVISOR_THROTTLED: Family = (
    "container_cpu_cfs_throttled_seconds_total",
    Kind::Counter,
    "Total time duration the container has been throttled.",
);
const CADVISOR_MEMORY: Family = (
    "container_memory_usage_bytes",
    Kind::Gauge,
    "Current memory usage in bytes; here the working set.",
);
const CADVISOR_WORKING_SET: Family =
    ("container_memory_working_set_bytes", Kind::Gauge, "Current working set in bytes.");
const CADVISOR_RSS: Family = ("container_memory_rss", Kind::Gauge, "Size of RSS in bytes.");
const CADVISOR_SEEN: Family =
    ("container_last_seen", Kind::Gauge, "Last time a container was seen by the exporter.");
const CADVISOR_START: Family = (
    "container_start_time_seconds",
    Kind::Gauge,
    "Start time of the container since unix epoch in seconds.",
);
const CADVISOR_MEMORY_LIMIT: Family = (
    "container_spec_memory_limit_bytes",
    Kind::Gauge,
    "Memory limit for the container; 0 without one.",
);
const CADVISOR_QUOTA: Family =
    ("container_spec_cpu_quota", Kind::Gauge, "CPU quota of the container.");
const CADVISOR_PERIOD: Family =
    ("container_spec_cpu_period", Kind::Gauge, "CPU period of the container.");

/// Counters that are a field of a sample, one to one.
const CADVISOR_COUNTERS: [(Family, &str, &str); 8] = [
    (
        (
            "container_network_receive_bytes_total",
            Kind::Counter,
            "Cumulative count of bytes received.",
        ),
        "network",
        "rx_bytes",
    ),
    (
        (
            "container_network_transmit_bytes_total",
            Kind::Counter,
            "Cumulative count of bytes transmitted.",
        ),
        "network",
        "tx_bytes",
    ),
    (
        (
            "container_network_receive_errors_total",
            Kind::Counter,
            "Cumulative count of errors encountered while receiving.",
        ),
        "network",
        "rx_errors",
    ),
    (
        (
            "container_network_transmit_errors_total",
            Kind::Counter,
            "Cumulative count of errors encountered while transmitting.",
        ),
        "network",
        "tx_errors",
    ),
    (
        (
            "container_network_receive_packets_dropped_total",
            Kind::Counter,
            "Cumulative count of packets dropped while receiving.",
        ),
        "network",
        "rx_dropped",
    ),
    (
        (
            "container_network_transmit_packets_dropped_total",
            Kind::Counter,
            "Cumulative count of packets dropped while transmitting.",
        ),
        "network",
        "tx_dropped",
    ),
    (
        ("container_fs_reads_bytes_total", Kind::Counter, "Cumulative count of bytes read."),
        "disk",
        "read_bytes",
    ),
    (
        ("container_fs_writes_bytes_total", Kind::Counter, "Cumulative count of bytes written."),
        "disk",
        "written_bytes",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_without_their_escapes() {
        assert_eq!(plain("web-1"), "web-1");
        assert_eq!(plain("a%2Fb%25"), "a/b%");
        assert_eq!(plain("50%"), "50%");
        assert_eq!(plain("%zz"), "%zz");
    }
}
