//! The kubectl plugin.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser as _;
use kubectl_moe::{Arguments, run};
use plan::words::with_causes;

/// A wrong command line ends in `parse`, with status 2.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let began = Instant::now();
    let arguments = Arguments::parse();
    let printed = match run(arguments, || began.elapsed()).await {
        Ok(text) => print(&text).map_err(|error| with_causes(&error)),
        Err(error) => Err(with_causes(&error)),
    };
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("kubectl-moe: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Whoever reads may stop before the end: that is no failure.
fn print(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
