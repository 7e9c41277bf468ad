//! The admin API: what the rebalancer sees and does, and what it is told. Documents are `plan::wire`'s.

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use plan::wire::{MapDocument, path};
use serde_json::json;

use super::error::{ApiError, Code};
use super::{App, read};
use crate::coordinator::handle::{AdminCommand, AdminError};

/// The routes, without their state.
pub fn routes() -> Router<App> {
    Router::new()
        .route(path::STATE, get(state))
        .route(path::MAP, get(map).post(apply_map))
        .route(path::RECORDED_MAP, get(recorded_map))
        .route(path::LOAD, get(load))
        .route(path::REBALANCE, post(rebalance))
}

async fn state(State(app): State<App>) -> Result<Response, ApiError> {
    Ok(Json(app.driver.ask(AdminCommand::State).await?).into_response())
}

async fn map(State(app): State<App>) -> Result<Response, ApiError> {
    Ok(Json(app.driver.ask(AdminCommand::Map).await?).into_response())
}

async fn recorded_map(State(app): State<App>) -> Result<Response, ApiError> {
    found(app.driver.ask(AdminCommand::RecordedMap).await?, "no map has been recorded yet")
}

async fn load(State(app): State<App>) -> Result<Response, ApiError> {
    found(app.driver.ask(AdminCommand::Load).await?, "no window has closed yet")
}

async fn apply_map(State(app): State<App>, body: Result<Bytes, BytesRejection>) -> Result<Response, ApiError> {
    let map = MapDocument::from_json(&read(body)?).map_err(AdminError::from)?;
    app.driver.ask(|reply| AdminCommand::ApplyMap(Box::new(map), reply)).await??;
    Ok(accepted())
}

async fn rebalance(State(app): State<App>) -> Result<Response, ApiError> {
    app.driver.ask(AdminCommand::Rebalance).await??;
    Ok(accepted())
}

fn accepted() -> Response {
    (StatusCode::ACCEPTED, Json(json!({"status": "accepted"}))).into_response()
}

fn found(document: Option<impl serde::Serialize>, missing: &str) -> Result<Response, ApiError> {
    match document {
        Some(document) => Ok(Json(document).into_response()),
        None => Err(ApiError::other(StatusCode::NOT_FOUND, Code::NotFound, missing.to_owned())),
    }
}

impl From<AdminError> for ApiError {
    fn from(error: AdminError) -> Self {
        let status = match &error {
            AdminError::Map(_) | AdminError::Refused(_) => StatusCode::BAD_REQUEST,
            AdminError::Busy(_) => StatusCode::CONFLICT,
        };
        Self::other(status, Code::InvalidValue, error.to_string())
    }
}
