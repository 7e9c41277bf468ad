//! OpenAI's error body, and which status each refusal has.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::coordinator::handle::{HandleError, SequenceError};
use crate::quoted::shortened;
use crate::scheduler::SubmitError;

/// Characters of a message at most: what it quotes is shortened where it is written, and this holds whatever was missed.
const MESSAGE_AT_MOST: usize = 1000;

/// Characters of a field's name at most.
const PARAM_AT_MOST: usize = 128;

/// A refusal as OpenAI's clients read it.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// What failed, with which value, and what to do.
    pub message: String,
    /// The request's field that is at fault.
    pub param: Option<String>,
    /// What a program reads.
    pub code: Code,
    /// Seconds after which a retry may help.
    pub retry_after: Option<u64>,
}

/// What a program reads of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, strum::IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Code {
    /// The body is no JSON object.
    InvalidJson,
    /// A field is missing.
    MissingRequiredParameter,
    /// A field's type is wrong.
    InvalidType,
    /// A field's value is out of range.
    InvalidValue,
    /// No such field.
    UnknownParameter,
    /// A field that would change the result in a way that is not offered.
    UnsupportedParameter,
    /// Prompt and tokens to generate are more than the model's context.
    ContextLengthExceeded,
    /// Another model is served.
    ModelNotFound,
    /// No such route.
    NotFound,
    /// The route has another method.
    MethodNotAllowed,
    /// The body is too long.
    RequestTooLarge,
    /// The body comes too slowly.
    RequestTimeout,
    /// The body is of a type that is not taken.
    UnsupportedMediaType,
    /// No key, or a wrong one.
    InvalidApiKey,
    /// The route is not for whoever asks.
    Forbidden,
    /// Too many requests wait.
    RateLimitExceeded,
    /// Requests are not served now.
    ServiceUnavailable,
    /// There is no load to plan from.
    NoLoad,
    /// Experts are moving already, or a plan is made.
    RebalanceUnderWay,
    /// Something that should not happen.
    InternalError,
}

impl ApiError {
    /// A refusal for one field of the request.
    #[must_use]
    pub fn field(param: &str, code: Code, message: String) -> Self {
        let refusal = Self::other(StatusCode::BAD_REQUEST, code, message);
        Self { param: Some(shortened(param, PARAM_AT_MOST)), ..refusal }
    }

    /// A refusal that no one field is to blame for.
    #[must_use]
    pub fn other(status: StatusCode, code: Code, mut message: String) -> Self {
        if message.len() > MESSAGE_AT_MOST {
            message = shortened(&message, MESSAGE_AT_MOST);
        }
        Self { status, message, param: None, code, retry_after: None }
    }

    /// A refusal for want of room, which a retry may find in a moment.
    #[must_use]
    pub fn full(message: &str) -> Self {
        let refusal = Self::other(StatusCode::SERVICE_UNAVAILABLE, Code::ServiceUnavailable, message.to_owned());
        Self { retry_after: Some(1), ..refusal }
    }

    /// The refusal as the body that clients read.
    #[must_use]
    pub fn body(&self) -> ErrorBody<'_> {
        let Self { status, message, param, code, .. } = self;
        let kind = match *status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::NOT_FOUND => "not_found_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        ErrorBody { error: ErrorFields { message, kind, param: param.as_deref(), code: *code } }
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.message)
    }
}

/// `{"error": {...}}`
#[derive(Debug, Serialize)]
pub struct ErrorBody<'a> {
    error: ErrorFields<'a>,
}

#[derive(Debug, Serialize)]
struct ErrorFields<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'a str>,
    code: Code,
}

impl From<HandleError> for ApiError {
    fn from(error: HandleError) -> Self {
        let message = error.to_string();
        match error {
            HandleError::Submit(SubmitError::QueueFull { .. }) | HandleError::Busy => Self {
                retry_after: Some(1),
                ..Self::other(StatusCode::TOO_MANY_REQUESTS, Code::RateLimitExceeded, message)
            },
            HandleError::Submit(SubmitError::TooMany { .. }) => {
                Self::other(StatusCode::BAD_REQUEST, Code::InvalidValue, message)
            }
            HandleError::Submit(SubmitError::OutgrowsCache { .. }) => {
                Self::field("max_tokens", Code::ContextLengthExceeded, message)
            }
            HandleError::Failing { reason } => SequenceError::Failing { reason }.into(),
            HandleError::Stopped => SequenceError::ShuttingDown.into(),
        }
    }
}

impl From<SequenceError> for ApiError {
    fn from(error: SequenceError) -> Self {
        let message = error.to_string();
        match error {
            SequenceError::OutgrowsCache { .. } => Self::field("max_tokens", Code::ContextLengthExceeded, message),
            SequenceError::NoNumbers | SequenceError::LostGroups => {
                Self::other(StatusCode::INTERNAL_SERVER_ERROR, Code::InternalError, message)
            }
            SequenceError::Failing { .. } => {
                Self::other(StatusCode::SERVICE_UNAVAILABLE, Code::ServiceUnavailable, message)
            }
            SequenceError::ShuttingDown => Self {
                retry_after: Some(1),
                ..Self::other(StatusCode::SERVICE_UNAVAILABLE, Code::ServiceUnavailable, message)
            },
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.body())).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        // For the log.
        response.extensions_mut().insert(self);
        response
    }
}
