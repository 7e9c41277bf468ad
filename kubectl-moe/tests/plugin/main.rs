//! The kubectl plugin as a program: what it prints, what it refuses, and docs/kubectl-moe.md, whose examples are run.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod api_server;
mod bench;
mod documentation;
mod habits;
mod krew;
mod monitor;
mod plurals;
mod refusals;
mod results;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The program in the root of the workspace, for a user who asks for backtraces and has no kubeconfig.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-moe"));
    command.args(arguments).current_dir(workspace()).env("RUST_BACKTRACE", "1");
    command.env_remove("KUBECONFIG").env_remove("KUBERNETES_SERVICE_HOST").env("HOME", "/nowhere");
    command
}

fn run(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What a command that succeeds prints. Time is all that differs from run to run.
fn printed(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {}", text(&output.stderr));
    let timeless = |line: &str| match line.split_once("\"planner_seconds\": ") {
        Some((indent, seconds)) => {
            let seconds: f64 = seconds.trim_end_matches(',').parse().unwrap();
            assert!(seconds > 0.0, "planning takes time");
            format!("{indent}\"planner_seconds\": 0.001,\n")
        }
        None => format!("{line}\n"),
    };
    text(&output.stdout).lines().map(timeless).collect()
}
