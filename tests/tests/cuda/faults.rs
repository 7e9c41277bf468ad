//! A GPU that fails while its rank serves: the rank leaves with the reason, as its last word and in its metrics, and the group forms
//! again with the same map, with the rank itself where its GPU can still be used, and otherwise with the process that takes its place.

use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use plan::wire::process::{exit, variable};
use tests::emulator::Emulator;
use tests::wait;
use tokio::process::{Child, Command};

use crate::process::{PATIENCE, address, asked, command, example, program, runtime};
use crate::refusals::last_word_of;

/// What the second rank's GPU does, and what its process says when it ends.
const FAULTS: [(&str, &str); 2] = [
    // One launch that is not taken, which leaves the GPU as it was, and later one after which it is lost.
    ("refused@400,ecc@1500", "CUDA_ERROR_ECC_UNCORRECTABLE (uncorrectable ECC error encountered)"),
    ("illegal@500", "CUDA_ERROR_ILLEGAL_ADDRESS (an illegal memory access was encountered)"),
];

/// After which it is looked whether the rank is still there.
const ASK_WITHIN: Duration = Duration::from_secs(5);

/// How a rank begins to say that its GPU is lost.
const LOST: &str =
    "the thread 'engine' ended, which this process cannot do without: a step failed: the device failed: could not ";

/// The metric of groups that a rank left for its own device.
const LEFT: &str = "swiftbalancer_rank_groups_left_total{rank=\"1\",reason=\"device\"}";

/// A coordinator for two ranks, and what they are started with.
struct Group<'a> {
    program: &'a Path,
    emulator: &'a Emulator,
    control: String,
    secret: &'a Path,
    folder: &'a Path,
}

impl Group<'_> {
    fn command(&self, subcommand: &str) -> Command {
        let mut command = command(self.program, subcommand, &example());
        command.arg("--secret-file").arg(self.secret);
        command
    }

    fn rank(&self, rank: &str, faults: &str, health: &str) -> Result<Child> {
        let mut command = self.command("worker");
        command.args(["--backend", "cuda", "--enforce-eager", "--kv-blocks", "32", "--rank", rank]);
        command.args(["--coordinator", &self.control, "--advertise-address", "127.0.0.1", "--health-listen", health]);
        command.args(["--listen", "127.0.0.1:0", "--move-listen", "127.0.0.1:0"]);
        command.envs(self.emulator.environment()).env("CUDA_MODEL_FAULTS", faults);
        command.env(variable::TERMINATION_FILE, self.folder.join(rank));
        command.spawn().context("starting a rank")
    }
}

async fn has_left(health: &str) -> Result<bool> {
    let text = reqwest::get(format!("http://{health}/metrics")).await?.text().await?;
    Ok(text.lines().any(|line| line == format!("{LEFT} 1")))
}

/// Asks until the rank has ended, and how it did; whether its metrics told before that it had left a group.
async fn until_it_ends(url: &str, health: &str, rank: &mut Child) -> Result<(ExitStatus, bool)> {
    let mut left = false;
    let status = wait::until("the rank's GPU is lost", PATIENCE, async || {
        left = left || has_left(health).await.unwrap_or(false);
        if let Some(status) = rank.try_wait()? {
            return Ok(status);
        }
        // It fails while this is computed, and the answer comes when the group has formed again, or not.
        let answered = tokio::time::timeout(ASK_WITHIN, asked(url)).await;
        bail!("asked again: {answered:?}")
    });
    Ok((status.await?, left))
}

/// See the module's documentation.
pub fn a_gpu_that_fails(emulator: &Emulator) -> Result<()> {
    let (program, folder) = (program()?, tempfile::tempdir()?);
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "s".repeat(32))?;
    let (listen, control) = (address()?, address()?);
    let group = Group { program: &program, emulator, control: control.clone(), secret: &secret, folder: folder.path() };
    let url = format!("http://{listen}");
    runtime()?.block_on(async {
        let mut coordinator = group.command("coordinator");
        coordinator.args(["--served-model-name", "tiny-moe", "--ranks", "2", "--control-listen", &control]);
        coordinator.args(["--listen", &listen, "--admin-listen", &address()?]);
        coordinator.args(["--max-running-sequences", "4", "--max-step-tokens", "32"]);
        let _coordinator = coordinator.spawn().context("starting the coordinator")?;
        let _first = group.rank("0", "", &address()?)?;
        for (faults, said) in FAULTS {
            let health = address()?;
            let mut rank = group.rank("1", faults, &health)?;
            let (status, left) = until_it_ends(&url, &health, &mut rank).await.context(faults)?;
            let last_word = last_word_of(&folder.path().join("1"))?;
            ensure!(status.code() == Some(exit::FAILED.into()), "{faults}: {status}, {last_word}");
            ensure!(last_word.starts_with(LOST) && last_word.ends_with(said), "{faults}: {last_word}");
            ensure!(left || !faults.contains("refused"), "{faults}: {LEFT} was not told");
        }
        let _second = group.rank("1", "", &address()?)?;
        let answer = wait::until("the group serves again", PATIENCE, async || asked(&url).await).await?;
        ensure!(!answer.is_empty(), "nothing is answered");
        Ok(())
    })
}
