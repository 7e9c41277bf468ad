//! Health and metrics of a process's ranks over HTTP, on a thread of its own: it answers whatever they are busy with.

use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use plan::wire::path;
use tokio::sync::watch;

use super::metrics::ProcessMetrics;
use crate::descriptors::Places;
use crate::http::{self, ConnectionBounds};
use crate::model::sizes::gigabytes;
use crate::threads::VitalThreads;

/// Serves until it is dropped.
#[derive(Debug)]
pub(super) struct HealthServer {
    /// Why a rank cannot serve.
    failure: Arc<Mutex<Option<String>>>,
    /// Dropped with the server, which ends its thread.
    _stop: watch::Sender<bool>,
}

impl HealthServer {
    /// Starts to serve on `listener`.
    pub fn start(listener: TcpListener, metrics: &ProcessMetrics, threads: &VitalThreads) -> std::io::Result<Self> {
        let failure = Arc::default();
        let routes = routes(metrics, &failure);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = watch::channel(false);
        // It has one port for HTTP, as the admin port of a coordinator.
        let Places { admin, refused, .. } = Places::of_this_process(1);
        let bounds = ConnectionBounds::of(admin, refused);
        threads.spawn("health", move || runtime.block_on(http::serve(routes, listener, bounds, stopped)))?;
        Ok(Self { failure, _stop: stop })
    }

    /// The ranks will never be ready; the first reason stays.
    pub fn failed(&self, reason: &str) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| reason.to_owned());
    }
}

/// Whether every rank is part of a group, or what they wait for.
fn readiness(failure: Option<String>, metrics: &ProcessMetrics) -> (StatusCode, String) {
    let waits = |words: String| (StatusCode::SERVICE_UNAVAILABLE, words);
    match (failure, metrics.load_progress()) {
        (Some(reason), _) => waits(format!("failed: {reason}\n")),
        (None, Some((read, of))) => waits(format!("loading: {} of {} GB\n", gigabytes(read), gigabytes(of))),
        (None, None) if metrics.is_formed() => (StatusCode::OK, "part of a group\n".to_owned()),
        (None, None) => waits("not part of a group\n".to_owned()),
    }
}

fn routes(metrics: &ProcessMetrics, failure: &Arc<Mutex<Option<String>>>) -> Router {
    let (shown, ready, failure) = (metrics.clone(), metrics.clone(), Arc::clone(failure));
    let ready = move || async move {
        let failure = failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        readiness(failure, &ready)
    };
    Router::new()
        .route(path::LIVEZ, get(|| async { "alive\n" }))
        .route(path::READYZ, get(ready))
        .route("/metrics", get(move || async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4")], shown.text()) }))
}

#[cfg(test)]
mod tests {
    use plan::ids::RankId;

    use super::*;

    #[tokio::test]
    async fn a_rank_lives_at_once_and_is_ready_when_it_is_loaded_and_part_of_a_group() {
        let process = ProcessMetrics::new([RankId(0)]);
        let metrics = process.of(0);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = HealthServer::start(listener, &process, &VitalThreads::new(drop)).unwrap();
        let status = async |path: &str| {
            let url = format!("http://{address}{path}");
            reqwest::get(url).await.unwrap().status().as_u16()
        };
        assert_eq!((status("/livez").await, status("/readyz").await), (200, 503));
        let said = async || reqwest::get(format!("http://{address}/readyz")).await.unwrap().text().await.unwrap();
        assert_eq!(said().await, "not part of a group\n");
        metrics.loading(1_230_000_000, 60_000_000_000);
        assert_eq!((status("/readyz").await, said().await), (503, "loading: 1.23 of 60.00 GB\n".to_owned()));
        metrics.not_loading();
        metrics.formed(true);
        assert_eq!((status("/readyz").await, status("/metrics").await), (200, 200));
        server.failed("a hole in the file");
        assert_eq!((status("/readyz").await, status("/livez").await), (503, 200));
        assert_eq!(said().await, "failed: a hole in the file\n");
    }
}
