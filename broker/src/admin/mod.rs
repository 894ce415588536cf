//! What is asked of a broker over HTTP: is it alive, is it ready, how much has it done, what
//! happened lately. The one place that names axum.
//!
//! `GET /livez`, `/readyz`, `/metrics` (Prometheus text), `/debug/events` (JSON).

mod limited;

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

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

use crate::events::Event;
use crate::services::Services;
use limited::Limited;

pub use limited::CONNECTIONS_MAX;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionLabel {
    partition: u32,
}

#[derive(Clone)]
struct Admin {
    services: Arc<Services>,
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
pub async fn serve(listener: TcpListener, services: Arc<Services>) -> io::Result<()> {
    let stopping = services.stopping.clone();
    let router = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/debug/events", get(events))
        .with_state(Admin::new(services));
    axum::serve(Limited::new(listener), router)
        .with_graceful_shutdown(async move { stopping.cancelled().await })
        .await
}

impl Admin {
    fn new(services: Arc<Services>) -> Self {
        let mut registry = Registry::with_prefix("aklight");
        services.stats.register(&mut registry);
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
        Self { services, registry: Arc::new(registry), offsets, starts, bytes }
    }
}

async fn ready(State(admin): State<Admin>) -> Response {
    let broken: Vec<_> = admin
        .services
        .partitions
        .iter()
        .filter_map(|partition| {
            let status = partition.status();
            let why = status
                .failed
                .or_else(|| status.leader.is_none().then(|| "no broker leads it".to_owned()))?;
            Some(format!("partition {}: {why}\n", partition.id))
        })
        .collect();
    if broken.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, broken.concat()).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    for partition in admin.services.partitions.iter() {
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
    Json(admin.services.events.recent().into_iter().map(ShownEvent::from).collect())
}
