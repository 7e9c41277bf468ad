//! Whether requests are served.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::App;
use crate::coordinator::handle::Health;

/// `GET /health`: 200 while requests are served, otherwise 503 with the reason.
pub async fn health(State(app): State<App>) -> Response {
    let (status, reason) = match app.driver.health() {
        Health::Serving => return Json(json!({"status": "serving"})).into_response(),
        Health::NotFormed { reason } => ("not serving", reason),
        Health::Failing { reason } => ("failed", reason),
        Health::Stopping => ("not serving", "the server is shutting down".to_owned()),
    };
    let body = Json(json!({"status": status, "reason": reason}));
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

/// `GET /livez`: the process answers.
pub async fn livez() -> &'static str {
    "ok"
}
