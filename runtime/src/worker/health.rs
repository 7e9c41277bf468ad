//! A rank's health and metrics over HTTP, on a thread of its own: it answers whatever the rank is busy with.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::sync::oneshot;

use super::metrics::WorkerMetrics;

/// Serves until it is dropped.
#[derive(Debug)]
pub(super) struct HealthServer {
    loaded: Arc<AtomicBool>,
    #[cfg_attr(not(test), expect(dead_code, reason = "tests ask where it listens"))]
    address: SocketAddr,
    /// Dropped with the server, which ends its thread.
    _stop: oneshot::Sender<()>,
}

impl HealthServer {
    /// Starts to serve on `listener`.
    pub fn start(listener: TcpListener, metrics: &WorkerMetrics) -> std::io::Result<Self> {
        let (address, loaded) = (listener.local_addr()?, Arc::new(AtomicBool::new(false)));
        let routes = routes(metrics, &loaded);
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let serve = async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let stopped = async { drop(stopped.await) };
            axum::serve(listener, routes).with_graceful_shutdown(stopped).await
        };
        std::thread::Builder::new().name("health".to_owned()).spawn(move || {
            if let Err(error) = runtime.block_on(serve) {
                tracing::error!(%error, "health is not served any more");
            }
        })?;
        Ok(Self { loaded, address, _stop: stop })
    }

    /// The model is loaded: from now on the rank is ready when it is part of a group.
    pub fn loaded(&self) {
        self.loaded.store(true, Ordering::Release);
    }
}

fn routes(metrics: &WorkerMetrics, loaded: &Arc<AtomicBool>) -> Router {
    let (shown, ready, loaded) = (metrics.clone(), metrics.clone(), Arc::clone(loaded));
    let ready = move || async move {
        match (loaded.load(Ordering::Acquire), ready.is_formed()) {
            (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "loading the model\n"),
            (true, false) => (StatusCode::SERVICE_UNAVAILABLE, "not part of a group\n"),
            (true, true) => (StatusCode::OK, "part of a group\n"),
        }
    };
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(move || async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4")], shown.text()) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_rank_lives_at_once_and_is_ready_when_it_is_loaded_and_part_of_a_group() {
        let metrics = WorkerMetrics::default();
        let server = HealthServer::start(TcpListener::bind("127.0.0.1:0").unwrap(), &metrics).unwrap();
        let status = async |path: &str| {
            let url = format!("http://{}{path}", server.address);
            reqwest::get(url).await.unwrap().status().as_u16()
        };
        assert_eq!((status("/livez").await, status("/readyz").await), (200, 503));
        server.loaded();
        assert_eq!(status("/readyz").await, 503);
        metrics.formed(true);
        assert_eq!((status("/readyz").await, status("/metrics").await), (200, 200));
    }
}
