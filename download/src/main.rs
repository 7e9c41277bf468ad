#![forbid(unsafe_code)]
//! Downloads the checkpoint of a deployment, as the first container of its pods.

use std::env;
use std::process::ExitCode;

use clap::Parser as _;
use download::args::{Arguments, LogFormat};
use download::last_word::LastWordFile;
use download::progress::Progress;
use download::run::{Settings, run};
use plan::wire::process::{exit, variable};
use plan::words::with_causes;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// How a process ends that was told to: with 0 its kubelet would start what needs the checkpoint.
const STOPPED: u8 = 143;

fn main() -> ExitCode {
    let last_word = LastWordFile::new(env::var_os(variable::TERMINATION_FILE));
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(answer) => {
            // Whoever reads it may be gone.
            let _ = answer.print();
            if answer.exit_code() == 0 {
                return ExitCode::SUCCESS;
            }
            let said = answer.to_string();
            last_word.failed(said.split("\n\n").next().unwrap_or_default().trim_start_matches("error: "));
            return ExitCode::from(exit::USAGE);
        }
    };
    log(arguments.log_format);
    let listen = arguments.listen;
    let progress = Progress::default();
    let work = async {
        let mut terminate =
            signal(SignalKind::terminate()).map_err(|error| format!("cannot listen to signals: {error}"))?;
        if let Some(listen) = listen {
            tokio::spawn(progress.clone().answer(listen));
        }
        let settings = Settings::try_from(arguments).map_err(|error| with_causes(&error))?;
        tokio::select! {
            _ = terminate.recv() => Ok(false),
            ended = run(&settings, &progress) => ended.map(|_| true).map_err(|error| error.to_string()),
        }
    };
    let ended = tokio::runtime::Runtime::new().map_err(|error| format!("the system gives no threads: {error}"));
    let ended = ended.and_then(|runtime| {
        let ended = runtime.block_on(work);
        runtime.shutdown_background();
        ended
    });
    match ended {
        Ok(true) => {
            last_word.say(&progress.document().to_json());
            ExitCode::SUCCESS
        }
        Ok(false) => ExitCode::from(STOPPED),
        Err(words) => {
            tracing::error!("{words}");
            last_word.failed(&words);
            ExitCode::from(exit::FAILED)
        }
    }
}

fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}
