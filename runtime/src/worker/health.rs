//! A rank's health and metrics over HTTP, on a thread of its own: it answers whatever the rank is busy with.

use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use plan::wire::path;
use tokio::sync::watch;

use super::metrics::WorkerMetrics;
use crate::descriptors::Places;
use crate::http::{self, ConnectionBounds};
use crate::threads::VitalThreads;

/// How far a rank has come.
#[derive(Clone, Debug)]
enum Progress {
    Loading,
    Loaded,
    /// It cannot serve, for this reason.
    Failed(String),
}

/// Serves until it is dropped.
#[derive(Debug)]
pub(super) struct HealthServer {
    progress: Arc<Mutex<Progress>>,
    /// Dropped with the server, which ends its thread.
    _stop: watch::Sender<bool>,
}

impl HealthServer {
    /// Starts to serve on `listener`.
    pub fn start(listener: TcpListener, metrics: &WorkerMetrics, threads: &VitalThreads) -> std::io::Result<Self> {
        let progress = Arc::new(Mutex::new(Progress::Loading));
        let routes = routes(metrics, &progress);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = watch::channel(false);
        // A rank has one port for HTTP, as the admin port of a coordinator.
        let Places { admin, refused, .. } = Places::of_this_process(1);
        let bounds = ConnectionBounds::of(admin, refused);
        threads.spawn("health", move || runtime.block_on(http::serve(routes, listener, bounds, stopped)))?;
        Ok(Self { progress, _stop: stop })
    }

    /// The model is loaded: from now on the rank is ready when it is part of a group.
    pub fn loaded(&self) {
        self.set(Progress::Loaded);
    }

    /// The rank will never be ready.
    pub fn failed(&self, reason: &str) {
        self.set(Progress::Failed(reason.to_owned()));
    }

    fn set(&self, progress: Progress) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }
}

fn routes(metrics: &WorkerMetrics, progress: &Arc<Mutex<Progress>>) -> Router {
    let (shown, ready, progress) = (metrics.clone(), metrics.clone(), Arc::clone(progress));
    let ready = move || async move {
        let progress = progress.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match (progress, ready.is_formed()) {
            (Progress::Failed(reason), _) => (StatusCode::SERVICE_UNAVAILABLE, format!("failed: {reason}\n")),
            (Progress::Loading, _) => (StatusCode::SERVICE_UNAVAILABLE, "loading the model\n".to_owned()),
            (Progress::Loaded, false) => (StatusCode::SERVICE_UNAVAILABLE, "not part of a group\n".to_owned()),
            (Progress::Loaded, true) => (StatusCode::OK, "part of a group\n".to_owned()),
        }
    };
    Router::new()
        .route(path::LIVEZ, get(|| async { "alive\n" }))
        .route(path::READYZ, get(ready))
        .route("/metrics", get(move || async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4")], shown.text()) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_rank_lives_at_once_and_is_ready_when_it_is_loaded_and_part_of_a_group() {
        let metrics = WorkerMetrics::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = HealthServer::start(listener, &metrics, &VitalThreads::new(drop)).unwrap();
        let status = async |path: &str| {
            let url = format!("http://{address}{path}");
            reqwest::get(url).await.unwrap().status().as_u16()
        };
        assert_eq!((status("/livez").await, status("/readyz").await), (200, 503));
        server.loaded();
        assert_eq!(status("/readyz").await, 503);
        metrics.formed(true);
        assert_eq!((status("/readyz").await, status("/metrics").await), (200, 200));
        server.failed("a hole in the file");
        assert_eq!((status("/readyz").await, status("/livez").await), (503, 200));
    }
}
