//! The kubectl plugin.

mod progress;

use std::io::{IsTerminal as _, stderr, stdin, stdout};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser as _;
use kubectl_moe::{Arguments, PluginError, Progress, Terminal, run};
use plan::words::with_causes;
use progress::Watcher;

/// A wrong command line ends in `parse`, with status 2.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let began = Instant::now();
    let arguments = Arguments::parse();
    let watcher = stderr().is_terminal().then(Watcher::on_standard_error);
    let mut terminal = Terminal {
        input: &mut stdin(),
        output: &mut stdout(),
        errors: &mut stderr(),
        now: &|| began.elapsed(),
        progress: watcher.as_ref().map_or(&() as &dyn Progress, |watcher| watcher),
        is_a_screen: stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|kind| kind != "dumb"),
        input_is_read: false,
    };
    let result = run(arguments, &mut terminal).await;
    drop(watcher);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads may stop before the end: that is no failure.
        Err(PluginError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kubectl-moe: {}", with_causes(&error));
            ExitCode::FAILURE
        }
    }
}
