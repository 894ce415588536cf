//! Why a request is not answered with what it asked for: `{"error": "…"}`, and a status that says
//! whose turn it is now: 400 the request makes no sense, 403 it is not allowed here, 409 the cluster
//! must not do it as it is now, 415 it is not JSON, 500 this broker is broken, 503 try again.

use aklight_common::wire::WireError;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::cluster::ControlError;

/// Why a request is not answered with what it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) text: String,
}

impl Problem {
    /// The request makes no sense.
    pub(super) fn nonsense(text: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, text: text.into() }
    }

    /// It may be answered later.
    pub(super) fn passing(text: impl Into<String>) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, text: text.into() }
    }

    /// Whoever asks may not.
    pub(super) fn forbidden(text: impl Into<String>) -> Self {
        Self { status: StatusCode::FORBIDDEN, text: text.into() }
    }

    /// The broker has no parts yet.
    pub(super) fn starting() -> Self {
        Self::passing(
            "this broker is starting and of no cluster yet: /debug/events says what it waits for",
        )
    }
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        let status = match error {
            ControlError::Nonsense(_) => StatusCode::BAD_REQUEST,
            ControlError::Forbidden(_) => StatusCode::FORBIDDEN,
            ControlError::Refused(_) => StatusCode::CONFLICT,
            ControlError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self { status, text: error.to_string() }
    }
}

impl From<WireError> for Problem {
    fn from(error: WireError) -> Self {
        if error.code.is_passing() {
            return Self::passing(error.text);
        }
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, text: error.text }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.text }))).into_response()
    }
}
