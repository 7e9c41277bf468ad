//! `/v1/models`.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use super::App;
use super::error::{ApiError, Code};

#[derive(Serialize)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    owned_by: &'static str,
    /// The model behind the name: the same; vLLM's clients read it.
    root: &'a str,
    /// Tokens of prompt and answer together; vLLM's clients read it.
    max_model_len: usize,
}

fn model(app: &App) -> Model<'_> {
    let model = &app.model;
    Model {
        id: &model.name,
        object: "model",
        created: model.created,
        owned_by: "swiftbalancer",
        root: &model.name,
        max_model_len: app.bounds().context,
    }
}

/// `GET /v1/models`
pub async fn list(State(app): State<App>) -> Response {
    Json(json!({"object": "list", "data": [model(&app)]})).into_response()
}

/// `GET /v1/models/{name}`
pub async fn one(State(app): State<App>, name: Result<Path<String>, PathRejection>) -> Result<Response, ApiError> {
    // A name that is no text is no model's.
    let name = name.map_or_else(|_| "\u{fffd}".to_owned(), |Path(name)| name);
    if name != app.model.name {
        let refusal = ApiError::field("model", Code::ModelNotFound, app.model.other_name(&name));
        return Err(ApiError { status: StatusCode::NOT_FOUND, ..refusal });
    }
    Ok(Json(model(&app)).into_response())
}
