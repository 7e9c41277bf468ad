//! What the tests share: one cluster, started by the first that needs it, and one file of figures.

use std::sync::OnceLock;

use anyhow::{Context, Result};
use tests::cluster::Cluster;
use tests::figures::Figures;

/// Name and function of a test.
pub type Test = (&'static str, fn(&Suite) -> Result<()>);

pub struct Suite {
    cluster: OnceLock<Result<Cluster, String>>,
    figures: OnceLock<Figures>,
}

impl Suite {
    pub fn new() -> Self {
        Self { cluster: OnceLock::new(), figures: OnceLock::new() }
    }

    pub fn run(&self, name: &str, test: fn(&Self) -> Result<()>) -> Result<()> {
        test(self).with_context(|| name.to_owned())
    }

    pub fn cluster(&self) -> Result<&Cluster> {
        let cluster = self.cluster.get_or_init(|| Cluster::shared().map_err(|error| format!("{error:#}")));
        cluster.as_ref().map_err(|error| anyhow::anyhow!(error.clone()))
    }

    /// Prints and keeps a figure.
    pub fn figure(&self, what: &str, value: impl std::fmt::Display) -> Result<()> {
        if self.figures.get().is_none() {
            let _ = self.figures.set(Figures::begin("cluster")?);
        }
        self.figures.get().context("figures were begun")?.record(what, value)
    }
}

/// Runs a future to its end on a runtime of its own.
pub fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(future)
}
