#![forbid(unsafe_code)]
//! The demo; see [`tests::demo`].

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use clap::Parser;
use tests::demo::{self, Stop};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

#[derive(Parser)]
#[command(about = "From source to a balanced second deployment, on a Kubernetes of its own", version)]
struct Arguments {
    /// kubectl context of a cluster to use instead. Its nodes must know the images: kind, k3d and minikube get them
    /// loaded, for others they are in target/images/archives.
    #[arg(long)]
    context: Option<String>,
}

/// What must be stopped when the demo is interrupted.
type Started = Arc<Mutex<Option<Stop>>>;

fn main() -> Result<()> {
    let Arguments { context } = Arguments::parse();
    let started = Started::default();
    let (interrupt, interrupted) = oneshot::channel();
    let (done, mut is_done) = oneshot::channel();
    // A thread of its own: most of what the demo does blocks, and an interrupt must not wait for that.
    let for_demo = Arc::clone(&started);
    let demo = std::thread::spawn(move || {
        let outcome = run(context, &for_demo, interrupted);
        let _ = done.send(());
        outcome
    });
    Runtime::new()?.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        tokio::select! {
            _ = &mut is_done => {}
            _ = tokio::signal::ctrl_c() => drop(interrupt),
            _ = terminated.recv() => drop(interrupt),
        }
        anyhow::Ok(())
    })?;
    if !demo.is_finished()
        && let Some(stop) = started.lock().unwrap_or_else(PoisonError::into_inner).take()
    {
        stop.stop()?;
    }
    demo.join().ok().context("the demo panicked")?
}

/// The demo until it ends or `interrupted` is closed.
fn run(context: Option<String>, started: &Started, interrupted: oneshot::Receiver<()>) -> Result<()> {
    Runtime::new()?.block_on(async {
        let demo = demo::run(context, |stop| *started.lock().unwrap_or_else(PoisonError::into_inner) = Some(stop));
        tokio::select! {
            outcome = demo => outcome,
            _ = interrupted => bail!("interrupted; what was started is stopped"),
        }
    })
}
