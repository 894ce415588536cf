//! What is asked of a broker over HTTP: is it alive, is it ready, how much has it done, what
//! happened lately; the cluster; the records, as JSON and as a page. The one place that names axum.
//!
//! - `/livez`, `/readyz`, `/debug/events`: `health`
//! - `/metrics`: `metrics`
//! - `/cluster`, `/fault`: the cluster, to see and to change: `cluster`
//! - `/api/…`: records, and what people do about alerts: `api`
//! - `/`, `/page/…`: the page: `page`
//! - `/openapi.json`: all of these, described
//!
//! What browsers use is behind the `guard`, and so are the containers in `/metrics`; what else
//! machines ask is not.

mod api;
mod cluster;
mod guard;
mod health;
mod limited;
mod metrics;
mod page;
mod problem;

use std::io;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::HttpConfig;
use crate::services::Services;
use crate::telemetry::Telemetry;
use guard::Guard;
use limited::{Lease, Limited};
use problem::Problem;

pub use limited::CONNECTIONS_MAX;

/// The broker's parts, once they are there: HTTP is served before.
pub type Started = Arc<OnceLock<Arc<Services>>>;

/// What is served, in OpenAPI's words.
const DESCRIPTION: &str = include_str!("openapi.json");

/// Answers until the broker shuts down.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(
    listener: TcpListener,
    services: Started,
    telemetry: Telemetry,
    config: HttpConfig,
    stopping: CancellationToken,
) -> io::Result<()> {
    let guard = Guard { started: services.clone(), hosts: config.hosts };
    let guarded = Router::new()
        .route("/openapi.json", get(description))
        .merge(api::routes(services.clone()))
        .merge(cluster::routes(services.clone()))
        .merge(page::routes())
        .layer(from_fn_with_state(guard.clone(), guard::check));
    let router = health::routes(services.clone(), telemetry.events)
        .merge(metrics::routes(services, guard, &telemetry.stats, config.metric_names))
        .merge(guarded);
    let service = router.into_make_service_with_connect_info::<Lease>();
    axum::serve(Limited::new(listener), service)
        .with_graceful_shutdown(async move { stopping.cancelled().await })
        .await
}

fn parts(started: &Started) -> Result<&Arc<Services>, Problem> {
    started.get().ok_or_else(Problem::starting)
}

async fn description() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DESCRIPTION).into_response()
}

fn starting() -> Response {
    let text = "this broker is starting: /debug/events says what it waits for\n";
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}
