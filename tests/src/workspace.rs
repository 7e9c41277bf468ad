//! Where things are in this checkout, and its binaries.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The checkout's root: that which this was built from or, where a program was carried to another machine, the folder that it is
/// started in.
#[must_use]
pub fn root() -> &'static Path {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    if built.exists() { built } else { Path::new(".") }
}

/// Cargo's target folder, found from the running program: it lies in `target/PROFILE` or `target/PROFILE/deps`.
///
/// # Panics
/// If the running program was moved out of the target folder.
#[must_use]
pub fn target() -> PathBuf {
    profile_folder().parent().expect("a profile's folder lies in the target folder").to_owned()
}

fn profile_folder() -> PathBuf {
    let program = std::env::current_exe().expect("the path of the running program");
    let folder = program.parent().expect("a program lies in a folder");
    if folder.ends_with("deps") {
        folder.parent().expect("deps lies in a folder").to_owned()
    } else {
        folder.to_owned()
    }
}

/// The product's programs, built in the profile of the running one.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// `swiftbalancer-operator`; built with the feature `cluster` alone.
    pub operator: PathBuf,
    /// `swiftbalancer-runtime`.
    pub runtime: PathBuf,
    /// `swiftbalancer-download`.
    pub download: PathBuf,
}

impl Binaries {
    /// Brings them up to date. Cargo prints its progress.
    ///
    /// # Errors
    /// If they do not compile.
    pub fn build() -> Result<Self> {
        let folder = profile_folder();
        let profile = match folder.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(name) => name,
        };
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        // As the command that built this program did: with less or more Cargo would choose other features for shared dependencies and
        // compile those a second time. That is the whole workspace, with its tests where those are run; or, of a program that has
        // nothing of Kubernetes', this package and the runtime.
        let targets: &[&str] = match (cfg!(feature = "cluster"), profile) {
            (true, "dev") => &["--workspace", "--bins", "--tests"],
            (true, _) => &["--workspace", "--bins"],
            (false, _) => &[
                "--package",
                "tests",
                "--package",
                "runtime",
                "--package",
                "download",
                "--no-default-features",
                "--bins",
            ],
        };
        let mut command = Command::new(cargo);
        // What Cargo tells the program that it runs about its package would be news to build scripts that look at it (ring's
        // does): everything that depends on those would be compiled again, here and by the next command of the user.
        for (name, _) in std::env::vars_os() {
            if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|start| name.to_string_lossy().starts_with(start)) {
                command.env_remove(name);
            }
        }
        let status = command
            .arg("build")
            .args(targets)
            .args(["--profile", profile, "--target-dir"])
            .arg(folder.parent().context("a profile's folder lies in the target folder")?)
            .current_dir(root())
            .status()
            .context("running cargo")?;
        if !status.success() {
            bail!("the operator and the runtime do not compile");
        }
        let [operator, runtime, download] =
            ["operator", "runtime", "download"].map(|program| folder.join(format!("swiftbalancer-{program}")));
        Ok(Self { operator, runtime, download })
    }
}
