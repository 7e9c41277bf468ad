//! The runtime's own process on the emulated GPU: it serves as it does on CPUs.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use tests::emulator::Emulator;
use tests::{wait, workspace};
use tokio::process::Command;

use crate::suite::{OnEmulator, trials_of};
use crate::{faults, refusals};

/// A machine is slow that compiles beside this.
pub const PATIENCE: Duration = Duration::from_mins(3);

/// The tests of this file.
pub fn trials(emulator: &Emulator) -> Vec<Trial> {
    let tests: &[OnEmulator] = &[
        ("two_ranks_answer_as_they_do_on_cpus", two_ranks_answer_as_they_do_on_cpus),
        ("ranks_of_one_process_have_a_gpu_each_and_tell_what_it_does", ranks_of_one_process),
        ("what_is_missing_is_said_in_one_sentence", refusals::all_are_said),
        ("the_page_says_what_is_missing_as_the_process_does", refusals::the_page_says_them),
        ("a_gpu_that_fails_while_it_serves_costs_its_rank_alone", faults::a_gpu_that_fails),
    ];
    trials_of("process", emulator, tests)
}

/// The runtime.
pub fn program() -> Result<PathBuf> {
    Ok(workspace::Binaries::build()?.runtime)
}

/// The model that is served.
pub fn example() -> PathBuf {
    workspace::root().join("examples/models/tiny-moe")
}

/// An address that nobody listens on.
pub fn address() -> Result<String> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.to_string())
}

/// A command of the runtime that says nothing and ends with the test.
pub fn command(program: &Path, subcommand: &str, model: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg(subcommand).arg("--model").arg(model);
    command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    command
}

/// `local` of a model on this many ranks, as the options say that are still to be added.
pub fn local(program: &Path, backend: &str, model: &Path) -> Result<(Command, String)> {
    let (mut command, listen) = (command(program, "local", model), address()?);
    command.args(["--served-model-name", "tiny-moe", "--backend", backend]);
    command.args(["--listen", &listen, "--admin-listen", &address()?]);
    command.args(["--max-running-sequences", "4", "--max-step-tokens", "32"]);
    Ok((command, format!("http://{listen}")))
}

/// How a process ends that is not told to.
pub fn ended(mut command: Command) -> Result<ExitStatus> {
    // A process is started, and waited for, within the runtime alone.
    runtime()?.block_on(async {
        let mut child = command.stderr(Stdio::null()).spawn().context("starting the runtime")?;
        Ok(tokio::time::timeout(PATIENCE, child.wait()).await.context("it does not end")??)
    })
}

/// What waits for processes.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// What is answered there to a prompt, greedily.
pub async fn asked(url: &str) -> Result<String> {
    let request =
        serde_json::json!({"model": "tiny-moe", "prompt": "The capital of", "max_tokens": 8, "temperature": 0});
    let sent = reqwest::Client::new().post(format!("{url}/v1/completions")).json(&request).send().await?;
    let answer: serde_json::Value = sent.error_for_status()?.json().await?;
    Ok(answer["choices"][0]["text"].as_str().context("an answer")?.to_owned())
}

/// What a runtime answers.
async fn answer(mut command: Command, url: &str) -> Result<String> {
    let mut child = command.spawn().context("starting the runtime")?;
    let answer = wait::until("the runtime answers", PATIENCE, async || {
        ensure!(child.try_wait()?.is_none(), "it has ended");
        asked(url).await
    })
    .await?;
    if let Some(pid) = child.id().and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)) {
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    }
    let ended = tokio::time::timeout(PATIENCE, child.wait()).await.context("the runtime does not end")??;
    ensure!(ended.success(), "the runtime ended with {ended}");
    Ok(answer)
}

fn two_ranks_answer_as_they_do_on_cpus(emulator: &Emulator) -> Result<()> {
    let (program, runtime) = (program()?, runtime()?);
    let on = |backend| -> Result<String> {
        let (mut command, url) = local(&program, backend, &example())?;
        command.args(["--ranks", "2", "--kv-blocks", "32"]).envs(emulator.environment());
        runtime.block_on(answer(command, &url))
    };
    let (expected, found) = (on("cpu")?, on("cuda")?);
    ensure!(!expected.is_empty() && expected == found, "{found:?} instead of {expected:?}");
    Ok(())
}

/// A process of two ranks that no coordinator is there for: each opens a GPU of its own, and tells what that does.
fn ranks_of_one_process(emulator: &Emulator) -> Result<()> {
    let (program, runtime) = (program()?, runtime()?);
    let (health, nobody) = (address()?, address()?);
    let secret = tempfile::NamedTempFile::new()?;
    std::fs::write(secret.path(), "s".repeat(32))?;
    let mut command = command(&program, "worker", &example());
    command.args(["--backend", "cuda", "--rank", "2", "--ranks-here", "2", "--coordinator", &nobody]);
    command.args(["--advertise-address", "127.0.0.1", "--listen", "127.0.0.1:0", "--move-listen", "127.0.0.1:0"]);
    command.args(["--health-listen", &health]).arg("--secret-file").arg(secret.path()).envs(emulator.environment());
    command.envs([("CUDA_MODEL_DEVICES", "2"), ("CUDA_MODEL_NVML_BUSY", "37"), ("CUDA_MODEL_NVML_USED_MB", "100")]);
    runtime.block_on(async {
        let _process = command.spawn().context("starting the ranks")?;
        wait::until("both ranks tell what their GPUs do", PATIENCE, async || {
            let text = reqwest::get(format!("http://{health}/metrics")).await?.text().await?;
            for rank in [2, 3] {
                for said in [
                    format!("gpu_utilization{{rank=\"{rank}\"}} 0.37"),
                    format!("swiftbalancer_rank_gpu_memory_used_bytes{{rank=\"{rank}\"}} {}", 100 << 20),
                ] {
                    ensure!(text.lines().any(|line| line == said), "no {said} in {text}");
                }
            }
            Ok(())
        })
        .await
    })
}
