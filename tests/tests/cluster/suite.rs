//! What the tests share: one cluster with the chart installed, started by the first that needs it, and one file of figures.

use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Result, anyhow};
use tests::cluster::Cluster;
use tests::figures::Figures;
use tests::namespace::collect_evidence;
use tests::workspace::Binaries;
use tests::{chart, image};

/// Folder of the nodes that deployments may mount: every node of the test cluster has that of this machine.
pub const HOST_PATHS: &str = "/tmp/swiftbalancer-models";

/// Name and function of a test.
pub type Test = (&'static str, fn(&Suite) -> Result<()>);

pub struct Suite {
    cluster: OnceLock<Result<Cluster, String>>,
    installed: OnceLock<Result<(), String>>,
    figures: OnceLock<Result<Figures, String>>,
}

impl Suite {
    pub fn new() -> Self {
        Self { cluster: OnceLock::new(), installed: OnceLock::new(), figures: OnceLock::new() }
    }

    pub fn run(&self, test: fn(&Self) -> Result<()>) -> Result<()> {
        test(self)
    }

    /// The cluster, without the product.
    pub fn cluster(&self) -> Result<&Cluster> {
        once(&self.cluster, Cluster::shared)
    }

    /// The cluster with this checkout's chart and images.
    pub fn installed(&self) -> Result<&Cluster> {
        let cluster = self.cluster()?;
        once(&self.installed, || self.install(cluster))?;
        Ok(cluster)
    }

    /// Prints and keeps a figure.
    pub fn figure(&self, what: &str, value: impl std::fmt::Display) -> Result<()> {
        once(&self.figures, || Figures::begin("cluster"))?.record(what, value)
    }

    /// Installs this checkout's chart and images.
    pub fn install(&self, cluster: &Cluster) -> Result<()> {
        let binaries = Binaries::build()?;
        let mut images = image::build_all(&binaries)?;
        // No test has more of a GPU than a driver that is emulated: one node exchanges without NCCL.
        images.push(image::build_gpu(&binaries, None)?);
        cluster.load(&images)?;
        let began = Instant::now();
        let mut arguments = chart::install_arguments(&images);
        arguments.extend(["--set".to_owned(), format!("allowedHostPaths[0]={HOST_PATHS}")]);
        cluster.helm(arguments.iter().map(String::as_str)).map_err(|error| {
            let folder = collect_evidence(cluster, chart::NAMESPACE, "install");
            error.context(format!("evidence is in {}", folder.display()))
        })?;
        self.figure("helm install until the operator is ready", seconds(began))
    }
}

fn once<T>(cell: &OnceLock<Result<T, String>>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    let outcome = cell.get_or_init(|| make().map_err(|error| format!("{error:#}")));
    outcome.as_ref().map_err(|error| anyhow!(error.clone()))
}

/// Runs a future to its end on a runtime of its own.
pub fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(future)
}

/// The time since then, as figures print it.
pub fn seconds(since: Instant) -> String {
    format!("{:.1} s", since.elapsed().as_secs_f64())
}
