#![forbid(unsafe_code)]
//! The SwiftBalancer runtime: a coordinator, a rank, or both on one machine.

mod last_word;
mod log;

use std::env;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use clap::Parser as _;
use last_word::LastWordFile;
use plan::wire::process::{exit, variable};
use runtime::args::{Arguments, Command, shortened};
use runtime::coordinator::start::Coordinator;
use runtime::inspect::{Inspected, Spread};
use runtime::threads::survive;
use runtime::{local, worker};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let (last_word, problem) = LastWordFile::open(env::var_os(variable::TERMINATION_FILE));
    let Arguments { log_format, command } = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(answer) => return not_run(&shortened(answer), last_word),
    };
    log::start(log_format);
    if let Some(problem) = problem {
        tracing::warn!(error = &problem as &dyn std::error::Error, "no last word");
    }
    // What a panic may have left half done is not looked at again: the process ends.
    match survive(|| run(command)).unwrap_or_else(|words| Err(anyhow!("the main thread cannot go on: {words}"))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let words = format!("{error:#}");
            tracing::error!(target: log::ALWAYS, "{words}");
            last_word.say(&words);
            ExitCode::from(exit::FAILED)
        }
    }
}

/// Nothing was run: help or the version was asked for, or the command line is wrong.
fn not_run(answer: &clap::Error, last_word: LastWordFile) -> ExitCode {
    // Whoever reads it may be gone.
    let _ = answer.print();
    if answer.exit_code() == 0 {
        return ExitCode::SUCCESS;
    }
    last_word.say(&last_word::of_usage(answer));
    ExitCode::from(exit::USAGE)
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Coordinator(arguments) => run_to_its_end(async {
            let stop = stop_signal()?;
            Ok(Coordinator::start(&(*arguments).try_into()?)?.serve(stop).await?)
        }),
        Command::Worker(arguments) => {
            let is_child = arguments.parent.is_some();
            let ended = (*arguments).try_into().map_err(anyhow::Error::from);
            let ended = ended.and_then(|settings| Ok(worker::run_until_signal(settings)?));
            // Whoever started it reads there why it ends.
            ended.or_else(|error| if is_child { print(&format!("{error:#}")).and(Err(error)) } else { Err(error) })
        }
        Command::Local(arguments) => run_to_its_end(async {
            let stop = stop_signal()?;
            Ok(local::run((*arguments).try_into()?, stop).await?)
        }),
        Command::Inspect { model, weights, spread } => inspect(&model, weights, spread.map(Spread::from).as_ref()),
    }
}

/// Prints what a checkpoint holds.
fn inspect(model: &Path, weights: Option<Inspected>, spread: Option<&Spread>) -> anyhow::Result<()> {
    print(&serde_json::to_string_pretty(&runtime::inspect::inspect(model, weights, spread)?)?)
}

/// Prints a line to standard output. Whoever reads it may have read enough, as `head` has.
fn print(line: &str) -> anyhow::Result<()> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("standard output cannot be written to")
        }
        _ => Ok(()),
    }
}

/// Runs until this is done, and does not wait for what it has begun on other threads: a file that is read from a volume that
/// hangs keeps no process from ending.
fn run_to_its_end(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("the system gives no threads")?;
    let ended = runtime.block_on(work);
    runtime.shutdown_background();
    ended
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
