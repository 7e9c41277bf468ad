//! The official `openai` Python client, as users have it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::group::Group;

const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/serving/openai_client");

/// A Python with the client that `requirements.txt` names, made once.
fn python() -> PathBuf {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openai-client");
    let requirements = Path::new(HERE).join("requirements.txt");
    let python = home.join("bin/python");
    let stamp = home.join("requirements.txt");
    let wanted = std::fs::read(&requirements).unwrap();
    if std::fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return python;
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&home), "python3 with its venv module (Debian: python3-venv)");
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
    run(Command::new(&python).args(install).arg(&requirements), "a Python package index that pip can reach");
    std::fs::write(stamp, wanted).unwrap();
    python
}

fn run(command: &mut Command, needs: &str) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}; this test needs {needs}"));
    assert!(status.success(), "{command:?} failed with {status}; this test needs {needs}");
}

#[tokio::test]
async fn the_official_python_client_gets_what_it_expects() {
    let python = python();
    let group = Group::start(2, &["--init-redundancy-expert", "2"]).await;
    let script = Path::new(HERE).join("check.py");
    let status = tokio::task::spawn_blocking(move || {
        let status = Command::new(python).arg(script).arg(format!("{}/v1", group.url)).status();
        drop(group);
        status
    });
    assert!(status.await.unwrap().unwrap().success(), "see the script's own words above");
}
