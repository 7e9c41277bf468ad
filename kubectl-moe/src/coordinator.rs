//! A coordinator's admin API, asked through the API server's pod proxy: it works from wherever kubectl works. Whatever answers
//! there is not believed to be harmless: answers are bounded in bytes and time, and their words are shown without what a
//! terminal obeys.

use std::path::Path;
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use kube::core::Status;
use plan::wire::keys::ADMIN_TOKEN_HEADER;
use plan::wire::{self, LoadDocument, MapDocument, MonitorDocument, RecordedMap, State, WireError};

use crate::PluginError;
use crate::connection::of_url;
use crate::refusal;
use crate::secret_file::first_line;
use operator::keys::AdminToken;
use operator::{names, words};

/// Largest answer: a map of 512 ranks and 1,000 layers has some 20 MB.
const LARGEST: usize = 64 << 20;
/// Longest answer.
const TIMEOUT: Duration = Duration::from_mins(1);

#[derive(Clone)]
pub(super) struct Coordinator {
    client: Client,
    /// What goes before a path: the way through the API server's proxy; nothing where the coordinator is asked itself.
    way: String,
    /// What it is called: its pod, or its address.
    pod: String,
    token: Option<AdminToken>,
}

impl Coordinator {
    pub fn new(client: &Client, namespace: &str, deployment: &str, replica: usize) -> Self {
        let pod = names::coordinator(deployment, replica);
        let way = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{}/proxy", names::ADMIN_PORT);
        Self { client: client.clone(), way, pod, token: None }
    }

    /// The one whose admin port is at a URL, asked with the token of a file if there is one.
    pub fn at(url: &str, token: Option<&Path>) -> Result<Self, PluginError> {
        let client = of_url(url, "an admin port")?;
        let token = token.map(read_token).transpose()?;
        Ok(Self { client, way: String::new(), pod: words::shorten(url), token })
    }

    /// The same, asked with a token.
    pub fn with(self, token: Option<AdminToken>) -> Self {
        Self { token, ..self }
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

    /// What goes on now, and what happened after the event of a number.
    pub async fn monitor(&self, after: u64) -> Result<MonitorDocument, PluginError> {
        let path = wire::path::MONITOR;
        let json = self.ask("get", path, &format!("?after={after}")).await?;
        MonitorDocument::from_json(json.as_bytes()).map_err(|source| self.unreadable(source))
    }

    pub async fn rebalance(&self) -> Result<(), PluginError> {
        self.ask("create", wire::path::REBALANCE, "").await.map(drop)
    }

    pub fn unreadable(&self, source: WireError) -> PluginError {
        PluginError::Document { pod: self.pod.clone(), source }
    }

    async fn read<T>(&self, path: &'static str, parse: fn(&[u8]) -> Result<T, WireError>) -> Result<T, PluginError> {
        let json = self.ask("get", path, "").await?;
        parse(json.as_bytes()).map_err(|source| self.unreadable(source))
    }

    async fn ask(&self, verb: &'static str, path: &'static str, query: &str) -> Result<String, PluginError> {
        let late = || PluginError::TooSlow { pod: self.pod.clone(), path, seconds: TIMEOUT.as_secs() };
        tokio::time::timeout(TIMEOUT, self.answer(verb, path, query)).await.map_err(|_| late())?
    }

    async fn answer(&self, verb: &'static str, path: &'static str, query: &str) -> Result<String, PluginError> {
        let Self { client, way, pod, token } = self;
        let url = format!("{way}{path}{query}");
        let mut request = if verb == "get" { Request::get(url) } else { Request::post(url) };
        if let Some(token) = token {
            // The API server's proxy keeps `Authorization` for itself.
            request = request.header(ADMIN_TOKEN_HEADER, token.header());
        }
        if verb == "create" {
            // A proxy that passes on a body of unknown length would else pass on one of unknown type.
            request = request.header("content-type", "application/json");
        }
        let request = request.body(Body::empty()).expect("the names of objects are valid in a URL");
        let failed = |source| {
            let (pod, source) = (pod.clone(), Box::new(source));
            if way.is_empty() {
                return PluginError::Address { url: pod, path, source };
            }
            PluginError::Coordinator { pod, path, verb, source }
        };
        let response = client.send(request).await.map_err(failed)?;
        let status = response.status();
        let mut frames = response.into_body();
        let mut body = Vec::new();
        while let Some(frame) = frames.frame().await {
            let Ok(bytes) = frame.map_err(failed)?.into_data() else { continue };
            if body.len() + bytes.len() > LARGEST {
                return Err(PluginError::TooLarge { pod: pod.clone(), path, most: LARGEST });
            }
            body.extend_from_slice(&bytes);
        }
        let text = String::from_utf8_lossy(&body).into_owned();
        if status.is_success() {
            return Ok(text);
        }
        Err(match refusal::reason(text.as_bytes()) {
            Some(message) => PluginError::Refused { pod: pod.clone(), path, message: words::shorten(&message) },
            None => failed(kube::Error::Api(Box::new(said_by_api_server(&text, status)))),
        })
    }
}

fn read_token(path: &Path) -> Result<AdminToken, PluginError> {
    let failed = |source| PluginError::TokenFile { path: path.to_owned(), source };
    let token = AdminToken::read(&first_line(path).map_err(failed)?);
    token.ok_or_else(|| failed(std::io::Error::other("it holds no token of 32 visible characters or more")))
}

fn said_by_api_server(text: &str, status: StatusCode) -> Status {
    let other = || Status::failure(&words::shorten(text), "no Status").with_code(status.as_u16());
    serde_json::from_str(text).unwrap_or_else(|_| other())
}
