//! Groups of ranks as a user starts them, on the emulated GPUs: they answer as CPUs do, move experts, and outlive a rank that is killed
//! while it answers, by every way in which GPUs exchange rows among themselves.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use plan::moves::random_transaction;
use plan::wire::{MapDocument, path};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tests::admin::{self, Endpoint};
use tests::emulator::Emulator;
use tests::wait;
use tokio::process::{Child, Command};

use crate::process::{PATIENCE, address, command, example, program, runtime};
use crate::suite::{OnEmulator, trials_of};

/// Tokens of an answer.
const TOKENS: usize = 16;
/// Those of them that are compared with CPUs', whose rounding is another.
const COMPARED: usize = 8;

/// The tests of this file.
pub fn trials(emulator: &Emulator) -> Vec<Trial> {
    let tests: &[OnEmulator] = &[
        ("ranks_of_one_process_serve_move_and_start_again_by_peer", ranks_of_one_process),
        ("ranks_of_several_processes_serve_move_and_start_again_by_nccl", ranks_of_several_processes),
    ];
    trials_of("served", emulator, tests)
}

/// Where requests and admins reach what serves, told to a command that is to serve there.
struct Served {
    url: String,
    admin: Endpoint,
}

impl Served {
    fn by(command: &mut Command) -> Result<Self> {
        let (listen, admin) = (address()?, address()?);
        command.args([
            "--served-model-name",
            "tiny-moe",
            "--ranks",
            "2",
            "--listen",
            &listen,
            "--admin-listen",
            &admin,
        ]);
        command.args(["--max-running-sequences", "4", "--max-step-tokens", "32"]);
        Ok(Self { url: format!("http://{listen}"), admin: Endpoint { url: format!("http://{admin}"), token: None } })
    }

    async fn is_ready(&self) -> Result<()> {
        wait::until("the group serves", PATIENCE, async || {
            ensure!(admin::state(&self.admin).await?.ready, "it is not ready");
            Ok(())
        })
        .await
    }

    /// The tokens of an answer, each as it comes.
    async fn answer(&self, meanwhile: impl AsyncFnOnce() -> Result<()>) -> Result<Vec<String>> {
        let request = json!({"model": "tiny-moe", "prompt": "The capital of", "max_tokens": TOKENS, "temperature": 0,
            "ignore_eos": true, "stream": true});
        let url = format!("{}/v1/completions", self.url);
        let mut answer = reqwest::Client::new().post(url).json(&request).send().await?.error_for_status()?;
        let (mut rest, mut texts, mut meanwhile) = (String::new(), Vec::new(), Some(meanwhile));
        while let Some(bytes) = tokio::time::timeout(PATIENCE, answer.chunk()).await.context("it answers no more")?? {
            rest.push_str(&String::from_utf8_lossy(&bytes));
            while let Some((line, after)) = rest.split_once('\n') {
                texts.extend(text(line)?);
                rest = after.to_owned();
            }
            if let Some(meanwhile) = meanwhile.take_if(|_| !texts.is_empty()) {
                meanwhile().await?;
            }
        }
        Ok(texts)
    }

    /// Moves an expert of every layer, and waits until that is in force.
    async fn move_experts(&self) -> Result<()> {
        let (client, url) = (reqwest::Client::new(), format!("{}{}", self.admin.url, path::MAP));
        let document = MapDocument::from_json(&client.get(&url).send().await?.bytes().await?)?;
        let before = document.to_map(&document.model)?;
        let mut moved = before.clone();
        for layer in before.layers() {
            moved = moved.apply(&random_transaction(&moved, layer, 1).context("an expert that can move")?)?;
        }
        let first = admin::state(&self.admin).await?.epoch;
        client.post(&url).json(&MapDocument::new(document.model, &moved)).send().await?.error_for_status()?;
        wait::until("the map is in force", PATIENCE, async || {
            let state = admin::state(&self.admin).await?;
            ensure!(state.epoch > first && state.pending_transactions == 0, "epoch {}", state.epoch);
            Ok(())
        })
        .await
    }

    /// Serves, moves, and loses a rank in the middle of an answer, which `kill` does and mends.
    async fn is_right(&self, means: &str, expected: &[String], kill: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
        self.is_ready().await?;
        let state = admin::state(&self.admin).await?;
        let by: Vec<&str> = state.ranks.iter().map(|rank| rank.exchange.as_str()).collect();
        ensure!(by == [means; 2], "rows are exchanged by {by:?}");
        let first = self.answer(async || Ok(())).await?;
        let start: String = expected.iter().take(COMPARED).map(String::as_str).collect();
        ensure!(!start.is_empty() && first.concat().starts_with(&start), "{first:?} instead of {expected:?}");
        self.move_experts().await?;
        let moved = self.answer(async || Ok(())).await?;
        ensure!(moved.concat() == first.concat(), "{moved:?} after a move, {first:?} before");
        let interrupted = self.answer(kill).await?;
        ensure!(interrupted.concat() == first.concat(), "{interrupted:?} when a rank was lost, {first:?} otherwise");
        let generation = admin::state(&self.admin).await?.generation;
        ensure!(generation > state.generation, "the group has formed again");
        Ok(())
    }
}

/// The text that a line of a stream brings, if it does.
fn text(line: &str) -> Result<Option<String>> {
    let Some(data) = line.strip_prefix("data: ").filter(|data| *data != "[DONE]") else { return Ok(None) };
    let event: Value = serde_json::from_str(data).with_context(|| format!("no event: {data}"))?;
    ensure!(event.get("error").is_none(), "the runtime says: {data}");
    Ok(event["choices"][0]["text"].as_str().filter(|text| !text.is_empty()).map(str::to_owned))
}

fn kill(pid: u32) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("the number of a process")?;
    Ok(kill_process(pid, Signal::KILL)?)
}

/// What CPUs answer.
async fn expected(program: &Path) -> Result<Vec<String>> {
    let mut command = command(program, "local", &example());
    let served = Served::by(&mut command)?;
    let _process = command.args(["--backend", "cpu", "--kv-blocks", "32"]).spawn().context("starting ranks on CPUs")?;
    served.is_ready().await?;
    served.answer(async || Ok(())).await
}

fn ranks_of_one_process(emulator: &Emulator) -> Result<()> {
    let (program, secret) = (program()?, tempfile::NamedTempFile::new()?);
    std::fs::write(secret.path(), "s".repeat(32))?;
    let mut coordinator = command(&program, "coordinator", &example());
    let (served, control) = (Served::by(&mut coordinator)?, address()?);
    coordinator.args(["--control-listen", &control]).arg("--secret-file").arg(secret.path());
    let start = || -> Result<Child> {
        let mut command = command(&program, "worker", &example());
        command.args(["--backend", "cuda", "--exchange", "peer", "--rank", "0", "--ranks-here", "2"]);
        command.args(["--coordinator", &control, "--advertise-address", "127.0.0.1", "--listen", "127.0.0.1:0"]);
        command.args(["--move-listen", "127.0.0.1:0", "--health-listen", &address()?, "--kv-blocks", "32"]);
        command.arg("--secret-file").arg(secret.path()).envs(emulator.environment()).env("CUDA_MODEL_DEVICES", "2");
        command.spawn().context("starting the ranks")
    };
    runtime()?.block_on(async {
        let expected = expected(&program).await?;
        let _coordinator = coordinator.spawn().context("starting the coordinator")?;
        let mut ranks = start()?;
        let again = async || {
            ranks.kill().await?;
            ranks = start()?;
            Ok(())
        };
        served.is_right("peer", &expected, again).await
    })
}

fn ranks_of_several_processes(emulator: &Emulator) -> Result<()> {
    let program = program()?;
    let mut command = command(&program, "local", &example());
    let served = Served::by(&mut command)?;
    command.args(["--backend", "cuda", "--exchange", "nccl", "--kv-blocks", "32"]).envs(emulator.environment());
    // As much as NCCL takes, and as all else does.
    command.envs([("CUDA_MODEL_DEVICES", "2"), ("CUDA_MODEL_MEMORY_MB", "2048")]);
    runtime()?.block_on(async {
        let expected = expected(&program).await?;
        let process = command.spawn().context("starting ranks")?;
        let parent = process.id().context("a process that runs")?;
        served.is_right("nccl", &expected, async || kill(child_of(parent)?)).await
    })
}

/// A process that this one has started, by whichever of its threads.
fn child_of(parent: u32) -> Result<u32> {
    for thread in std::fs::read_dir(format!("/proc/{parent}/task"))? {
        let children = std::fs::read_to_string(thread?.path().join("children"))?;
        if let Some(child) = children.split_whitespace().next() {
            return Ok(child.parse()?);
        }
    }
    anyhow::bail!("process {parent} has started none")
}
