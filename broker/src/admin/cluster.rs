//! The cluster over HTTP: `GET /cluster` shows it, `POST /cluster/…` and `POST /fault` change it.
//!
//! JSON in, JSON out: `{"done": "…"}`, or `{"error": "…"}` with a status that says whose turn it is
//! now: 400 the request makes no sense, 403 it is not allowed here, 409 the cluster must not do it
//! as it is now, 415 it is not JSON, 503 try again.
//!
//! A POST must name its body `application/json`. That is what keeps web pages out: a page of a
//! stranger may send a form or a text to any address that its reader's browser reaches, but must
//! ask before it sends JSON, and nobody here answers yes.

use aklight_common::BrokerId;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::Started;
use crate::cluster::{self, ControlError, control};
use crate::services::Services;

/// Longest body of a request: some numbers and an address.
const BODY_BYTES_MAX: usize = 4096;

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

/// Why a request is not answered with what it asked for.
enum Problem {
    Starting,
    NotJson,
    Body(String),
    Control(ControlError),
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        Self::Control(error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Self::Starting => (
                StatusCode::SERVICE_UNAVAILABLE,
                "this broker is starting and of no cluster yet: /debug/events says what it waits for"
                    .to_owned(),
            ),
            Self::NotJson => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "send JSON, with the header Content-Type: application/json".to_owned(),
            ),
            Self::Body(text) => (StatusCode::BAD_REQUEST, text),
            Self::Control(error) => {
                let status = match error {
                    ControlError::Nonsense(_) => StatusCode::BAD_REQUEST,
                    ControlError::Forbidden(_) => StatusCode::FORBIDDEN,
                    ControlError::Refused(_) => StatusCode::CONFLICT,
                    ControlError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
                };
                (status, error.to_string())
            }
        };
        (status, Json(json!({ "error": text }))).into_response()
    }
}

/// A request's body as it came.
type Body = Result<Bytes, BytesRejection>;

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

fn services(started: &Started) -> Result<&Services, Problem> {
    started.get().map(AsRef::as_ref).ok_or(Problem::Starting)
}

fn read<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(Problem::NotJson);
    }
    let body = body.map_err(|_| {
        Problem::Body(format!("the body is longer than {BODY_BYTES_MAX} bytes or broke off"))
    })?;
    serde_json::from_slice(&body).map_err(|error| Problem::Body(error.to_string()))
}

fn done(text: String) -> Response {
    Json(json!({ "done": text })).into_response()
}

async fn status(State(started): State<Started>) -> Result<Response, Problem> {
    Ok(Json(cluster::status(services(&started)?)).into_response())
}

async fn add(
    State(started): State<Started>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Add { id, peer } = read(&headers, body)?;
    Ok(done(control::add(services(&started)?, BrokerId(id), &peer).await?))
}

async fn remove(
    State(started): State<Started>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Remove { id } = read(&headers, body)?;
    Ok(done(control::remove(services(&started)?, BrokerId(id)).await?))
}

async fn replace(
    State(started): State<Started>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Replace { dead, id, peer } = read(&headers, body)?;
    let (dead, id) = (BrokerId(dead), BrokerId(id));
    Ok(done(control::replace(services(&started)?, dead, id, &peer).await?))
}

async fn transfer_leader(
    State(started): State<Started>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let TransferLeader { group, to } = read(&headers, body)?;
    Ok(done(control::transfer_leader(services(&started)?, &group, BrokerId(to)).await?))
}

async fn fault(
    State(started): State<Started>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Break { broker, fault, ms } = read(&headers, body)?;
    Ok(done(control::fault(services(&started)?, BrokerId(broker), &fault, ms).await?))
}
