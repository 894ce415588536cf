//! `GET /metrics`: what this broker counts of itself (`aklight_…`), then the newest values of every
//! container that it has records of (`containers`). Every broker has copies of all: scrape one, or
//! take the containers from one of them.
//!
//! Containers are shown to those that the `guard` lets in. Others read the broker's own numbers, and in
//! a comment why no more.
//!
//! The answer is Prometheus text, version 0.0.4, which everything that scrapes reads. Our library
//! writes its younger form, OpenMetrics; `to_text` makes the older one of it.

mod containers;
mod exposition;

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tokio::sync::Semaphore;

use super::guard::Guard;
use super::{Started, starting};
use crate::config::MetricNames;
use crate::services::Services;
use crate::stats::Stats;

/// Answers that read the log at once: scrapes that pile up must not take the broker's time.
const READING_MAX: usize = 1;

const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionLabel {
    partition: u32,
}

type Gauges = Family<PartitionLabel, Gauge<i64, AtomicI64>>;

#[derive(Clone)]
struct Metrics {
    started: Started,
    guard: Guard,
    names: MetricNames,
    registry: Arc<Registry>,
    offsets: Gauges,
    starts: Gauges,
    bytes: Gauges,
    reading: Arc<Semaphore>,
}

pub(super) fn routes(started: Started, guard: Guard, stats: &Stats, names: MetricNames) -> Router {
    let metrics = Metrics::new(started, guard, stats, names);
    Router::new().route("/metrics", get(answer)).with_state(metrics)
}

impl Metrics {
    fn new(started: Started, guard: Guard, stats: &Stats, names: MetricNames) -> Self {
        let mut registry = Registry::with_prefix("aklight");
        stats.register(&mut registry);
        let (offsets, starts, bytes) = (Gauges::default(), Gauges::default(), Gauges::default());
        registry.register(
            "partition_end_offset",
            "The next offset that readers will see",
            offsets.clone(),
        );
        registry.register(
            "partition_start_offset",
            "The first offset that is kept",
            starts.clone(),
        );
        registry.register_with_unit(
            "partition_size",
            "Size of the partition's log on disk",
            Unit::Bytes,
            bytes.clone(),
        );
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The broker's version", build);
        let reading = Arc::new(Semaphore::new(READING_MAX));
        Self {
            started,
            guard,
            names,
            registry: Arc::new(registry),
            offsets,
            starts,
            bytes,
            reading,
        }
    }

    fn look(&self, services: &Services) {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        for partition in services.partitions.iter() {
            let label = PartitionLabel { partition: partition.id.0 };
            self.offsets.get_or_create(&label).set(number(partition.end().0));
            self.starts.get_or_create(&label).set(number(partition.start().0));
            self.bytes.get_or_create(&label).set(number(partition.log.bounds().bytes));
        }
    }
}

async fn answer(State(metrics): State<Metrics>, headers: HeaderMap) -> Response {
    let Some(services) = metrics.started.get().cloned() else { return starting() };
    metrics.look(&services);
    let mut own = String::new();
    if let Err(error) = encode(&mut own, &metrics.registry) {
        return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response();
    }
    let kind = [(header::CONTENT_TYPE, KIND)];
    if let Err(problem) = metrics.guard.judge(&headers) {
        let text = to_text(&own) + &format!("# No containers: {}\n", problem.text);
        return (kind, text).into_response();
    }
    let names = metrics.names;
    let turn = metrics.reading.clone().acquire_owned().await;
    let reading = tokio::task::spawn_blocking(move || {
        // Held until it is done, even when nobody waits for the answer any more.
        let _turn = turn;
        containers::text(&services, names)
    });
    match reading.await {
        Ok(Ok(containers)) => (kind, to_text(&own) + &containers).into_response(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        Err(_) => starting(),
    }
}

/// The older form of OpenMetrics text: there a counter's name is the one that its value has
/// (`…_total`), information is a gauge, and there are no units and no end mark.
fn to_text(open: &str) -> String {
    let mut text = String::with_capacity(open.len());
    let mut help = None;
    for line in open.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                other => ("", other),
            };
            let help = help.take().map_or("", |(_, help)| help);
            text += &format!("# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n");
        } else if !line.starts_with('#') {
            text += line;
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_their_values() {
        let guard = Guard { started: Started::default(), hosts: Vec::new() };
        let (started, stats) = (Started::default(), Stats::default());
        let metrics = Metrics::new(started, guard, &stats, MetricNames::default());
        metrics.bytes.get_or_create(&PartitionLabel { partition: 0 }).set(7);
        let mut open = String::new();
        encode(&mut open, &metrics.registry).expect("encodes");
        let text = to_text(&open);
        for expect in [
            "# HELP aklight_records_stored_total Records acknowledged to producers.\n# TYPE aklight_records_stored_total counter\naklight_records_stored_total 0\n",
            "# TYPE aklight_partition_size_bytes gauge\naklight_partition_size_bytes{partition=\"0\"} 7\n",
            "# TYPE aklight_build_info gauge\naklight_build_info{version=",
        ] {
            assert!(text.contains(expect), "{expect}\n{text}");
        }
        assert!(!text.contains("# EOF") && !text.contains("# UNIT"), "{text}");
    }
}
