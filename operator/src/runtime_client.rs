//! The coordinator's admin API, as the operator uses it.

use std::time::Duration;

use futures::future::BoxFuture;
use plan::wire::{self, RecordedMap, State, WireError};
use thiserror::Error;

use crate::error::chain;

/// A coordinator on the same network answers in milliseconds; one that takes this long is as good as silent.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What coordinators can be asked. `address` is host and port of the admin API.
pub trait RuntimeClient: Send + Sync + 'static {
    /// The coordinator's state.
    fn state<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<State, RuntimeError>>;

    /// The map it recorded last, if there is one.
    fn recorded_map<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<Option<RecordedMap>, RuntimeError>>;
}

/// Why a coordinator did not answer.
#[derive(Debug, Error)]
pub enum RuntimeError {
    /// It cannot be reached, or was too slow.
    #[error("GET {path} failed: {}", chain(source))]
    Unreachable {
        /// What was asked for.
        path: &'static str,
        /// Why.
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
    /// It answered something else.
    #[error("the answer to GET {path} cannot be read: {source}")]
    Document {
        /// What was asked for.
        path: &'static str,
        /// Why.
        source: WireError,
    },
}

/// Asks over HTTP.
#[derive(Clone, Debug)]
pub struct HttpRuntimeClient(reqwest::Client);

impl HttpRuntimeClient {
    /// A client without proxies: coordinators are addressed by pod address.
    ///
    /// # Errors
    /// If the HTTP client cannot be set up.
    pub fn new() -> Result<Self, reqwest::Error> {
        Ok(Self(reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build()?))
    }

    async fn get(&self, address: &str, path: &'static str) -> Result<Option<Vec<u8>>, RuntimeError> {
        let unreachable = |source| RuntimeError::Unreachable { path, source };
        let answer = self.0.get(format!("http://{address}{path}")).send().await.map_err(unreachable)?;
        match answer.status().as_u16() {
            200 => Ok(Some(answer.bytes().await.map_err(unreachable)?.into())),
            404 => Ok(None),
            status => Err(RuntimeError::Status { path, status }),
        }
    }
}

impl RuntimeClient for HttpRuntimeClient {
    fn state<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<State, RuntimeError>> {
        Box::pin(async move {
            let path = wire::path::STATE;
            let json = self.get(address, path).await?.ok_or(RuntimeError::Status { path, status: 404 })?;
            State::from_json(&json).map_err(|source| RuntimeError::Document { path, source })
        })
    }

    fn recorded_map<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<Option<RecordedMap>, RuntimeError>> {
        Box::pin(async move {
            let path = wire::path::RECORDED_MAP;
            let Some(json) = self.get(address, path).await? else { return Ok(None) };
            let recorded = RecordedMap::from_json(&json).map_err(|source| RuntimeError::Document { path, source })?;
            Ok(Some(recorded))
        })
    }
}
