//! What tests of the HTTP side share: the small model's text, and a driver on scripted ranks.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

use super::text::Tokenizer;
use super::{AdminAccess, Answers, App, Bodies, Intake, ModelLimits, ServedModel, ServerMetrics};
use crate::coordinator::fake::{Fake, Remote, Script};

/// The small model that the repository ships.
pub fn model_directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/models/tiny-moe")
}

/// Its tokenizer.
pub fn tokenizer() -> Tokenizer {
    Tokenizer::load(&model_directory()).unwrap()
}

/// It as it is served.
pub fn model() -> ServedModel {
    let limits = ModelLimits { max_model_len: 1024, vocab_size: 1792, has_texts: true };
    ServedModel::load(&model_directory(), "tiny".to_owned(), &limits, 1_700_000_000).unwrap()
}

/// A server whose ranks always answer with a text.
pub struct Server {
    pub app: App,
    pub remote: Remote,
    router: Router,
}

/// An answer as it came.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The data of each event of a stream.
    pub fn events(&self) -> Vec<String> {
        self.text().split("\n\n").filter_map(|event| Some(event.strip_prefix("data: ")?.to_owned())).collect()
    }
}

/// Ranks that answer every prompt of the given length in tokens with these tokens, then with the last of them.
pub fn says(prompt_tokens: usize, tokens: Vec<u32>) -> Script {
    Arc::new(move |_, position| tokens[(position as usize - prompt_tokens).min(tokens.len() - 1)])
}

impl Server {
    /// Whose ranks answer `prompt` with `text` and then end.
    pub fn answering(prompt: &str, text: &str) -> Self {
        let tokenizer = tokenizer();
        let mut tokens = tokenizer.encode(text, false).unwrap();
        tokens.push(tokenizer.token("<|im_end|>").unwrap());
        Self::start(Fake { script: says(tokenizer.encode(prompt, false).unwrap().len(), tokens), ..Fake::default() })
    }

    pub fn start(fake: Fake) -> Self {
        Self::serving(fake, model())
    }

    pub fn serving(fake: Fake, model: ServedModel) -> Self {
        Self::with(fake, model, Answers::of(1 << 26))
    }

    pub fn with(fake: Fake, model: ServedModel, answers: Answers) -> Self {
        let registry = prometheus::Registry::new();
        let (driver, remote) = fake.start(&registry);
        remote.complete();
        let metrics = Arc::new(ServerMetrics::new(&registry).unwrap());
        let intake = Arc::new(Intake::start().unwrap());
        let bodies = Bodies::of_at_most(1 << 20);
        let app = App { driver, model: Arc::new(model), bodies, answers, intake, metrics, registry };
        let router = super::public(app.clone(), None);
        Self { app, remote, router }
    }

    /// The same where so many bytes of all answers may wait to be read.
    pub fn with_room_for_unread(mut self, bytes: usize) -> Self {
        self.app.driver = self.app.driver.with_room_for_unread(bytes);
        self.router = super::public(self.app.clone(), None);
        self
    }

    pub fn admin(&self) -> Router {
        super::admin(self.app.clone(), AdminAccess::Loopback)
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Request::post(path).body(Body::from(body.to_string())).unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    /// A metric's value.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").await.text();
        let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Sequences that run or wait to, as one scrape tells.
    pub async fn unfinished(&self) -> f64 {
        let text = self.get("/metrics").await.text();
        let value = |line: &str| {
            let rest = line.strip_prefix("swiftbalancer_sequences_")?;
            rest.strip_prefix("running ").or_else(|| rest.strip_prefix("waiting "))?.parse::<f64>().ok()
        };
        text.lines().filter_map(value).sum()
    }

    /// The answer as soon as its head is there.
    pub async fn respond(&self, request: Request<Body>) -> axum::response::Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        send(self.router.clone(), request).await
    }
}

pub async fn send(router: Router, request: Request<Body>) -> Answer {
    let response = router.oneshot(request).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.into_body().collect().await.unwrap().to_bytes().to_vec();
    Answer { status, headers, body }
}
