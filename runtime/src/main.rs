#![forbid(unsafe_code)]
//! The SwiftBalancer runtime: a coordinator, a rank, or both on one machine.

mod args;

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use args::{Arguments, Command, LogFormat};
use clap::Parser as _;
use runtime::coordinator::start::Coordinator;
use runtime::local;
use runtime::model::checkpoint::Checkpoint;
use runtime::worker;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let Arguments { log_format, command } = Arguments::parse();
    start_log(log_format);
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Coordinator(arguments) => runtime()?.block_on(async {
            let stop = stop_signal()?;
            Ok(Coordinator::start((*arguments).try_into()?)?.serve(stop).await?)
        }),
        Command::Worker(arguments) => Ok(worker::run_until_signal((*arguments).try_into()?)?),
        Command::Local(arguments) => runtime()?.block_on(async {
            let stop = stop_signal()?;
            Ok(local::run((*arguments).try_into()?, stop).await?)
        }),
        Command::Inspect { model } => inspect(&model),
    }
}

/// Prints a checkpoint's identity and sizes.
fn inspect(model: &Path) -> anyhow::Result<()> {
    let checkpoint = Checkpoint::open(model).with_context(|| format!("{} cannot be served", model.display()))?;
    let name = model.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let report = serde_json::json!({
        "model": checkpoint.identity(&name),
        "maxModelLen": checkpoint.config().max_positions,
        "parameters": checkpoint.parameters(),
        "bytes": checkpoint.bytes(),
    });
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the system gives no threads")
}

/// Done when the process is told to stop.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen to signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen to signals")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
