//! A coordinator's admin API, asked through the API server's pod proxy: it works from wherever kubectl works.

use http::{Request, StatusCode};
use kube::Client;
use kube::client::Body;
use kube::core::Status;
use plan::wire::{self, LoadDocument, MapDocument, RecordedMap, State, WireError};
use serde::Deserialize;

use super::PluginError;
use crate::names;

pub(super) struct Coordinator {
    client: Client,
    namespace: String,
    pod: String,
}

impl Coordinator {
    pub fn new(client: &Client, namespace: &str, deployment: &str, replica: usize) -> Self {
        Self { client: client.clone(), namespace: namespace.to_owned(), pod: names::coordinator(deployment, replica) }
    }

    pub async fn state(&self) -> Result<State, PluginError> {
        self.read(wire::path::STATE, State::from_json).await
    }

    pub async fn map(&self) -> Result<MapDocument, PluginError> {
        self.read(wire::path::MAP, MapDocument::from_json).await
    }

    pub async fn recorded_map(&self) -> Result<RecordedMap, PluginError> {
        self.read(wire::path::RECORDED_MAP, RecordedMap::from_json).await
    }

    pub async fn load(&self) -> Result<LoadDocument, PluginError> {
        self.read(wire::path::LOAD, LoadDocument::from_json).await
    }

    pub async fn rebalance(&self) -> Result<(), PluginError> {
        self.ask("create", wire::path::REBALANCE).await.map(drop)
    }

    pub fn unreadable(&self, source: WireError) -> PluginError {
        PluginError::Document { pod: self.pod.clone(), source }
    }

    async fn read<T>(&self, path: &'static str, parse: fn(&[u8]) -> Result<T, WireError>) -> Result<T, PluginError> {
        let json = self.ask("get", path).await?;
        parse(json.as_bytes()).map_err(|source| self.unreadable(source))
    }

    async fn ask(&self, verb: &'static str, path: &'static str) -> Result<String, PluginError> {
        let Self { client, namespace, pod } = self;
        let url = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{}/proxy{path}", names::ADMIN_PORT);
        let request = if verb == "get" { Request::get(url) } else { Request::post(url) };
        let request = request.body(Body::empty()).expect("the names of objects are valid in a URL");
        let failed = |source| PluginError::Coordinator { pod: pod.clone(), path, verb, source: Box::new(source) };
        let response = client.send(request).await.map_err(failed)?;
        let status = response.status();
        let body = response.into_body().collect_bytes().await.map_err(failed)?;
        let text = String::from_utf8_lossy(&body).into_owned();
        if status.is_success() {
            return Ok(text);
        }
        Err(match serde_json::from_str(&text) {
            Ok(Refusal { error: Reason { message } }) => PluginError::Refused { pod: pod.clone(), path, message },
            Err(_) => failed(kube::Error::Api(Box::new(said_by_api_server(&text, status)))),
        })
    }
}

/// How a coordinator says that it does not do what it was asked for.
#[derive(Deserialize)]
struct Refusal {
    error: Reason,
}

#[derive(Deserialize)]
struct Reason {
    message: String,
}

fn said_by_api_server(text: &str, status: StatusCode) -> Status {
    let other = || Status::failure(text.trim(), "no Status").with_code(status.as_u16());
    serde_json::from_str(text).unwrap_or_else(|_| other())
}
