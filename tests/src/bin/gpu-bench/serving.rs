//! Two ranks of one process on the GPU, as a pod has them, with weights that are drawn: what requests see while experts move and while
//! none do, and how the ranks exchange rows. Where the exchange between GPUs fails, the one through the hosts is measured too.

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
    let Err(error) = serve_by("auto", setup, figures).await else { return Ok(()) };
    let reason: String = format!("{error:#}").chars().take(300).collect();
    figures.tell("two ranks", &[("exchange asked for", json!("auto")), ("failed", json!(reason))]);
    serve_by("tcp", setup, figures).await?;
    Err(error)
}

/// The coordinator and the process of both ranks.
struct Processes {
    coordinator: Child,
    ranks: Child,
    // Read when they start.
    _secret: tempfile::NamedTempFile,
}

impl Processes {
    fn start(exchange: &str, setup: &Setup) -> Result<(Self, Server)> {
        let address = || Ok::<_, anyhow::Error>(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.to_string());
        let [listen, admin, control, health] = [address()?, address()?, address()?, address()?];
        let secret = tempfile::NamedTempFile::new()?;
        std::fs::write(secret.path(), "a group on this machine alone, of one run")?;
        let start = |part: &str, arguments: &[&str]| -> Result<Child> {
            let mut command = Command::new(&setup.runtime);
            command.arg(part).arg("--model").arg(&setup.model).args(["--weights", "seed:1"]).args(arguments);
            command.arg("--secret-file").arg(secret.path());
            // As the image for GPUs has it: one rank's wait stands before no work of the other.
            command.env("CUDA_DEVICE_MAX_CONNECTIONS", "32");
            command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
            command.spawn().with_context(|| format!("{} does not start", setup.runtime.display()))
        };
        let of_size = |small, large| if setup.small { small } else { large };
        let coordinator = [
            ["--ranks", "2"],
            ["--served-model-name", "drawn"],
            ["--listen", &listen],
            ["--admin-listen", &admin],
            ["--control-listen", &control],
            ["--init-redundancy-expert", of_size("2", "16")],
            ["--max-running-sequences", "64"],
            ["--max-step-tokens", of_size("64", "2048")],
        ];
        let ranks = [
            ["--backend", "cuda"],
            ["--exchange", exchange],
            ["--rank", "0"],
            ["--ranks-here", "2"],
            ["--coordinator", &control],
            ["--advertise-address", "127.0.0.1"],
            ["--listen", "127.0.0.1:0"],
            ["--move-listen", "127.0.0.1:0"],
            ["--health-listen", &health],
            ["--kv-blocks", of_size("32", "4096")],
        ];
        let coordinator = start("coordinator", coordinator.as_flattened())?;
        let ranks = start("worker", ranks.as_flattened())?;
        let server =
            Server { client: Client::new(), url: format!("http://{listen}"), admin: format!("http://{admin}") };
        Ok((Self { coordinator, ranks, _secret: secret }, server))
    }

    /// Why one of them has ended that is to serve.
    fn ended(&mut self) -> Result<()> {
        for (name, process) in [("coordinator", &mut self.coordinator), ("ranks' process", &mut self.ranks)] {
            if let Some(status) = process.try_wait()? {
                return Err(anyhow!("the {name} ended with {status} before it served"));
            }
        }
        Ok(())
    }

    /// Ends both, the ranks first.
    async fn end(self) -> Result<()> {
        for mut process in [self.ranks, self.coordinator] {
            if let Some(pid) = process.id().and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)) {
                rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
            }
            let ended = process.wait().await?;
            ensure!(ended.success(), "the runtime ended with {ended}");
        }
        Ok(())
    }
}

async fn serve_by(exchange: &str, setup: &Setup, figures: &Figures) -> Result<()> {
    let started = Instant::now();
    let (mut processes, server) = Processes::start(exchange, setup)?;
    server.until_healthy(&mut processes).await?;
    let exchange = server.exchange().await?;
    figures
        .tell("start of two ranks", &[("exchange", json!(exchange)), ("s", rounded(started.elapsed().as_secs_f64()))]);
    let load = if setup.small {
        Load { requests: 2, prompt: 5, answer: 4, seconds: setup.seconds }
    } else {
        Load { requests: 64, prompt: 128, answer: 128, seconds: setup.seconds.div_ceil(2) }
    };
    // In turn, so that a change of the machine meets both.
    for round in 0..if setup.small { 1 } else { 2 } {
        let still = server.load(load).await?;
        tell(figures, (round, &exchange), load, still, None);
        let mut rounds = 0;
        let moving = tokio::select! {
            load = server.load(load) => load?,
            ended = server.keep_moving(&mut rounds) => return Err(ended),
        };
        tell(figures, (round, &exchange), load, moving, Some(rounds));
    }
    processes.end().await
}

fn tell(figures: &Figures, (round, exchange): (usize, &str), load: Load, mut seen: Seen, rounds: Option<u64>) {
    seen.between.sort_by(f64::total_cmp);
    seen.first.sort_by(f64::total_cmp);
    let milliseconds = |times: &[f64], part| rounded(quantile(times, part) * 1e3);
    figures.tell(
        "load",
        &[
            ("experts", json!(if rounds.is_some() { "moving" } else { "still" })),
            ("exchange", json!(exchange)),
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
    async fn until_healthy(&self, processes: &mut Processes) -> Result<()> {
        let mut looks = tokio::time::interval(Duration::from_millis(100));
        loop {
            processes.ended()?;
            let answer = self.client.get(format!("{}/health", self.url)).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            looks.tick().await;
        }
    }

    /// How the ranks exchange rows, when all of them tell.
    async fn exchange(&self) -> Result<String> {
        let mut looks = tokio::time::interval(Duration::from_millis(100));
        loop {
            looks.tick().await;
            let mut by: Vec<String> = self.state().await?.ranks.into_iter().map(|rank| rank.exchange).collect();
            by.dedup();
            if by.iter().all(|by| !by.is_empty()) {
                ensure!(by.len() == 1, "ranks exchange rows by {by:?}");
                return Ok(by.remove(0));
            }
        }
    }

    async fn state(&self) -> Result<State> {
        let state = self.client.get(format!("{}{}", self.admin, path::STATE)).send().await?.bytes().await?;
        Ok(serde_json::from_slice(&state)?)
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
            let state = self.state().await?;
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
