//! What is asked of a broker over HTTP: is it alive, is it ready, how much has it done, what
//! happened lately. The one place that names axum.
//!
//! `GET /livez`, `/readyz`, `/metrics` (Prometheus text), `/debug/events` (JSON); the cluster, to see
//! and to change: see `cluster`.

mod cluster;
mod limited;

use std::io;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, OnceLock};

use aklight_common::BrokerId;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::events::{Event, Events};
use crate::services::Services;
use crate::sessions::Standing;
use crate::telemetry::Telemetry;
use limited::Limited;

pub use limited::CONNECTIONS_MAX;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionLabel {
    partition: u32,
}

/// The broker's parts, once they are there: HTTP is served before.
pub type Started = Arc<OnceLock<Arc<Services>>>;

#[derive(Clone)]
struct Admin {
    started: Started,
    events: Arc<Events>,
    registry: Arc<Registry>,
    offsets: Family<PartitionLabel, Gauge<i64, AtomicI64>>,
    starts: Family<PartitionLabel, Gauge<i64, AtomicI64>>,
    bytes: Family<PartitionLabel, Gauge<i64, AtomicI64>>,
}

/// An event as it is shown; `at` is RFC 3339, UTC.
#[derive(Serialize)]
struct ShownEvent {
    at: String,
    level: &'static str,
    kind: &'static str,
    text: String,
}

impl From<Event> for ShownEvent {
    fn from(event: Event) -> Self {
        let Event { at_ms, level, kind, text } = event;
        let at = i64::try_from(at_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        Self {
            at: at.map_or_else(String::new, |at| at.to_string()),
            level: level.as_str(),
            kind,
            text,
        }
    }
}

/// Answers until the broker shuts down.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(
    listener: TcpListener,
    services: Started,
    telemetry: Telemetry,
    stopping: CancellationToken,
) -> io::Result<()> {
    let router = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/debug/events", get(events))
        .with_state(Admin::new(services.clone(), telemetry))
        .merge(cluster::routes(services));
    axum::serve(Limited::new(listener), router)
        .with_graceful_shutdown(async move { stopping.cancelled().await })
        .await
}

impl Admin {
    fn new(started: Started, telemetry: Telemetry) -> Self {
        let Telemetry { events, stats } = telemetry;
        let mut registry = Registry::with_prefix("aklight");
        stats.register(&mut registry);
        let (offsets, starts, bytes) = (Family::default(), Family::default(), Family::default());
        registry.register(
            "partition_end_offset",
            "The next offset that readers will see",
            Family::clone(&offsets),
        );
        registry.register(
            "partition_start_offset",
            "The first offset that is kept",
            Family::clone(&starts),
        );
        registry.register_with_unit(
            "partition_size",
            "Size of the partition's log on disk",
            Unit::Bytes,
            Family::clone(&bytes),
        );
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The broker's version", build);
        Self { started, events, registry: Arc::new(registry), offsets, starts, bytes }
    }
}

fn starting() -> Response {
    let text = "this broker is starting: /debug/events says what it waits for\n";
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn ready(State(admin): State<Admin>) -> Response {
    let Some(services) = admin.started.get() else { return starting() };
    if services.sessions.metadata().standing(services.broker, "") == Standing::Retired {
        let text =
            "this broker was removed from the cluster, and ends once no group counts on it\n";
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    let mut broken: Vec<_> = services
        .partitions
        .iter()
        .filter_map(|partition| {
            let status = partition.status();
            // One that died without a majority to elect another is remembered on.
            let is_led = status.leader.is_some_and(|leader| services.pulse.is_alive(leader));
            let why =
                status.failed.or_else(|| (!is_led).then(|| "no broker leads it".to_owned()))?;
            Some(format!("partition {}: {why}\n", partition.id))
        })
        .collect();
    // One that leads does not learn from that that nobody follows any more.
    let is_deserted = services.pulse.own().groups.iter().any(|group| {
        let alive = group.voters.iter().filter(|id| services.pulse.is_alive(BrokerId(**id)));
        !group.voters.is_empty() && 2 * alive.count() <= group.voters.len()
    });
    if is_deserted {
        broken.push("no majority of the brokers is there: records cannot be stored\n".to_owned());
    }
    if broken.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, broken.concat()).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let Some(services) = admin.started.get() else { return starting() };
    for partition in services.partitions.iter() {
        let label = PartitionLabel { partition: partition.id.0 };
        admin.offsets.get_or_create(&label).set(number(partition.end().0));
        admin.starts.get_or_create(&label).set(number(partition.start().0));
        admin.bytes.get_or_create(&label).set(number(partition.log.bounds().bytes));
    }
    let mut text = String::new();
    if let Err(error) = encode(&mut text, &admin.registry) {
        return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response();
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn events(State(admin): State<Admin>) -> Json<Vec<ShownEvent>> {
    Json(admin.events.recent().into_iter().map(ShownEvent::from).collect())
}
