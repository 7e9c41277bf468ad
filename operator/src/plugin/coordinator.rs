//! A coordinator's admin API, asked through the API server's pod proxy: it works from wherever kubectl works.

use http::Request;
use kube::Client;
use plan::wire::{self, MapDocument, RecordedMap, State, WireError};

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
        let request = request.body(Vec::new()).expect("the names of objects are valid in a URL");
        client.request_text(request).await.map_err(|source| PluginError::Coordinator {
            pod: pod.clone(),
            path,
            verb,
            source: Box::new(source),
        })
    }
}
