//! Requests as the HTTP side counts them, and the page that shows all metrics.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus::{IntCounterVec, IntGauge, Opts, Registry, TextEncoder};
use strum::IntoEnumIterator as _;

use super::App;
use super::answers::{Lost, Share};
use super::asker::Asker;
use super::error::{ApiError, Code};
use crate::coordinator::unread::Unread;

/// A route that generates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::EnumIter)]
#[strum(serialize_all = "snake_case")]
pub enum Route {
    /// `/v1/completions`
    Completions,
    /// `/v1/chat/completions`
    Chat,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::EnumIter)]
#[strum(serialize_all = "snake_case")]
pub enum Outcome {
    /// Every choice came to its end.
    Completed,
    /// The client went away.
    Cancelled,
    /// The request is wrong.
    Refused,
    /// Too many waited.
    Overloaded,
    /// It could not be served.
    Failed,
}

/// Requests.
#[derive(Debug)]
pub struct ServerMetrics {
    requests: IntCounterVec,
    in_flight: IntGauge,
}

impl ServerMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// If they are registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let requests = Opts::new("swiftbalancer_requests_total", "Requests that ended, by route and outcome.");
        let requests = IntCounterVec::new(requests, &["route", "outcome"])?;
        let in_flight = IntGauge::new("swiftbalancer_requests_in_flight", "Requests that are being answered.")?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(in_flight.clone()))?;
        // A counter that starts to exist with its first event has no rate for it.
        for route in Route::iter() {
            for outcome in Outcome::iter() {
                requests.with_label_values(&[route.into(), <&str>::from(outcome)]);
            }
        }
        Ok(Self { requests, in_flight })
    }

    /// Counts a request that was refused before it had a sequence, or whose answer ended in an error.
    pub fn refused(&self, route: Route, error: &ApiError) {
        let outcome = match error.status {
            StatusCode::TOO_MANY_REQUESTS => Outcome::Overloaded,
            status if status.is_client_error() => Outcome::Refused,
            _ => Outcome::Failed,
        };
        self.ended(route, outcome);
    }

    fn ended(&self, route: Route, outcome: Outcome) {
        self.requests.with_label_values(&[route.into(), <&str>::from(outcome)]).inc();
    }

    /// Counts a request as being answered, until the guard is dropped.
    #[must_use]
    pub fn start(self: &Arc<Self>, asker: Asker, share: Share, unread: Option<Arc<Unread>>) -> InFlight {
        self.in_flight.inc();
        InFlight { metrics: Arc::clone(self), asker, share, unread, outcome: Some(Outcome::Cancelled) }
    }
}

/// Why a request was ended of which more than of any other waited.
pub const MOST_WAITED: &str = "answers that wait to be read take all the room that requests share for them, and of this one \
                               most waited; it was ended";

/// A request that is being answered, with its share of the room for answers. Dropped without a word, it was cancelled.
#[derive(Debug)]
pub struct InFlight {
    metrics: Arc<ServerMetrics>,
    asker: Asker,
    share: Share,
    /// What waits to be read of its sequences, if it has any.
    unread: Option<Arc<Unread>>,
    outcome: Option<Outcome>,
}

impl InFlight {
    /// It has come to its end.
    pub const fn complete(&mut self) {
        self.outcome = Some(Outcome::Completed);
    }

    /// Its error goes to the route, which counts it.
    pub const fn failed(&mut self) {
        self.outcome = None;
    }

    /// Takes room for so many bytes of its answer.
    ///
    /// # Errors
    /// If it has lost its share.
    pub fn keep(&mut self, bytes: usize) -> Result<(), Lost> {
        self.share.take(bytes)
    }

    /// Nothing is kept of its answer any more.
    pub fn keep_nothing(&mut self) {
        self.share.give_back();
    }

    /// From now on its answer is sent: there is no other way to end it than to close the connection.
    pub fn is_sent(&self) {
        self.share.is_sent_to(self.asker.reader.clone());
        if let Some(unread) = &self.unread {
            unread.is_sent_to(self.asker.reader.clone());
        }
    }

    /// Whether it has lost its share.
    #[must_use]
    pub fn has_lost_its_share(&self) -> bool {
        self.share.is_lost()
    }

    /// Done when it has.
    pub async fn lost(&self) {
        self.share.lost().await;
    }

    /// Whether it was ended because of all requests most of it waited to be read.
    #[must_use]
    pub fn most_waited(&self) -> bool {
        self.unread.as_ref().is_some_and(|unread| unread.is_lost())
    }

    /// Its error goes into the stream: counts and logs it.
    pub fn failed_in_stream(&self, error: &ApiError) {
        self.metrics.refused(self.asker.route, error);
        self.asker.log_failure(error);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
        match self.outcome {
            Some(Outcome::Cancelled) if self.share.is_lost() => self.failed_in_stream(&Lost.into()),
            Some(Outcome::Cancelled) if self.most_waited() => {
                self.failed_in_stream(&ApiError::full(MOST_WAITED));
            }
            Some(Outcome::Cancelled) if self.asker.reader.is_given_up() => {
                let message = "the client has not read for too long; its connection was closed".to_owned();
                self.failed_in_stream(&ApiError::other(
                    StatusCode::SERVICE_UNAVAILABLE,
                    Code::ServiceUnavailable,
                    message,
                ));
            }
            Some(outcome) => self.metrics.ended(self.asker.route, outcome),
            None => {}
        }
    }
}

/// `GET /metrics`
pub async fn metrics(State(app): State<App>) -> Response {
    match TextEncoder::new().encode_to_string(&app.registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
