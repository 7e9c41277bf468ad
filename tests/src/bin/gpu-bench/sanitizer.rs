//! Tests under NVIDIA's checker: each by itself and for as long as there is time, so that what was checked is told of each, and what was not
//! is never told as clean.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use tokio::process::{Child, Command};

use crate::figures::Figures;

/// Has the tests' program run a test by itself.
const CASE: &str = "SWIFTBALANCER_CUDA_CASE";
/// With what the checker ends a program in which it found something.
const FOUND: i32 = 9;
/// What is left of a stage's time when the checker is ended, to tell of it.
const TO_TELL: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Setup {
    pub checker: PathBuf,
    /// The part of it that checks.
    pub tool: String,
    /// The tests' program.
    pub program: PathBuf,
    pub cases: Vec<String>,
    /// Seconds of all cases.
    pub seconds: u64,
}

/// How the check of a test ended.
#[derive(Debug, PartialEq)]
enum Outcome {
    Clean,
    Found,
    /// The test itself, or the checker.
    Failed,
    Ended,
    NotBegun,
}

impl Outcome {
    const fn name(&self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Found => "findings",
            Self::Failed => "failed",
            Self::Ended => "ended at its limit, not checked to its end",
            Self::NotBegun => "not begun, no time was left",
        }
    }
}

pub fn run(setup: &Setup, figures: &Figures) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let until = Instant::now() + Duration::from_secs(setup.seconds).saturating_sub(TO_TELL);
    let (mut clean, mut bad) = (0, Vec::new());
    for case in &setup.cases {
        let (outcome, summary) = runtime.block_on(check(setup, case, until))?;
        figures
            .tell(&setup.tool, &[("test", json!(case)), ("ended", json!(outcome.name())), ("summary", json!(summary))]);
        match outcome {
            Outcome::Clean => clean += 1,
            Outcome::Found | Outcome::Failed => bad.push(format!("{case}: {summary}")),
            Outcome::Ended | Outcome::NotBegun => {}
        }
    }
    figures.tell(&setup.tool, &[("clean", json!(clean)), ("of tests", json!(setup.cases.len()))]);
    ensure!(bad.is_empty(), "{} says: {}", setup.tool, bad.join("; "));
    Ok(())
}

/// Ends a process with all that it has started.
fn end(child: &Child) {
    let pid = child.id().and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?));
    if let Some(group) = pid {
        // It may have ended by itself.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

async fn check(setup: &Setup, case: &str, until: Instant) -> Result<(Outcome, String)> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Ok((Outcome::NotBegun, String::new()));
    }
    let said = tempfile::NamedTempFile::new()?;
    // Both write behind each other.
    let (out, err) = (said.as_file().try_clone()?, said.as_file().try_clone()?);
    let mut command = Command::new(&setup.checker);
    command.args(["--tool", &setup.tool, "--error-exitcode", &FOUND.to_string(), "--print-limit", "20"]);
    command.arg(&setup.program).env(CASE, case);
    // As wherever ranks share a GPU.
    command.env("CUDA_DEVICE_MAX_CONNECTIONS", "32");
    command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
    let mut child = command.spawn().with_context(|| format!("{} does not start", setup.checker.display()))?;
    let ended = tokio::time::timeout(left, child.wait()).await;
    end(&child);
    let text = String::from_utf8_lossy(&std::fs::read(said.path())?).into_owned();
    eprintln!("{text}");
    let Ok(status) = ended else {
        child.wait().await?;
        return Ok((Outcome::Ended, summary(&text).unwrap_or_default()));
    };
    Ok(outcome(status?, &text))
}

/// The checker's own last word.
fn summary(text: &str) -> Option<String> {
    let line = text.lines().rfind(|line| line.contains("SUMMARY:"))?;
    Some(line.trim_start_matches(['=', ' ']).trim_end().to_owned())
}

/// What an end and the words before it say. Only a summary of nothing after a test that passed is clean.
fn outcome(status: ExitStatus, text: &str) -> (Outcome, String) {
    let Some(summary) = summary(text) else {
        let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        return (Outcome::Failed, format!("no summary, {status}: {}", last.chars().take(200).collect::<String>()));
    };
    let is_nothing = summary.split_once("SUMMARY:").is_some_and(|(_, told)| told.trim().starts_with("0 "));
    let outcome = match (is_nothing, status.code()) {
        (true, Some(0)) => Outcome::Clean,
        (false, _) | (true, Some(FOUND)) => Outcome::Found,
        (true, _) => Outcome::Failed,
    };
    (outcome, summary)
}

/// Seconds that the script gives this stage.
pub fn seconds() -> Result<u64> {
    let Some(seconds) = std::env::var_os("STAGE_SECONDS") else { return Ok(60) };
    match seconds.to_str().and_then(|seconds| seconds.parse().ok()) {
        Some(seconds) => Ok(seconds),
        None => bail!("STAGE_SECONDS is {}, which is no number of seconds", seconds.display()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn only_a_summary_of_nothing_is_clean() {
        let [nothing, some] = ["0 errors", "3 errors"].map(|told| format!("========= ERROR SUMMARY: {told}\n"));
        let races = "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n";
        let hazards = "========= RACECHECK SUMMARY: 10 hazards displayed (10 errors, 0 warnings)\n";
        for (code, text, expected) in [
            (0, nothing.as_str(), Outcome::Clean),
            (0, races, Outcome::Clean),
            (FOUND, &nothing, Outcome::Found),
            (FOUND, &some, Outcome::Found),
            (0, &some, Outcome::Found),
            (0, hazards, Outcome::Found),
            (1, &nothing, Outcome::Failed),
            (0, "the test said something\n", Outcome::Failed),
            (0, "", Outcome::Failed),
        ] {
            let (found, summary) = outcome(ExitStatus::from_raw(code << 8), text);
            assert_eq!(found, expected, "{code}, {text}: {summary}");
        }
    }
}
