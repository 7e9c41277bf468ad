//! The admin API: what the rebalancer sees and does, and what it is told. Documents are `plan::wire`'s.

use axum::extract::{Request, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use plan::wire::{MapDocument, path};
use serde_json::json;

use super::App;
use super::body::Bodies;
use super::error::{ApiError, Code};
use crate::coordinator::handle::{AdminCommand, AdminError};
use crate::experts::rebalance::Refusal;
use crate::quoted::Quoted;

/// Bytes of a map at most: one of 100 layers and 1,000 slots in each has one.
const MAP_BYTES: usize = 8 << 20;

/// The routes, without their state.
pub fn routes() -> Router<App> {
    let maps = Bodies::of_at_most(MAP_BYTES);
    let apply = async move |State(app): State<App>, request: Request| apply_map(&app, &maps, request).await;
    Router::new()
        .route(path::STATE, get(state))
        .route(path::MAP, get(map).post(apply))
        .route(path::RECORDED_MAP, get(recorded_map))
        .route(path::LOAD, get(load))
        .route(path::MONITOR, get(monitor))
        .route(path::REBALANCE, post(rebalance))
}

async fn state(State(app): State<App>) -> Result<Response, ApiError> {
    Ok(Json(app.driver.ask(AdminCommand::Look).await?.state()).into_response())
}

async fn map(State(app): State<App>) -> Result<Response, ApiError> {
    Ok(Json(app.driver.ask(AdminCommand::Look).await?.seen.map_document()).into_response())
}

async fn recorded_map(State(app): State<App>) -> Result<Response, ApiError> {
    found(app.driver.ask(AdminCommand::Look).await?.seen.recorded(), "no map has been recorded yet")
}

async fn load(State(app): State<App>) -> Result<Response, ApiError> {
    found(app.driver.ask(AdminCommand::Look).await?.seen.last_load(), "no window has closed yet")
}

/// Asked for several times a second, it neither waits for a step nor costs one anything.
async fn monitor(State(app): State<App>, uri: Uri) -> Result<Response, ApiError> {
    let after = after(uri.query().unwrap_or_default())?;
    Ok(([(CACHE_CONTROL, "no-store")], Json(app.driver.monitor(after))).into_response())
}

/// The number that a query asks for what came after.
fn after(query: &str) -> Result<u64, ApiError> {
    let Some(number) = query.split('&').find_map(|part| part.strip_prefix("after=")) else { return Ok(0) };
    number.parse().map_err(|_| {
        let message = format!("after must be the number of an event, not \"{}\"", Quoted::<64>::from(number));
        ApiError::field("after", Code::InvalidValue, message)
    })
}

/// All maps share one room.
async fn apply_map(app: &App, maps: &Bodies, request: Request) -> Result<Response, ApiError> {
    let body = maps.take(request, None).await?;
    // The thread that answers probes does not read documents.
    let read = tokio::task::spawn_blocking(move || MapDocument::from_json(&body)).await;
    let map = read.map_err(|_| unreadable())?.map_err(AdminError::from)?;
    app.driver.ask(|reply| AdminCommand::ApplyMap(Box::new(map), reply)).await??;
    Ok(accepted())
}

async fn rebalance(State(app): State<App>) -> Result<Response, ApiError> {
    app.driver.ask(AdminCommand::Rebalance).await??;
    Ok(accepted())
}

/// Reading has panicked.
fn unreadable() -> ApiError {
    let message = "the map could not be read because of a defect of this server".to_owned();
    ApiError::other(StatusCode::INTERNAL_SERVER_ERROR, Code::InternalError, message)
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
        let (status, code) = match &error {
            AdminError::Map(_) | AdminError::Refused(Refusal::OtherShape { .. }) => {
                (StatusCode::BAD_REQUEST, Code::InvalidValue)
            }
            AdminError::Refused(Refusal::NotReady) => (StatusCode::SERVICE_UNAVAILABLE, Code::ServiceUnavailable),
            AdminError::Refused(Refusal::NoLoad) => (StatusCode::UNPROCESSABLE_ENTITY, Code::NoLoad),
            AdminError::Refused(Refusal::UnderWay) => (StatusCode::CONFLICT, Code::RebalanceUnderWay),
        };
        Self::other(status, code, error.to_string())
    }
}
