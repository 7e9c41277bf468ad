//! The runtime's own process on the emulated GPU: it serves, and what it lacks it says in one sentence before it reads an expert.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use tests::emulator::Emulator;
use tests::{wait, workspace};
use tokio::process::Command;

/// A machine is slow that compiles beside this.
const PATIENCE: Duration = Duration::from_mins(3);

/// The tests of this file.
pub fn trials(emulator: &Emulator) -> Vec<Trial> {
    let trial = |name: &str, run: fn(&Emulator) -> Result<()>| {
        let emulator = emulator.clone();
        Trial::test(format!("process::{name}"), move || run(&emulator).map_err(|error| format!("{error:#}").into()))
    };
    vec![
        trial("two_ranks_answer_as_they_do_on_cpus", two_ranks_answer_as_they_do_on_cpus),
        trial("ranks_of_one_process_have_a_gpu_each_and_tell_what_it_does", ranks_of_one_process),
        trial("what_is_missing_is_said_in_one_sentence", what_is_missing_is_said_in_one_sentence),
    ]
}

fn program() -> Result<PathBuf> {
    Ok(workspace::Binaries::build()?.runtime)
}

/// `local` on this many ranks.
fn local(program: &PathBuf, backend: &str, ranks: &str) -> Result<(Command, String)> {
    let address = || Ok::<_, anyhow::Error>(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.to_string());
    let (listen, admin) = (address()?, address()?);
    let mut command = Command::new(program);
    command.args(["local", "--served-model-name", "tiny-moe", "--backend", backend, "--ranks", ranks]);
    command.args(["--listen", &listen, "--admin-listen", &admin, "--kv-blocks", "32"]);
    command.args(["--max-running-sequences", "4", "--max-step-tokens", "32", "--model"]);
    command.arg(workspace::root().join("examples/models/tiny-moe"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    Ok((command, format!("http://{listen}")))
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// What a runtime answers to a prompt, greedily.
async fn answer(mut command: Command, url: &str) -> Result<String> {
    let mut child = command.spawn().context("starting the runtime")?;
    let client = reqwest::Client::new();
    let request =
        serde_json::json!({"model": "tiny-moe", "prompt": "The capital of", "max_tokens": 8, "temperature": 0});
    let answer: serde_json::Value = wait::until("the runtime answers", PATIENCE, async || {
        ensure!(child.try_wait()?.is_none(), "it has ended");
        let url = format!("{url}/v1/completions");
        Ok(client.post(url).json(&request).send().await?.error_for_status()?.json().await?)
    })
    .await?;
    if let Some(pid) = child.id().and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)) {
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    }
    let ended = tokio::time::timeout(PATIENCE, child.wait()).await.context("the runtime does not end")??;
    ensure!(ended.success(), "the runtime ended with {ended}");
    Ok(answer["choices"][0]["text"].as_str().context("an answer")?.to_owned())
}

fn two_ranks_answer_as_they_do_on_cpus(emulator: &Emulator) -> Result<()> {
    let (program, runtime) = (program()?, runtime()?);
    let on = |backend| -> Result<String> {
        let (mut command, url) = local(&program, backend, "2")?;
        command.envs(emulator.environment());
        runtime.block_on(answer(command, &url))
    };
    let (expected, found) = (on("cpu")?, on("cuda")?);
    ensure!(!expected.is_empty() && expected == found, "{found:?} instead of {expected:?}");
    Ok(())
}

/// A process of two ranks that no coordinator is there for: each opens a GPU of its own, and tells what that does.
fn ranks_of_one_process(emulator: &Emulator) -> Result<()> {
    let (program, runtime) = (program()?, runtime()?);
    let address = || Ok::<_, anyhow::Error>(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.to_string());
    let (health, nobody) = (address()?, address()?);
    let secret = tempfile::NamedTempFile::new()?;
    std::fs::write(secret.path(), "s".repeat(32))?;
    let mut command = Command::new(program);
    command.args(["worker", "--backend", "cuda", "--rank", "2", "--ranks-here", "2", "--coordinator", &nobody]);
    command.args(["--advertise-address", "127.0.0.1", "--listen", "127.0.0.1:0", "--move-listen", "127.0.0.1:0"]);
    command.args(["--health-listen", &health, "--model"]).arg(workspace::root().join("examples/models/tiny-moe"));
    command.arg("--secret-file").arg(secret.path()).envs(emulator.environment());
    command.envs([("CUDA_MODEL_DEVICES", "2"), ("CUDA_MODEL_NVML_BUSY", "37"), ("CUDA_MODEL_NVML_USED_MB", "100")]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
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

fn what_is_missing_is_said_in_one_sentence(emulator: &Emulator) -> Result<()> {
    let (program, runtime) = (program()?, runtime()?);
    let ends = |environment: &[(&str, &str)], has_driver: bool| -> Result<Output> {
        let (mut command, _) = local(&program, "cuda", "1")?;
        if has_driver {
            command.envs(emulator.environment());
        } else {
            command.env_remove("LD_LIBRARY_PATH");
        }
        command.envs(environment.iter().copied()).stderr(Stdio::piped());
        // A process is started, and waited for, within the runtime alone.
        let ended = runtime.block_on(async { tokio::time::timeout(PATIENCE, command.output()).await });
        Ok(ended.context("it does not end")??)
    };
    let no_driver = "there is no CUDA driver: neither libcuda.so nor libcuda.so.1 is in the system's library folders";
    for (environment, has_driver, said) in [
        (&[][..], false, no_driver),
        (
            &[("CUDA_MODEL_DEVICES", "0")],
            true,
            "there is no GPU 0: the CUDA driver shows 0; check CUDA_VISIBLE_DEVICES",
        ),
        (&[("CUDA_MODEL_CAPABILITY", "75")], true, "has compute capability 7.5, and the kernels need 8.0"),
        (
            &[("CUDA_MODEL_NVRTC", "14")],
            true,
            "the CUDA driver is for CUDA 13.0, and takes nothing that NVRTC 14.0 compiles; update the driver",
        ),
        (&[("CUDA_MODEL_MEMORY_MB", "1")], true, "of its device's memory, "),
    ] {
        // Where a machine has a GPU of its own, nothing is missing.
        if !has_driver && kernels::cuda::devices().is_ok() {
            continue;
        }
        let Output { status, stderr, .. } = ends(environment, has_driver)?;
        let told = String::from_utf8_lossy(&stderr);
        ensure!(!status.success() && !told.contains("panicked"), "{environment:?}: {status}, {told}");
        let sentence = told.lines().find(|line| line.contains(said));
        let sentence = sentence.with_context(|| format!("{environment:?}: {said:?} is not in {told}"))?;
        ensure!(sentence.len() <= 400, "{} characters: {sentence}", sentence.len());
    }
    Ok(())
}
