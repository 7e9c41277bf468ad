//! Two ranks on the GPU as a user runs them, with weights that are drawn: what requests see while experts move and while none do.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use plan::moves::random_transaction;
use plan::wire::{MapDocument, Phase, State, path};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::figures::{Figures, quantile, rounded};

/// What is run.
#[derive(Debug)]
pub struct Setup {
    pub small: bool,
    pub model: PathBuf,
    pub runtime: PathBuf,
    /// Of load with, and as many without moves.
    pub seconds: u64,
}

/// Load on a server.
#[derive(Clone, Copy)]
struct Load {
    /// Requests at a time.
    requests: usize,
    prompt: usize,
    answer: usize,
    seconds: u64,
}

pub fn run(setup: &Setup, figures: &Figures) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(serve(setup, figures))
}

async fn serve(setup: &Setup, figures: &Figures) -> Result<()> {
    let address = || Ok::<_, anyhow::Error>(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.to_string());
    let (listen, admin) = (address()?, address()?);
    let mut command = Command::new(&setup.runtime);
    command.args(["local", "--weights", "seed:1", "--backend", "cuda", "--ranks", "2", "--served-model-name", "drawn"]);
    command.args(["--init-redundancy-expert", if setup.small { "2" } else { "16" }]);
    command.args([
        "--listen",
        &listen,
        "--admin-listen",
        &admin,
        "--kv-blocks",
        if setup.small { "32" } else { "4096" },
    ]);
    command.args(["--max-running-sequences", "64", "--max-step-tokens", if setup.small { "64" } else { "2048" }]);
    command.arg("--model").arg(&setup.model).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    let started = Instant::now();
    let mut child = command.spawn().with_context(|| format!("{} does not start", setup.runtime.display()))?;
    let server = Server { client: Client::new(), url: format!("http://{listen}"), admin: format!("http://{admin}") };
    server.until_healthy(&mut child).await?;
    figures.tell("start of two ranks", &[("s", rounded(started.elapsed().as_secs_f64()))]);
    let load = if setup.small {
        Load { requests: 2, prompt: 5, answer: 4, seconds: setup.seconds }
    } else {
        Load { requests: 64, prompt: 128, answer: 128, seconds: setup.seconds.div_ceil(2) }
    };
    // In turn, so that a change of the machine meets both.
    for round in 0..if setup.small { 1 } else { 2 } {
        let still = server.load(load).await?;
        tell(figures, round, load, still, None);
        let mut rounds = 0;
        let moving = tokio::select! {
            load = server.load(load) => load?,
            ended = server.keep_moving(&mut rounds) => return Err(ended),
        };
        tell(figures, round, load, moving, Some(rounds));
    }
    if let Some(pid) = child.id().and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)) {
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    }
    let ended = child.wait().await?;
    ensure!(ended.success(), "the runtime ended with {ended}");
    Ok(())
}

fn tell(figures: &Figures, round: usize, load: Load, mut seen: Seen, rounds: Option<u64>) {
    seen.between.sort_by(f64::total_cmp);
    seen.first.sort_by(f64::total_cmp);
    let milliseconds = |times: &[f64], part| rounded(quantile(times, part) * 1e3);
    figures.tell(
        "load",
        &[
            ("experts", json!(if rounds.is_some() { "moving" } else { "still" })),
            ("round", json!(round)),
            ("requests at a time", json!(load.requests)),
            ("tokens/s", rounded(seen.tokens as f64 / seen.seconds)),
            ("first ms p50", milliseconds(&seen.first, 0.5)),
            ("between ms p50", milliseconds(&seen.between, 0.5)),
            ("p99", milliseconds(&seen.between, 0.99)),
            ("most", milliseconds(&seen.between, 1.0)),
            ("maps moved to", json!(rounds)),
        ],
    );
}

struct Server {
    client: Client,
    url: String,
    admin: String,
}

/// What requests saw, in seconds.
#[derive(Default)]
struct Seen {
    tokens: usize,
    seconds: f64,
    /// From a request to its first token.
    first: Vec<f64>,
    /// From a token to the next.
    between: Vec<f64>,
}

impl Server {
    async fn until_healthy(&self, child: &mut Child) -> Result<()> {
        let mut looks = tokio::time::interval(Duration::from_millis(100));
        loop {
            if let Some(status) = child.try_wait()? {
                return Err(anyhow!("the runtime ended with {status} before it served"));
            }
            let answer = self.client.get(format!("{}/health", self.url)).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            looks.tick().await;
        }
    }

    /// Keeps so many requests under way for so many seconds.
    async fn load(&self, load: Load) -> Result<Seen> {
        let started = Instant::now();
        let requests = (0..load.requests).map(|number| self.ask_again_and_again(load, number, started));
        let mut all = Seen::default();
        for seen in futures::future::try_join_all(requests).await? {
            all.tokens += seen.tokens;
            all.first.extend(seen.first);
            all.between.extend(seen.between);
        }
        all.seconds = started.elapsed().as_secs_f64();
        Ok(all)
    }

    async fn ask_again_and_again(&self, load: Load, number: usize, started: Instant) -> Result<Seen> {
        let mut seen = Seen::default();
        for round in 0.. {
            if round > 0 && started.elapsed() >= Duration::from_secs(load.seconds) {
                break;
            }
            let prompt: Vec<usize> =
                (0..load.prompt).map(|place| (number * 131 + round * 17 + place * 7) % 250).collect();
            let body = json!({"prompt": prompt, "max_tokens": load.answer, "temperature": 0, "ignore_eos": true, "stream": true});
            let asked = Instant::now();
            let request = self.client.post(format!("{}/v1/completions", self.url)).json(&body);
            let mut answer = request.send().await?.error_for_status()?;
            let (mut rest, mut last) = (String::new(), None);
            while let Some(bytes) = answer.chunk().await? {
                rest.push_str(&String::from_utf8_lossy(&bytes));
                while let Some((line, after)) = rest.split_once('\n') {
                    if has_text(line)? {
                        let now = Instant::now();
                        match last.replace(now) {
                            None => seen.first.push((now - asked).as_secs_f64()),
                            Some(before) => seen.between.push((now - before).as_secs_f64()),
                        }
                    }
                    rest = after.to_owned();
                }
            }
            seen.tokens += load.answer;
        }
        Ok(seen)
    }

    /// Asks for one map after the other, each a random transaction in every layer away from the one in force; counts those that came into
    /// force. Returns only if that fails.
    async fn keep_moving(&self, rounds: &mut u64) -> anyhow::Error {
        loop {
            if let Err(error) = self.move_once(*rounds).await {
                return error;
            }
            *rounds += 1;
        }
    }

    async fn move_once(&self, seed: u64) -> Result<()> {
        let map = format!("{}{}", self.admin, path::MAP);
        let document = MapDocument::from_json(&self.client.get(&map).send().await?.bytes().await?)?;
        let before = document.to_map(&document.model)?;
        let mut moved = before.clone();
        for layer in before.layers() {
            if let Some(transaction) = random_transaction(&moved, layer, seed) {
                moved = moved.apply(&transaction)?;
            }
        }
        let asked = self.client.post(&map).json(&MapDocument::new(document.model, &moved)).send().await?;
        asked.error_for_status()?;
        let mut looks = tokio::time::interval(Duration::from_millis(20));
        loop {
            looks.tick().await;
            let state = self.client.get(format!("{}{}", self.admin, path::STATE)).send().await?.bytes().await?;
            let state: State = serde_json::from_slice(&state)?;
            if state.pending_transactions == 0 && state.phase != Phase::Planning {
                return Ok(());
            }
        }
    }
}

/// Whether a line of a stream brings text.
fn has_text(line: &str) -> Result<bool> {
    let Some(data) = line.strip_prefix("data: ").filter(|data| *data != "[DONE]") else { return Ok(false) };
    let event: Value = serde_json::from_str(data).with_context(|| format!("no event: {data}"))?;
    ensure!(event.get("error").is_none(), "the server says: {data}");
    Ok(event["choices"][0]["text"].as_str().is_some_and(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_text_is_told_from_one_without() {
        assert!(has_text(r#"data: {"choices":[{"text":" 300"}]}"#).unwrap());
        for line in ["", ": comment", "data: [DONE]", r#"data: {"choices":[]}"#, r#"data: {"choices":[{"text":""}]}"#] {
            assert!(!has_text(line).unwrap(), "{line}");
        }
        assert!(has_text(r#"data: {"error":{"message":"lost"}}"#).is_err());
    }
}
