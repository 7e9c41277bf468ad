//! The script that measures a GPU, run as it is on the emulated one: every stage does its work, says that it is emulated, and what was
//! found is told even when it is ended. It is not a measurement.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use tempfile::TempDir;
use tests::emulator::Emulator;
use tests::{wait, workspace};

/// For a stage's first figure on a machine that compiles beside this.
const PATIENCE: Duration = Duration::from_mins(3);

/// What every line begins with.
const MARK: &str = "emulated: ";

/// The tests of this file.
pub fn trials(emulator: &Emulator) -> Vec<Trial> {
    let trial = |name: &str, run: fn(&Emulator) -> Result<()>| {
        let emulator = emulator.clone();
        Trial::test(format!("measure::{name}"), move || run(&emulator).map_err(|error| format!("{error:#}").into()))
    };
    vec![
        trial("every_stage_measures_and_says_that_it_is_emulated", every_stage_measures_and_says_that_it_is_emulated),
        trial("what_was_found_is_told_when_it_is_ended", what_was_found_is_told_when_it_is_ended),
    ]
}

/// The script with the programs of this build, on the emulated driver.
struct Script {
    programs: TempDir,
    out: TempDir,
}

impl Script {
    fn new() -> Result<Self> {
        let programs = tempfile::tempdir()?;
        symlink(env!("CARGO_BIN_EXE_gpu-bench"), programs.path().join("gpu-bench"))?;
        symlink(workspace::Binaries::build()?.runtime, programs.path().join("swiftbalancer-runtime"))?;
        symlink(std::env::current_exe()?, programs.path().join("gpu-tests"))?;
        Ok(Self { programs, out: tempfile::tempdir()? })
    }

    fn command(&self, emulator: &Emulator, call: &str) -> Command {
        let mut command = Command::new(workspace::root().join("tests/gpu/measure.sh"));
        command.arg(call).arg(self.programs.path()).envs(emulator.environment()).env("OUT", self.out.path());
        command.env("SMALL", "1").env("SLOWER", "10").env("SECONDS_ALL", "3000").env("LOAD_SECONDS", "1");
        command.env("TESTS", "cuda::a_table_gives_its_rows cuda::what_is_drawn_on_the_gpu");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn figures(&self) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(self.out.path().join("figures.jsonl"))?;
        text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }
}

fn every_stage_measures_and_says_that_it_is_emulated(emulator: &Emulator) -> Result<()> {
    let script = Script::new()?;
    for (call, stages) in
        [("right", &["probe", "suite", "ceilings"][..]), ("fast", &["ceilings", "products", "steps", "serving"])]
    {
        let output = script.command(emulator, call).output()?;
        let told = String::from_utf8_lossy(&output.stdout);
        let log = std::fs::read_to_string(script.out.path().join("log"))?;
        ensure!(output.status.success(), "{}\n{told}\n{log}", output.status);
        for line in told.lines() {
            ensure!(line.starts_with(MARK), "{call}: {line:?} passes for a GPU's");
        }
        let figures = script.figures()?;
        ensure!(figures.iter().all(|figure| figure["on"] == "emulated"), "{figures:?}");
        for stage in stages {
            ensure!(figures.iter().any(|figure| figure["stage"] == *stage), "{call}: {stage} found nothing:\n{log}");
            ensure!(told.contains(&format!("{MARK}{stage} | ")), "{call}: {stage} is not in the table:\n{told}");
        }
    }
    Ok(())
}

fn what_was_found_is_told_when_it_is_ended(emulator: &Emulator) -> Result<()> {
    let script = Script::new()?;
    let child = script.command(emulator, "fast").spawn()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let has_figures = wait::until("the first stage has figures", PATIENCE, async || {
        ensure!(!script.figures()?.is_empty(), "nothing yet");
        Ok(())
    });
    runtime.block_on(has_figures)?;
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id())?).context("a process")?;
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    let output = child.wait_with_output()?;
    let told = String::from_utf8_lossy(&output.stdout);
    ensure!(!output.status.success(), "it was ended: {told}");
    ensure!(told.contains(&format!("{MARK}ceilings | ")), "the table is told: {told}");
    let left = |path: &Path| path.exists();
    ensure!(!left(&script.out.path().join("part")), "nothing is left half done");
    Ok(())
}
