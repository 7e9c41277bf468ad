//! Whether requests are served.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use plan::wire::{HealthDocument, HealthStatus};

use super::App;
use crate::coordinator::handle::Health;

/// `GET /health`: 200 while requests are served, otherwise 503 with the reason.
pub async fn health(State(app): State<App>) -> Response {
    let (status, reason) = match app.driver.health() {
        Health::Serving => (HealthStatus::Serving, None),
        Health::NotFormed { reason } => (HealthStatus::NotServing, Some(reason)),
        Health::Failing { reason } => (HealthStatus::Failed, Some(reason)),
        Health::Stopping => (HealthStatus::NotServing, Some("the server is shutting down".to_owned())),
    };
    let code = if status == HealthStatus::Serving { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(HealthDocument { status: status.into(), reason })).into_response()
}

/// `GET /livez`: the process answers.
pub async fn livez() -> &'static str {
    "ok"
}
