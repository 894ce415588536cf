//! The cluster over HTTP: `GET /cluster` shows it, `POST /cluster/…` and `POST /fault` change it.
//!
//! JSON in, JSON out: `{"done": "…"}`, or `{"error": "…"}` (see `problem`).

use aklight_common::BrokerId;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::guard::{BODY_BYTES_MAX, Body, read_json};
use super::problem::Problem;
use super::{Started, parts};
use crate::cluster::{self, control};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Add {
    id: u64,
    peer: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remove {
    id: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Replace {
    dead: u64,
    id: u64,
    peer: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TransferLeader {
    group: String,
    to: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Break {
    broker: u64,
    fault: String,
    ms: Option<u64>,
}

pub(super) fn routes(started: Started) -> Router {
    Router::new()
        .route("/cluster", get(status))
        .route("/cluster/add", post(add))
        .route("/cluster/remove", post(remove))
        .route("/cluster/replace", post(replace))
        .route("/cluster/transfer-leader", post(transfer_leader))
        .route("/fault", post(fault))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(started)
}

fn done(text: String) -> Response {
    Json(json!({ "done": text })).into_response()
}

async fn status(State(started): State<Started>) -> Result<Response, Problem> {
    Ok(Json(cluster::status(parts(&started)?)).into_response())
}

async fn add(
    State(started): State<Started>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Add { id, peer } = read_json(&headers, body)?;
    Ok(done(control::add(parts(&started)?, BrokerId(id), &peer).await?))
}

async fn remove(
    State(started): State<Started>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Remove { id } = read_json(&headers, body)?;
    Ok(done(control::remove(parts(&started)?, BrokerId(id)).await?))
}

async fn replace(
    State(started): State<Started>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Replace { dead, id, peer } = read_json(&headers, body)?;
    let (dead, id) = (BrokerId(dead), BrokerId(id));
    Ok(done(control::replace(parts(&started)?, dead, id, &peer).await?))
}

async fn transfer_leader(
    State(started): State<Started>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let TransferLeader { group, to } = read_json(&headers, body)?;
    Ok(done(control::transfer_leader(parts(&started)?, &group, BrokerId(to)).await?))
}

async fn fault(
    State(started): State<Started>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Break { broker, fault, ms } = read_json(&headers, body)?;
    Ok(done(control::fault(parts(&started)?, BrokerId(broker), &fault, ms).await?))
}
