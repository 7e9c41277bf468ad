//! A server that is asked as its users ask it: a deployment, through the API server, or whatever is at a URL.

use std::path::Path;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use operator::words::shorten;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::answer::{Reader, Sample};
use crate::PluginError;
use crate::cluster::{Cluster, within};
use crate::connection::{Connection, of_url};
use crate::refusal;
use crate::secret_file::first_line;
use crate::words::{bytes, seconds};

/// Largest answer that is no stream.
const LARGEST: usize = 1 << 20;
/// Longest answer, unless --request-timeout says.
const TIMEOUT: Duration = Duration::from_mins(10);

pub(super) struct Server {
    /// What it is called: what was given.
    pub target: String,
    /// The model that is asked.
    pub model: String,
    client: Client,
    /// What goes before a path.
    way: String,
    key: Option<HeaderValue>,
    /// How long an answer may take.
    timeout: Duration,
}

/// What a request asks for.
pub(super) struct Asked {
    pub prompt: Vec<u32>,
    pub max_tokens: u32,
}

#[derive(Deserialize)]
struct Models {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
}

impl Server {
    /// The one at a URL, or that of the deployment of this name. Its model is the first that it names, if none is asked for.
    pub async fn find(
        target: &str,
        model: Option<&str>,
        key: Option<&Path>,
        connection: &Connection,
    ) -> Result<Self, PluginError> {
        let key = key.map(read_key).transpose()?;
        let (client, way) = if target.contains("://") {
            // Clients of the API are given its address with the version.
            let url = target.trim_end_matches('/');
            (of_url(url.strip_suffix("/v1").unwrap_or(url), "a server")?, String::new())
        } else {
            if key.is_some() {
                return Err(PluginError::KeyByName { target: target.to_owned() });
            }
            let cluster = Cluster::reach(connection).await?;
            cluster.deployment(target).await?;
            (cluster.client, format!("/api/v1/namespaces/{}/services/{target}:http/proxy", cluster.namespace))
        };
        let timeout = connection.request_timeout().unwrap_or(TIMEOUT);
        let server = Self { target: target.to_owned(), model: String::new(), client, way, key, timeout };
        let model = match model {
            Some(model) => model.to_owned(),
            None => within(Some(timeout), server.first_model()).await?,
        };
        Ok(Self { model, ..server })
    }

    async fn first_model(&self) -> Result<String, PluginError> {
        let request = self.request("GET", "/v1/models", Vec::new());
        let failed = |reason: String| PluginError::Benchmark { target: self.target.clone(), reason };
        let response = self.client.send(request).await.map_err(|error| self.unreachable(error))?;
        let status = response.status();
        let text = whole(response.into_body()).await.map_err(failed)?;
        if !status.is_success() {
            return Err(failed(format!("{status}: {}", refused(&text))));
        }
        let models: Models =
            serde_json::from_slice(&text).map_err(|_| failed("/v1/models is no list of models".to_owned()))?;
        let first = models.data.into_iter().next();
        first.map(|model| model.id).ok_or_else(|| failed("it serves no model".to_owned()))
    }

    /// Asks, and reads the answer as it comes. Times are since `began`.
    ///
    /// # Errors
    /// Why there is no whole answer, in words.
    pub async fn ask(&self, asked: &Asked, began: Instant) -> Result<Sample, String> {
        let late = |_| Err(format!("no whole answer within {}", seconds(self.timeout.as_secs_f64())));
        timeout(self.timeout, self.answer(asked, began)).await.unwrap_or_else(late)
    }

    async fn answer(&self, asked: &Asked, began: Instant) -> Result<Sample, String> {
        let body = json!({
            "model": self.model, "prompt": asked.prompt, "max_tokens": asked.max_tokens, "temperature": 0,
            "ignore_eos": true, "stream": true, "stream_options": {"include_usage": true},
        });
        let request = self.request("POST", "/v1/completions", body.to_string().into_bytes());
        let sent = began.elapsed();
        let response = self.client.send(request).await.map_err(|error| plan::words::with_causes(&error))?;
        let status = response.status();
        let mut frames = response.into_body();
        if !status.is_success() {
            return Err(format!("{status}: {}", refused(&whole(frames).await?)));
        }
        let mut reader = Reader::default();
        while let Some(frame) = frames.frame().await {
            let frame = frame.map_err(|error| format!("the stream broke off: {}", plan::words::with_causes(&error)))?;
            if let Ok(bytes) = frame.into_data() {
                reader.take(&bytes, began.elapsed())?;
            }
        }
        reader.end(sent, began.elapsed())
    }

    fn request(&self, method: &str, path: &str, body: Vec<u8>) -> Request<Body> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.way));
        request = request.header(CONTENT_TYPE, "application/json");
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, key.clone());
        }
        request.body(Body::from(body)).expect("names of objects are valid in a URL")
    }

    fn unreachable(&self, source: kube::Error) -> PluginError {
        PluginError::Unreachable { target: self.target.clone(), source: Box::new(source) }
    }
}

async fn whole(mut frames: Body) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(frame) = frames.frame().await {
        let frame = frame.map_err(|error| plan::words::with_causes(&error))?;
        body.extend_from_slice(&frame.into_data().unwrap_or_default());
        if body.len() > LARGEST {
            return Err(format!("it answers with more than {}", bytes(LARGEST as f64)));
        }
    }
    Ok(body)
}

/// Why a server refuses: the message of its error, or all that it says.
fn refused(body: &[u8]) -> String {
    shorten(&refusal::reason(body).unwrap_or_else(|| String::from_utf8_lossy(body).into_owned()))
}

fn read_key(path: &Path) -> Result<HeaderValue, PluginError> {
    let failed = |source| PluginError::KeyFile { path: path.to_owned(), source };
    let line = first_line(path).map_err(failed)?;
    let value = HeaderValue::from_bytes(&[b"Bearer ", &line[..]].concat());
    let mut value = value.map_err(|_| failed(std::io::Error::other("its first line is no key")))?;
    value.set_sensitive(true);
    Ok(value)
}

/// How long a server that failed is left alone, so that one that is away is not flooded.
pub(super) const PAUSE: Duration = Duration::from_millis(200);
