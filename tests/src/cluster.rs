//! A real Kubernetes cluster on this machine: three nodes, our images, nothing outside of it. It is shared by everything
//! that runs at the same time in one checkout and is gone when the last of those ends, however that ends.

mod audit;
mod forward;
mod prerequisites;
mod script;

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

pub use audit::{AuditLog, Request};
pub use forward::Forward;
pub use prerequisites::{Missing, missing, provide};
pub use script::{Output, program};

use crate::image::{self, Archive};
use crate::workspace;
use script::Script;

/// Nodes are numbered 1 to this.
pub const NODES: usize = 3;

/// Of which family the addresses of a cluster are, all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Four bytes.
    IPv4,
    /// Sixteen bytes.
    IPv6,
}

impl Family {
    /// As the script calls it.
    const fn name(self) -> &'static str {
        match self {
            Self::IPv4 => "IPv4",
            Self::IPv6 => "IPv6",
        }
    }

    /// Where the API server is.
    const fn api_server(self) -> SocketAddr {
        let address = match self {
            Self::IPv4 => IpAddr::V4(Ipv4Addr::new(172, 30, 0, 1)),
            Self::IPv6 => IpAddr::V6(Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, 1)),
        };
        SocketAddr::new(address, 6443)
    }
}

/// From where a connection into the cluster is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The control plane's network: reaches nodes and pods.
    ControlPlane,
    /// A node's network: reaches services as well.
    Node(usize),
}

impl From {
    fn namespace(self) -> String {
        match self {
            Self::ControlPlane => "control-plane".to_owned(),
            Self::Node(node) => format!("node-{node}"),
        }
    }
}

/// A running cluster.
pub struct Cluster {
    script: Script,
    family: Family,
    api_server: Forward,
    /// Keeps the cluster: its supervisor takes it down when nobody holds this lock.
    user: Option<File>,
}

impl Cluster {
    /// The cluster of this checkout: the running one, or a new one.
    ///
    /// # Errors
    /// If a prerequisite is missing, the build fails or the cluster does not start.
    pub fn shared() -> Result<Self> {
        Self::named("cluster", Family::IPv4)
    }

    /// A cluster beside the shared one, for a test that must not disturb others.
    ///
    /// # Errors
    /// As [`Cluster::shared`].
    pub fn separate(name: &str, family: Family) -> Result<Self> {
        Self::named(&format!("cluster-{name}"), family)
    }

    fn named(name: &str, family: Family) -> Result<Self> {
        provide()?;
        let lock = workspace::target().join(format!("{name}.lock"));
        let user = File::create(&lock)?;
        // Waits while a supervisor that nobody needed any more takes its cluster down.
        user.lock_shared()?;
        let starting = File::create(workspace::target().join(format!("{name}-start.lock")))?;
        starting.lock()?;
        let script = prepare(name, family)?;
        if !script.is_running() {
            eprint!("cluster: starting {NODES} nodes ... ");
            let began = Instant::now();
            script.hold(&lock)?;
            eprintln!("{:.1} s", began.elapsed().as_secs_f64());
        }
        drop(starting);
        let api_server =
            Forward::new(&script.network_namespace(&From::ControlPlane.namespace())?, family.api_server())?;
        Ok(Self { script, family, api_server, user: Some(user) })
    }

    /// Starts the cluster of this checkout, if it is not running, to stay until [`Cluster::stop`].
    ///
    /// # Errors
    /// As [`Cluster::shared`].
    pub fn start() -> Result<Self> {
        provide()?;
        prepare("cluster", Family::IPv4)?.up()?;
        Self::shared()
    }

    /// Takes the cluster of this checkout down, whoever uses it.
    ///
    /// # Errors
    /// If its script cannot be run.
    pub fn stop() -> Result<()> {
        Script::new(state_folder("cluster"), Family::IPv4, None).down()
    }

    /// Takes this cluster down, whoever uses it.
    ///
    /// # Errors
    /// If its script cannot be run.
    pub fn take_down(&self) -> Result<()> {
        self.script.down()
    }

    /// A kubeconfig with all rights, for programs outside the cluster's network.
    ///
    /// # Errors
    /// If the cluster is gone.
    pub fn kubeconfig(&self) -> Result<String> {
        let kubeconfig = fs::read_to_string(self.script.state().join("pki/admin.kubeconfig"))?;
        Ok(kubeconfig.replace(&self.family.api_server().to_string(), &self.api_server.address().to_string()))
    }

    /// A client with all rights, for the runtime that calls this.
    ///
    /// # Errors
    /// If the cluster is gone.
    pub async fn client(&self) -> Result<Client> {
        let kubeconfig = Kubeconfig::from_yaml(&self.kubeconfig()?)?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(Client::try_from(config)?)
    }

    /// Makes images known to every node.
    ///
    /// # Errors
    /// If an image cannot be imported.
    pub fn load(&self, archives: &[Archive]) -> Result<()> {
        let known = self.script.state().join("loaded");
        fs::create_dir_all(&known)?;
        for archive in archives {
            let record = known.join(archive.path.file_stem().context("an archive has a name")?);
            if fs::read_to_string(&record).is_ok_and(|digest| digest == archive.digest) {
                continue;
            }
            self.script.load(&archive.path)?;
            fs::write(record, &archive.digest)?;
        }
        Ok(())
    }

    /// A port of this machine's loopback interface that leads to `to` in the cluster.
    ///
    /// # Errors
    /// If the cluster is gone.
    pub fn forward(&self, from: From, to: SocketAddr) -> Result<Forward> {
        Forward::new(&self.script.network_namespace(&from.namespace())?, to)
    }

    /// Runs `kubectl` with all rights.
    ///
    /// # Errors
    /// If it fails; the error holds what it printed.
    pub fn kubectl<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<Output> {
        self.script.run("kubectl", arguments)
    }

    /// Runs `helm` with all rights.
    ///
    /// # Errors
    /// If it fails; the error holds what it printed.
    pub fn helm<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<Output> {
        self.script.run("helm", arguments)
    }

    /// Switches a node off as a power cut would: kubelet, containers and pod networks are gone at once.
    ///
    /// # Errors
    /// If the cluster is gone.
    pub fn switch_off(&self, node: usize) -> Result<()> {
        self.script.node("stop", node)
    }

    /// Switches a node on again; its disk is as it was.
    ///
    /// # Errors
    /// If the cluster is gone.
    pub fn switch_on(&self, node: usize) -> Result<()> {
        self.script.node("start", node)
    }

    /// Pulls a node's network cable.
    ///
    /// # Errors
    /// If the cluster is gone.
    pub fn cut_link(&self, node: usize) -> Result<()> {
        self.script.link("down", node)
    }

    /// Puts a node's network cable back.
    ///
    /// # Errors
    /// If the cluster is gone.
    pub fn restore_link(&self, node: usize) -> Result<()> {
        self.script.link("up", node)
    }

    /// What the API server recorded of requests.
    #[must_use]
    pub fn audit_log(&self) -> AuditLog {
        AuditLog::new(self.script.state().join("audit.log"))
    }

    /// Logs of the cluster's own components.
    #[must_use]
    pub fn component_logs(&self) -> PathBuf {
        self.script.state().join("log")
    }

    /// The cluster's state folder, which ends with it.
    #[must_use]
    pub fn state(&self) -> &Path {
        self.script.state()
    }
}

/// A held cluster is gone when its last user is: waits for that, so that nothing outlives the run. While others use it,
/// that takes the whole limit.
const GOODBYE: Duration = Duration::from_secs(5);

impl Drop for Cluster {
    fn drop(&mut self) {
        let held = self.script.is_held();
        drop(self.user.take());
        let began = Instant::now();
        while held && self.script.state().exists() && began.elapsed() < GOODBYE {
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

/// Builds what the nodes need before the first pod.
fn prepare(name: &str, family: Family) -> Result<Script> {
    let binaries = script::build()?;
    image::build_test_pod(&binaries)?;
    Ok(Script::new(state_folder(name), family, Some(binaries)))
}

/// Short, since paths of Unix sockets in it must have less than 108 bytes; one for each cluster of each checkout.
fn state_folder(name: &str) -> PathBuf {
    let checkout = format!("{}/{name}", workspace::root().display());
    PathBuf::from(format!("/tmp/swiftbalancer-{}", image::short_hash(checkout.as_bytes())))
}

/// The node's number in its name.
///
/// # Errors
/// If it is no name of a node of this cluster.
pub fn node_number(name: &str) -> Result<usize> {
    let number = name.strip_prefix("node-").and_then(|number| number.parse().ok());
    match number {
        Some(number) if (1..=NODES).contains(&number) => Ok(number),
        _ => bail!("{name} is no node of this cluster"),
    }
}
