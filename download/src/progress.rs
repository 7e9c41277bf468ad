//! How far a download is: counted by those who fetch, answered over HTTP to whoever asks.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::routing::get;
use http::header::CONTENT_TYPE;
use plan::wire::{DownloadDocument, DownloadPhase, path, process};
use tokio::net::TcpListener;

/// How far a download is.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    document: Mutex<DownloadDocument>,
    bytes: AtomicU64,
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, DownloadDocument> {
        self.0.document.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is told.
    #[must_use]
    pub fn document(&self) -> DownloadDocument {
        let mut document = self.lock().clone();
        document.bytes = self.0.bytes.load(Ordering::Relaxed);
        document
    }

    /// It does something else now.
    pub fn turn(&self, phase: DownloadPhase) {
        let mut document = self.lock();
        document.phase = phase.into();
        document.trouble = None;
    }

    /// What is to be downloaded is known, and what of it is there.
    pub fn begin(&self, commit: Option<&str>, bytes: u64, total: u64) {
        self.turn(DownloadPhase::Downloading);
        let mut document = self.lock();
        document.commit = commit.map(str::to_owned);
        document.total_bytes = Some(total);
        self.0.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Everything is there.
    pub fn complete(&self, commit: Option<&str>, bytes: u64) {
        self.begin(commit, bytes, bytes);
        self.turn(DownloadPhase::Complete);
    }

    /// More is there.
    pub fn add(&self, bytes: u64) {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut document = self.lock();
        if document.trouble.is_some() {
            document.trouble = None;
        }
    }

    /// Less is there than was thought.
    pub fn lose(&self, bytes: u64) {
        self.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Something failed that may pass.
    pub fn trouble(&self, words: String) {
        self.lock().trouble = Some(words);
    }

    /// Answers for ever to whoever asks. A download goes on where it cannot listen.
    pub async fn answer(self, listen: SocketAddr) {
        let document = move || {
            let json = self.document().to_json();
            async { ([(CONTENT_TYPE, "application/json")], json) }
        };
        let router = Router::new().route(path::DOWNLOAD, get(document));
        let answered = async {
            let listener = process::listen(listen)?;
            listener.set_nonblocking(true)?;
            axum::serve(TcpListener::from_std(listener)?, router).await
        };
        if let Err(error) = answered.await {
            tracing::warn!(%listen, %error, "nobody is told how far the download is");
        }
    }
}
