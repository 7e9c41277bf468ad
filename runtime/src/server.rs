//! The HTTP side of the coordinator: OpenAI's API, the admin API, health and metrics. Decides nothing about steps or
//! experts; it asks the driver.

mod admin;
mod bounds;
mod chat;
mod completions;
mod error;
mod fields;
mod generation;
mod generation_config;
mod health;
mod intake;
mod metrics;
mod models;
mod options;
mod served;
mod stream;
mod text;
mod usage;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use rand::Rng as _;

use crate::coordinator::handle::DriverHandle;
use crate::quoted::Quoted;
use error::{ApiError, Code};
pub use intake::Intake;
pub use metrics::{Route, ServerMetrics};
pub use served::{ModelLimits, SamplingDefaults, ServedError, ServedModel};

/// What every route needs.
#[derive(Clone)]
pub struct App {
    /// The driver.
    pub driver: DriverHandle,
    /// The model that is served.
    pub model: Arc<ServedModel>,
    /// The threads that read requests.
    pub intake: Arc<Intake>,
    /// The HTTP side's own metrics.
    pub metrics: Arc<ServerMetrics>,
    /// All metrics of the process.
    pub registry: prometheus::Registry,
}

impl App {
    /// What one request may ask for now.
    fn bounds(&self) -> bounds::Bounds {
        let Self { driver, model, .. } = self;
        bounds::Bounds::new(model.max_model_len, driver.capacity(), driver.sequences_at_most())
    }
}

/// A seed for a request that gives none.
fn new_seed() -> u64 {
    rand::rng().random()
}

/// Unix time, seconds.
fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// The routes that users reach. Bodies longer than `body_limit` bytes are refused.
pub fn public(app: App, body_limit: usize) -> Router {
    Router::new()
        .route("/v1/completions", post(complete))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*name}", get(models::one))
        .route("/health", get(health::health))
        .route("/metrics", get(metrics::metrics))
        .fallback(no_route)
        .method_not_allowed_fallback(other_method)
        .layer(DefaultBodyLimit::max(body_limit))
        .with_state(app)
}

/// The routes for operators.
pub fn admin(app: App, body_limit: usize) -> Router {
    admin::routes()
        .route("/livez", get(health::livez))
        .route("/health", get(health::health))
        .route("/metrics", get(metrics::metrics))
        .fallback(no_route)
        .method_not_allowed_fallback(other_method)
        .layer(DefaultBodyLimit::max(body_limit))
        .with_state(app)
}

async fn complete(State(app): State<App>, body: Result<Bytes, BytesRejection>) -> Result<Response, ApiError> {
    let (model, bounds, body) = (Arc::clone(&app.model), app.bounds(), read(body)?);
    let answer = async {
        let request = app.intake.run(move || completions::read(&body, &model, bounds)).await??;
        completions::answer(&app, request).await
    };
    answer.await.inspect_err(|error| app.metrics.refused(Route::Completions, error))
}

async fn chat(State(app): State<App>, body: Result<Bytes, BytesRejection>) -> Result<Response, ApiError> {
    let (model, bounds, body) = (Arc::clone(&app.model), app.bounds(), read(body)?);
    let answer = async {
        let request = app.intake.run(move || chat::read(&body, &model, bounds)).await??;
        chat::answer(&app, request).await
    };
    answer.await.inspect_err(|error| app.metrics.refused(Route::Chat, error))
}

fn read(body: Result<Bytes, BytesRejection>) -> Result<Bytes, ApiError> {
    body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let message = "the request body is longer than this server takes".to_owned();
            ApiError::other(StatusCode::PAYLOAD_TOO_LARGE, Code::RequestTooLarge, message)
        }
        status => ApiError::other(status, Code::InvalidJson, rejection.body_text()),
    })
}

async fn no_route(uri: axum::http::Uri) -> ApiError {
    ApiError::other(StatusCode::NOT_FOUND, Code::NotFound, format!("no such route: {}", Quoted::<64>::from(uri.path())))
}

async fn other_method(method: axum::http::Method, uri: axum::http::Uri) -> ApiError {
    let message = format!("{} does not take {}", Quoted::<64>::from(uri.path()), Quoted::<64>::from(method));
    ApiError::other(StatusCode::METHOD_NOT_ALLOWED, Code::MethodNotAllowed, message)
}
