//! The operator's own probes and metrics, and the question that `helm test` asks of them.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use plan::words::with_causes;
use thiserror::Error;

use crate::metrics::Metrics;

/// Pause between two questions.
const PAUSE: Duration = Duration::from_millis(500);

/// Why an operator does not count as ready.
#[derive(Debug, Error)]
#[error("{url} is not ready: {reason}")]
pub struct NotReady {
    /// What was asked.
    url: String,
    /// The last answer.
    reason: String,
}

/// `/livez`, `/readyz`, `/metrics`.
pub fn router(metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(render))
        .with_state(metrics)
}

async fn ready(State(metrics): State<Arc<Metrics>>) -> Response {
    if metrics.is_ready() {
        "ok".into_response()
    } else {
        let unfilled = metrics.unfilled();
        let which = if unfilled.is_empty() { unfilled } else { format!(": {unfilled}") };
        (StatusCode::SERVICE_UNAVAILABLE, format!("the caches are not filled yet{which}")).into_response()
    }
}

async fn render(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Asks the operator behind `url` until it is ready.
///
/// # Errors
/// If it is not `within` the time.
pub async fn check(url: &str, within: Duration) -> Result<(), NotReady> {
    let url = format!("{}/readyz", url.trim_end_matches('/'));
    let mut reason = "no answer".to_owned();
    let asked = tokio::time::timeout(within, async {
        loop {
            match reqwest::get(&url).await {
                Ok(answer) if answer.status().is_success() => return,
                Ok(answer) => reason = format!("status {}", answer.status().as_u16()),
                Err(error) => reason = with_causes(&error),
            }
            tokio::time::sleep(PAUSE).await;
        }
    });
    let answered = asked.await.is_ok();
    if answered { Ok(()) } else { Err(NotReady { url, reason }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_operator_is_ready_when_its_caches_are_filled_and_not_before() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = tokio::spawn(axum::serve(listener, router(Arc::clone(&metrics))).into_future());
        let refused = check(&url, Duration::from_millis(100)).await.unwrap_err();
        assert_eq!(refused.to_string(), format!("{url}/readyz is not ready: status 503"));
        metrics.set_ready();
        check(&url, Duration::from_secs(10)).await.unwrap();
        serving.abort();
    }
}
