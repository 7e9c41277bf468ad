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
    let (mut passed, mut failed) = (0, 0);
    for test in if tests.is_empty() { &all[..] } else { tests } {
        let mut command = Command::new(program);
        command.env(ON_GPU, "required").arg("--test-threads=1").arg(test).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{} does not start", program.display()))?;
        for line in BufReader::new(child.stdout.take().context("a process with an output")?).lines() {
            let line = line?;
            let Some((name, ended)) = result(&line) else { continue };
            passed += usize::from(ended == "ok");
            failed += usize::from(ended == "FAILED");
            figures.tell(name, &[("result", json!(ended))]);
        }
        child.wait()?;
    }
    figures.tell("all", &[("passed", json!(passed)), ("failed", json!(failed))]);
    ensure!(passed > 0 && failed == 0, "{passed} tests passed, {failed} failed");
    Ok(())
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
    }
}
