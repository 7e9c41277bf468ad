//! Calls of `tests/cluster/build` and `tests/cluster/cluster`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::Family;
use crate::workspace;

/// What a command printed.
#[derive(Clone, Debug)]
pub struct Output {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Builds what the cache does not hold; progress goes to standard error. Returns the folder of the binaries.
pub fn build() -> Result<PathBuf> {
    built(&[])
}

/// The path of a program that is built alone, where the cache does not hold it.
///
/// # Errors
/// If it does not build.
pub fn program(name: &str) -> Result<PathBuf> {
    built(&[name])
}

fn built(arguments: &[&str]) -> Result<PathBuf> {
    let mut command = Command::new(folder().join("build"));
    let output = command.args(arguments).stderr(Stdio::inherit()).output().context("running the build")?;
    if !output.status.success() {
        bail!("the components of tests/cluster do not build");
    }
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

/// Whether [`build`] has nothing to do.
pub fn is_built() -> bool {
    let output = Command::new(folder().join("build")).arg("--check").output();
    output.is_ok_and(|output| output.status.success())
}

fn folder() -> PathBuf {
    workspace::root().join("tests/cluster")
}

pub struct Script {
    state: PathBuf,
    family: Family,
    binaries: Option<PathBuf>,
}

impl Script {
    pub fn new(state: PathBuf, family: Family, binaries: Option<PathBuf>) -> Self {
        Self { state, family, binaries }
    }

    pub fn state(&self) -> &Path {
        &self.state
    }

    pub fn is_running(&self) -> bool {
        // A process of that number is not enough: it may be a zombie, or another one.
        self.network_namespace("control-plane").is_ok_and(|namespace| namespace.exists())
    }

    /// Whether the running cluster ends with its users, not only by `down`.
    pub fn is_held(&self) -> bool {
        self.state.join("held").exists()
    }

    pub fn up(&self) -> Result<()> {
        self.call("up", []).map(drop)
    }

    pub fn hold(&self, lock: &Path) -> Result<()> {
        self.call("hold", [lock.to_str().context("a path that is not UTF-8")?]).map(drop)
    }

    pub fn down(&self) -> Result<()> {
        self.call("down", []).map(drop)
    }

    pub fn load(&self, archive: &Path) -> Result<()> {
        self.call("load", [archive.to_str().context("a path that is not UTF-8")?]).map(drop)
    }

    pub fn node(&self, verb: &str, node: usize) -> Result<()> {
        self.call("node", [verb, &node.to_string()]).map(drop)
    }

    pub fn link(&self, verb: &str, node: usize) -> Result<()> {
        self.call("link", [verb, &node.to_string()]).map(drop)
    }

    pub fn run<'a>(&self, program: &'a str, arguments: impl IntoIterator<Item = &'a str>) -> Result<Output> {
        self.call("run", std::iter::once(program).chain(arguments))
    }

    /// The file that stands for a network namespace of the cluster, as seen from outside of it.
    pub fn network_namespace(&self, name: &str) -> Result<PathBuf> {
        Ok(PathBuf::from(format!("/proc/{}/root/run/netns/{name}", self.process_one()?)))
    }

    fn process_one(&self) -> Result<u32> {
        let pid = fs::read_to_string(self.state.join("init.pid")).context("the cluster is not running")?;
        Ok(pid.trim().parse()?)
    }

    fn call<'a>(&self, verb: &str, arguments: impl IntoIterator<Item = &'a str>) -> Result<Output> {
        let arguments: Vec<_> = arguments.into_iter().collect();
        let mut command = Command::new(folder().join("cluster"));
        command.arg(verb).args(&arguments).env("CLUSTER_DIR", &self.state).current_dir(workspace::root());
        command.env("CLUSTER_IMAGES", workspace::target().join("images/archives")).stdin(Stdio::null());
        command.env("CLUSTER_FAMILY", self.family.name());
        if let Some(binaries) = &self.binaries {
            command.env("CLUSTER_BIN", binaries);
        }
        let output = command.output().context("running tests/cluster/cluster")?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            let (what, said) = (arguments.join(" "), stderr.trim());
            bail!("cluster {verb} {what}: {}: {said}\n{}", output.status, stdout.trim());
        }
        Ok(Output { stdout, stderr })
    }
}
