//! What the cluster needs of this machine, and what to do where it is missing.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use super::script;

/// Something the cluster cannot run without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What it is.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
    /// The Debian package that has it, if one has.
    package: Option<&'static str>,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} ({})", self.what, self.remedy)
    }
}

/// Program and the Debian package that has it.
const PROGRAMS: [(&str, &str); 9] = [
    ("runc", "runc"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("openssl", "openssl"),
    ("sysctl", "procps"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("strip", "binutils"),
    ("ldd", "libc-bin"),
];

/// What is missing here, in the order in which a person would want to know it.
#[must_use]
pub fn missing() -> Vec<Missing> {
    let mut missing = Vec::new();
    if !cfg!(target_os = "linux") {
        return vec![Missing {
            what: "Linux".into(),
            remedy: "use a Linux machine, or your own cluster: make demo CONTEXT=name".into(),
            package: None,
        }];
    }
    if !rustix::process::geteuid().is_root() {
        missing.push(Missing {
            what: "root".into(),
            remedy: "run it as root: nodes are made of mount, PID and network namespaces and cgroups".into(),
            package: None,
        });
    }
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() && !Path::new("/sys/fs/cgroup/memory").exists() {
        missing.push(Missing {
            what: "cgroups".into(),
            remedy: "mount them at /sys/fs/cgroup; in a container, run on the machine itself".into(),
            package: None,
        });
    }
    for (program, package) in PROGRAMS {
        if find_program(program).is_none() {
            missing.push(of_package(program, package));
        }
    }
    if !["/usr/lib/cni/bridge", "/opt/cni/bin/bridge"].iter().any(|path| Path::new(path).exists()) {
        missing.push(of_package("the CNI plugins", "containernetworking-plugins"));
    }
    if find_program("go").is_none() && !script::is_built() {
        missing.push(Missing {
            what: "Go 1.26 or newer".into(),
            remedy: "install it from https://go.dev/dl: it builds Kubernetes, once".into(),
            package: None,
        });
    }
    missing
}

/// Installs what Debian packages have, where that is possible, and refuses if anything is missing after that.
///
/// # Errors
/// Naming everything that is missing.
pub fn provide() -> Result<()> {
    let packages: Vec<_> = missing().iter().filter_map(|missing| missing.package).collect();
    if !packages.is_empty() && rustix::process::geteuid().is_root() && find_program("apt-get").is_some() {
        eprintln!("cluster: installing {}", packages.join(", "));
        let install = || {
            let status = Command::new("apt-get")
                .args(["install", "--yes", "--quiet", "--no-install-recommends"])
                .args(&packages)
                .env("DEBIAN_FRONTEND", "noninteractive")
                .stdout(std::process::Stdio::null())
                .status();
            status.is_ok_and(|status| status.success())
        };
        if !install() {
            // A new machine has no package lists yet.
            let _ = Command::new("apt-get").args(["update", "--quiet"]).stdout(std::process::Stdio::null()).status();
            install();
        }
    }
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(Missing::to_string).collect();
    bail!("the cluster cannot run here; missing: {}", names.join("; "))
}

fn of_package(what: &str, package: &'static str) -> Missing {
    Missing { what: what.to_owned(), remedy: format!("install the package {package}"), package: Some(package) }
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Debian keeps some of these out of the path of users who are not root.
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")]);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}
