//! The HTTP side of the coordinator: OpenAI's API, the admin API, health and metrics. Decides nothing about steps or
//! experts; it asks the driver.

mod access;
mod admin;
mod answers;
mod asker;
mod body;
mod bounds;
mod chat;
mod completions;
mod error;
mod fields;
mod generation;
mod generation_config;
mod health;
mod intake;
mod jinja;
mod kept;
mod keys;
mod metrics;
mod models;
mod options;
mod page;
mod scores;
mod served;
mod stream;
mod text;
mod usage;
mod written;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use plan::wire::path;
use rand::Rng as _;

use crate::coordinator::handle::DriverHandle;
use crate::quoted::Quoted;
pub use access::AdminAccess;
pub use answers::Answers;
pub use asker::Asker;
pub use body::Bodies;
pub use bounds::scores_at_most;
use error::{ApiError, Code};
pub use intake::Intake;
pub use keys::{Keys, KeysError};
pub use metrics::{Route, ServerMetrics};
pub use served::{ModelLimits, SamplingDefaults, ServedError, ServedModel};

/// What every route needs.
#[derive(Clone)]
pub struct App {
    /// The driver.
    pub driver: DriverHandle,
    /// The model that is served.
    pub model: Arc<ServedModel>,
    /// The room for bodies of requests.
    pub bodies: Bodies,
    /// The room for what is kept of answers.
    pub answers: Answers,
    /// The threads that read requests.
    pub intake: Arc<Intake>,
    /// The HTTP side's own metrics.
    pub metrics: Arc<ServerMetrics>,
    /// All metrics of the process.
    pub registry: prometheus::Registry,
}

impl App {
    /// What one request may ask of the ranks that there are.
    fn bounds(&self) -> bounds::RequestBounds {
        let Self { driver, model, .. } = self;
        bounds::RequestBounds::new(model.max_model_len, driver.capacity(), driver.sequences_at_most())
    }
}

/// What whoever finds no place is answered, whatever is asked; a retry helps.
pub(crate) fn full(message: &'static str) -> Router {
    Router::new().fallback(async move || ApiError::full(message)).layer(from_fn(asker::name))
}

/// A seed for a request that gives none.
fn new_seed() -> u64 {
    rand::rng().random()
}

/// Unix time, seconds.
fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// The routes that users reach. With keys, those of the API are for whoever shows one of them.
pub fn public(app: App, keys: Option<Arc<Keys>>) -> Router {
    let api = Router::new()
        .route("/v1/completions", post(complete))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*name}", get(models::one));
    let api = match keys {
        Some(keys) => api.route_layer(from_fn_with_state(keys, access::check_api_key)),
        None => api,
    };
    finish(api.route(path::HEALTH, get(health::health)).route("/metrics", get(metrics::metrics)), app)
}

/// The routes for operators.
pub fn admin(app: App, access: AdminAccess) -> Router {
    let api = admin::routes().route_layer(from_fn_with_state(access, access::check_admin));
    let probes = Router::new().route(path::LIVEZ, get(health::livez)).route(path::HEALTH, get(health::health));
    finish(api.merge(probes).merge(page::routes()).route("/metrics", get(metrics::metrics)), app)
}

fn finish(routes: Router<App>, app: App) -> Router {
    routes.fallback(no_route).method_not_allowed_fallback(other_method).layer(from_fn(asker::name)).with_state(app)
}

async fn complete(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let asker = Asker::of(&request, Route::Completions);
    let answer = async {
        let body = app.bodies.take(request, Some(app.bounds())).await?;
        let (model, bounds) = (Arc::clone(&app.model), app.bounds());
        let request = app.intake.run(body.len(), move || completions::read(&body, &model, bounds)).await??;
        completions::answer(&app, &asker, request).await
    };
    answer.await.inspect_err(|error| app.metrics.refused(Route::Completions, error))
}

async fn chat(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let asker = Asker::of(&request, Route::Chat);
    let answer = async {
        let body = app.bodies.take(request, Some(app.bounds())).await?;
        let (model, bounds) = (Arc::clone(&app.model), app.bounds());
        let request = app.intake.run(body.len(), move || chat::read(&body, &model, bounds)).await??;
        chat::answer(&app, &asker, request).await
    };
    answer.await.inspect_err(|error| app.metrics.refused(Route::Chat, error))
}

async fn no_route(uri: axum::http::Uri) -> ApiError {
    ApiError::other(StatusCode::NOT_FOUND, Code::NotFound, format!("no such route: {}", Quoted::<64>::from(uri.path())))
}

async fn other_method(method: axum::http::Method, uri: axum::http::Uri) -> ApiError {
    let message = format!("{} does not take {}", Quoted::<64>::from(uri.path()), Quoted::<64>::from(method));
    ApiError::other(StatusCode::METHOD_NOT_ALLOWED, Code::MethodNotAllowed, message)
}
