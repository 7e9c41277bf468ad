//! The tests of the CUDA engine as figures: each that was run, and how it ended.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::figures::Figures;

/// Tells the program of tests that the machine's own driver is meant.
const ON_GPU: &str = "SWIFTBALANCER_GPU";

pub fn run(program: &Path, tests: &[String], figures: &Figures) -> Result<()> {
    let all = [String::new()];
    let (mut passed, mut failed, mut left_out) = (0, 0, 0);
    for test in if tests.is_empty() { &all[..] } else { tests } {
        let mut command = Command::new(program);
        command.env(ON_GPU, "required").arg("--test-threads=1").arg(test).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{} does not start", program.display()))?;
        for line in BufReader::new(child.stdout.take().context("a process with an output")?).lines() {
            let line = line?;
            if let Some((name, reason)) = left_out_of(&line) {
                left_out += 1;
                figures.tell(name, &[("left out", json!(reason))]);
                continue;
            }
            if let Some((name, found)) = line.strip_prefix("figure: ").and_then(|rest| rest.split_once(": ")) {
                figures.tell(name, &[("found", json!(found))]);
                continue;
            }
            let Some((name, ended)) = result(&line) else { continue };
            passed += usize::from(ended == "ok");
            failed += usize::from(ended == "FAILED");
            figures.tell(name, &[("result", json!(ended))]);
        }
        child.wait()?;
    }
    figures.tell("all", &[("passed", json!(passed)), ("failed", json!(failed)), ("left out", json!(left_out))]);
    ensure!(passed > 0 && failed == 0, "{passed} tests passed, {failed} failed");
    Ok(())
}

/// The name of a test and why it does not run on this machine, where a line of the tests' program says that.
fn left_out_of(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("left out: ")?.split_once(": ")
}

/// The name of a test and how it ended, where a line of libtest says that.
fn result(line: &str) -> Option<(&str, &str)> {
    let (name, ended) = line.strip_prefix("test ")?.split_once(" ... ")?;
    Some((name.trim(), ended.split_whitespace().next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_of_a_test_is_read_from_its_line() {
        assert_eq!(result("test cuda::pages ... ok"), Some(("cuda::pages", "ok")));
        assert_eq!(result("test cuda::pages  ... FAILED"), Some(("cuda::pages", "FAILED")));
        assert_eq!(result("test result: ok. 3 passed; 0 failed"), None);
        assert_eq!(result("running 3 tests"), None);
        let left_out = "left out: cuda::pages: it needs 2 GPUs, and this machine has 1";
        assert_eq!(left_out_of(left_out), Some(("cuda::pages", "it needs 2 GPUs, and this machine has 1")));
        assert_eq!(left_out_of("test cuda::pages ... ok"), None);
    }
}
