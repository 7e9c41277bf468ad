//! The coordinator's admin API, as the operator uses it. Whoever answers may mean harm: what an answer costs is bounded in
//! bytes and in time, and none leads elsewhere.

use std::time::Duration;

use futures::future::BoxFuture;
use http::header::AUTHORIZATION;
use plan::wire::{self, DownloadDocument, RecordedMap, State, WireError};
use plan::words::with_causes;
use reqwest::RequestBuilder;
use reqwest::redirect::Policy;
use thiserror::Error;

use crate::decide::LARGEST_MAP;
use crate::keys::AdminToken;

/// A coordinator on the same network answers in milliseconds; one that takes this long is as good as silent.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Largest state: one of 512 ranks and 1,000 layers has a quarter of it.
pub const LARGEST_STATE: usize = 512 * 1024;
/// Largest answer of a download.
const LARGEST_DOWNLOAD: usize = 8 * 1024;
/// Largest answer with a recorded map: the map itself, and where it comes from.
const LARGEST_RECORDED: usize = LARGEST_MAP + 16 * 1024;

/// Where a coordinator's admin API is, and what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host and port.
    pub address: String,
    /// Its token. A release that asked for none ignores it.
    pub token: AdminToken,
}

/// What coordinators can be asked.
pub trait RuntimeClient: Send + Sync + 'static {
    /// The coordinator's state.
    fn state<'a>(&'a self, endpoint: &'a Endpoint) -> BoxFuture<'a, Result<State, RuntimeError>>;

    /// The map it recorded last, if there is one.
    fn recorded_map<'a>(&'a self, endpoint: &'a Endpoint) -> BoxFuture<'a, Result<Option<RecordedMap>, RuntimeError>>;

    /// How far the download in a pod is, which needs no token: host and port.
    fn download<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<DownloadDocument, RuntimeError>>;
}

/// Why a coordinator did not answer.
#[derive(Debug, Error)]
pub enum RuntimeError {
    /// It cannot be reached, or was too slow.
    #[error("GET {path} failed: {}", with_causes(source))]
    Unreachable {
        /// What was asked for.
        path: &'static str,
        /// What the client of HTTP says of it.
        source: reqwest::Error,
    },
    /// It answered with an error.
    #[error("GET {path} was answered with status {status}")]
    Status {
        /// What was asked for.
        path: &'static str,
        /// The answer.
        status: u16,
    },
    /// It answered with more than is read.
    #[error("the answer to GET {path} has more than {most} bytes")]
    TooLarge {
        /// What was asked for.
        path: &'static str,
        /// Bytes that are read.
        most: usize,
    },
    /// It answered something else.
    #[error("the answer to GET {path} cannot be read: {source}")]
    Document {
        /// What was asked for.
        path: &'static str,
        /// What of the document cannot be read.
        source: WireError,
    },
}

impl RuntimeError {
    /// Whether there was an answer that cannot be read, which a later one will hardly be either.
    #[must_use]
    pub const fn is_unreadable(&self) -> bool {
        match self {
            Self::Document { .. } | Self::TooLarge { .. } => true,
            Self::Unreachable { .. } | Self::Status { .. } => false,
        }
    }
}

/// Asks over HTTP.
#[derive(Clone, Debug)]
pub struct HttpRuntimeClient(reqwest::Client);

impl HttpRuntimeClient {
    /// A client without proxies: coordinators are addressed by pod address. It follows no redirect, which would let any pod
    /// have anything asked in the operator's name, and unpacks nothing, so that what arrives is what is kept.
    ///
    /// # Errors
    /// If the HTTP client cannot be set up.
    pub fn new() -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().redirect(Policy::none()).http1_only();
        Ok(Self(client.no_gzip().no_brotli().no_zstd().no_deflate().pool_max_idle_per_host(1).build()?))
    }

    async fn get(&self, to: &Endpoint, path: &'static str, most: usize) -> Result<Option<Vec<u8>>, RuntimeError> {
        let request = self.0.get(format!("http://{}{path}", to.address));
        read(request.header(AUTHORIZATION, to.token.authorization()), path, most).await
    }
}

/// The body of an answer; `None` if there is nothing at the path.
async fn read(request: RequestBuilder, path: &'static str, most: usize) -> Result<Option<Vec<u8>>, RuntimeError> {
    let unreachable = |source| RuntimeError::Unreachable { path, source };
    let mut answer = request.send().await.map_err(unreachable)?;
    match answer.status().as_u16() {
        200 => {}
        404 => return Ok(None),
        status => return Err(RuntimeError::Status { path, status }),
    }
    // No length that is only announced reserves memory.
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
        if bytes.len() + chunk.len() > most {
            return Err(RuntimeError::TooLarge { path, most });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes))
}

impl RuntimeClient for HttpRuntimeClient {
    fn state<'a>(&'a self, endpoint: &'a Endpoint) -> BoxFuture<'a, Result<State, RuntimeError>> {
        Box::pin(async move {
            let path = wire::path::STATE;
            let json = self.get(endpoint, path, LARGEST_STATE).await?;
            let json = json.ok_or(RuntimeError::Status { path, status: 404 })?;
            State::from_json(&json).map_err(|source| RuntimeError::Document { path, source })
        })
    }

    fn recorded_map<'a>(&'a self, endpoint: &'a Endpoint) -> BoxFuture<'a, Result<Option<RecordedMap>, RuntimeError>> {
        Box::pin(async move {
            let path = wire::path::RECORDED_MAP;
            let Some(json) = self.get(endpoint, path, LARGEST_RECORDED).await? else { return Ok(None) };
            let recorded = RecordedMap::from_json(&json).map_err(|source| RuntimeError::Document { path, source })?;
            Ok(Some(recorded))
        })
    }

    fn download<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<DownloadDocument, RuntimeError>> {
        Box::pin(async move {
            let path = wire::path::DOWNLOAD;
            let json = read(self.0.get(format!("http://{address}{path}")), path, LARGEST_DOWNLOAD).await?;
            let json = json.ok_or(RuntimeError::Status { path, status: 404 })?;
            DownloadDocument::from_json(&json).map_err(|source| RuntimeError::Document { path, source })
        })
    }
}

#[cfg(test)]
mod tests;
