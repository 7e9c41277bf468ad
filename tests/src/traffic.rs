//! Requests as users make them: streamed completions of the example prompts, many at once, and what a user feels of them.

mod latency;
mod stream;

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinSet;

pub use latency::Latencies;
pub use stream::{Answer, Question, ask};

use crate::workspace;

/// A kind of text whose tokens use other experts than another kind's.
#[derive(Clone, Debug)]
pub struct Domain {
    /// Its name: that of its file in `examples/prompts`.
    pub name: String,
    prompts: Arc<[String]>,
    chat: bool,
}

impl Domain {
    /// Reads `examples/prompts/NAME.txt`; `chat` is asked as a chat, the others as text to be continued.
    ///
    /// # Errors
    /// If there is no such file.
    pub fn load(name: &str) -> Result<Self> {
        let path = workspace::root().join(format!("examples/prompts/{name}.txt"));
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let prompts = text.trim_end_matches('\n').split("\n---\n").map(str::to_owned).collect();
        Ok(Self { name: name.to_owned(), prompts, chat: name == "chat" })
    }

    /// The question of this number; they repeat in the order of the file.
    #[must_use]
    pub fn question(&self, number: u64) -> Question<'_> {
        let prompt = &self.prompts[(number % self.prompts.len() as u64) as usize];
        if self.chat { Question::Chat(prompt) } else { Question::Text(prompt) }
    }
}

/// Where the requests go and how many at once.
#[derive(Clone, Debug)]
pub struct Target {
    /// `http://host:port`.
    pub url: String,
    /// Name of the model.
    pub model: String,
    /// Requests in flight.
    pub concurrency: usize,
    /// Tokens that each asks for.
    pub max_tokens: u32,
}

/// Requests that keep coming until they are stopped.
pub struct Traffic {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
}

struct Shared {
    target: Target,
    domain: Mutex<Domain>,
    next: AtomicU64,
    stop: AtomicBool,
    seen: Mutex<Seen>,
}

/// What has been seen since the last look.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Requests answered in full.
    pub answered: u64,
    /// Tokens received.
    pub tokens: u64,
    /// Time from one token to the next of a request.
    pub between_tokens: Latencies,
    /// Time from sending a request to its first token.
    pub first_token: Latencies,
    /// Why requests failed.
    pub failures: Vec<String>,
}

/// After a failure a client waits this long, so that a server that is away is not flooded.
const PAUSE: Duration = Duration::from_millis(200);

impl Traffic {
    /// Starts sending on the runtime that calls this.
    #[must_use]
    pub fn start(target: Target, domain: Domain) -> Self {
        let shared = Arc::new(Shared {
            domain: Mutex::new(domain),
            next: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            seen: Mutex::default(),
            target,
        });
        let mut clients = JoinSet::new();
        for _ in 0..shared.target.concurrency {
            clients.spawn(Arc::clone(&shared).client());
        }
        Self { shared, clients }
    }

    /// From now on, requests are of this domain; those in flight end as they began.
    pub fn shift(&self, domain: Domain) {
        *self.shared.domain.lock().unwrap_or_else(PoisonError::into_inner) = domain;
    }

    /// What has been seen since the last call.
    #[must_use]
    pub fn take_seen(&self) -> Seen {
        std::mem::take(&mut *self.shared.seen())
    }

    /// Lets requests in flight end, and returns what has been seen since the last look.
    pub async fn stop(mut self) -> Seen {
        self.shared.stop.store(true, Ordering::Relaxed);
        while self.clients.join_next().await.is_some() {}
        self.take_seen()
    }
}

impl Shared {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn client(self: Arc<Self>) {
        let http = reqwest::Client::new();
        while !self.stop.load(Ordering::Relaxed) {
            let domain = self.domain.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let question = domain.question(self.next.fetch_add(1, Ordering::Relaxed));
            let mut last = Instant::now();
            let mut first = true;
            let outcome = ask(&http, &self.target, question, |tokens| {
                let now = Instant::now();
                let mut seen = self.seen();
                seen.tokens += tokens;
                let latencies = if first { &mut seen.first_token } else { &mut seen.between_tokens };
                latencies.add(now - last);
                (last, first) = (now, false);
            });
            match outcome.await {
                Ok(_) => self.seen().answered += 1,
                Err(error) => {
                    self.seen().failures.push(format!("{error:#}"));
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_domain_has_different_prompts_and_they_repeat_in_order() {
        for name in ["chat", "prose", "python", "rust", "scripture", "tables"] {
            let domain = Domain::load(name).unwrap();
            let distinct: std::collections::BTreeSet<_> = domain.prompts.iter().collect();
            assert_eq!((name, distinct.len()), (name, 32));
            let text = |number| match domain.question(number) {
                Question::Text(text) | Question::Chat(text) => text,
            };
            assert_eq!(text(3), text(35));
            assert_eq!(matches!(domain.question(0), Question::Chat(_)), name == "chat");
        }
    }
}
