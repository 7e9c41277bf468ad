//! The demo: a deployment from source to balanced, traffic that shifts, and a second deployment that starts from what the
//! first has learned. On Kubernetes, or the runtime alone where that cannot be had.

mod kubernetes;
mod local;
mod shift;
mod site;
mod stages;

use anyhow::Result;

use crate::cluster::{self, Missing};
use crate::image;
use crate::workspace::Binaries;
use site::Site;
use stages::Stages;

pub use site::Stop;

/// Runs the demo on the cluster of a kubectl context, or on one of its own. `started` is called as soon as there is
/// something that must be stopped when the demo is interrupted.
///
/// # Errors
/// If a stage fails. What it started is stopped all the same.
pub async fn run(context: Option<String>, started: impl FnOnce(Stop)) -> Result<()> {
    let mut stages = Stages::new();
    stages.begin("Programs and images");
    let binaries = Binaries::build()?;
    let missing = if context.is_some() { Vec::new() } else { missing_here() };
    if !missing.is_empty() {
        explain(&missing);
        local::run(&binaries, &mut stages).await?;
        stages.report();
        return Ok(());
    }
    let images = image::build_all(&binaries)?;
    for archive in &images {
        println!("   {:<44} {:5.1} MB", archive.name, archive.layer_bytes as f64 / 1e6);
    }
    stages.begin("The cluster");
    let site = Site::open(context, &images)?;
    started(site.stop());
    let outcome = kubernetes::run(&site, &images, &mut stages).await;
    stages.begin("Leaving nothing");
    let closed = site.close();
    outcome.and(closed)?;
    stages.report();
    Ok(())
}

/// Runs the half of the demo that needs no Kubernetes.
///
/// # Errors
/// If a stage fails. What it started is stopped all the same.
pub async fn run_without_kubernetes() -> Result<()> {
    let mut stages = Stages::new();
    stages.begin("Programs");
    local::run(&Binaries::build()?, &mut stages).await?;
    stages.report();
    Ok(())
}

/// What is missing after installing what can be installed.
fn missing_here() -> Vec<Missing> {
    if cluster::provide().is_ok() { Vec::new() } else { cluster::missing() }
}

fn explain(missing: &[Missing]) {
    println!("\nKubernetes cannot run here. Missing:");
    for missing in missing {
        println!("   {missing}");
    }
    println!(
        "Half of the demo follows: the runtime alone, 4 ranks on this machine, traffic that shifts, experts that move,"
    );
    println!(
        "and a second start from the recorded map. The other half is the operator: the chart, the custom resource,"
    );
    println!("pods, the recorded ConfigMap. `make demo CONTEXT=name` shows it on a cluster of yours.");
}
