//! Why a download fails, and whether trying again may help.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use plan::words::{counted, with_causes};
use thiserror::Error;

/// Why a download fails.
#[derive(Debug, Error)]
pub enum DownloadError {
    /// The source knows nothing of that name, or says so to whoever may not see it.
    #[error("{what} was answered with {status}{said}: {advice}")]
    Refused {
        /// What was asked for.
        what: String,
        /// Status of the answer.
        status: u16,
        /// The source's own words, after a space, if there are some.
        said: String,
        /// What to do.
        advice: &'static str,
    },
    /// The source cannot answer now.
    #[error("{what} was answered with {status}{said}")]
    Busy {
        /// What was asked for.
        what: String,
        /// Status of the answer.
        status: u16,
        /// The source's own words, after a space, if there are some.
        said: String,
        /// How long it asks to be left alone.
        wait: Option<Duration>,
    },
    /// The source cannot be reached, or the connection ended early.
    #[error("{what} failed: {}", with_causes(source))]
    Connection {
        /// What was asked for.
        what: String,
        /// What the client of HTTP says of it.
        source: reqwest::Error,
    },
    /// The body of an answer ended before it was whole.
    #[error("{what} ended before it was whole")]
    Short {
        /// What was asked for.
        what: String,
    },
    /// What was read is not what the source says that it is.
    #[error("{file} is not what the source says that it is: its {kind} is {found}, not {expected}")]
    Content {
        /// The file.
        file: String,
        /// Which checksum.
        kind: &'static str,
        /// That of the bytes.
        found: String,
        /// That of the source.
        expected: String,
    },
    /// A file was replaced while others were read.
    #[error("{file} was replaced while it was downloaded with others: they are read again")]
    Changed {
        /// The file.
        file: String,
    },
    /// An answer is not of the form that it should have.
    #[error("{what} was answered with what is not {expected}: {problem}")]
    Answer {
        /// What was asked for.
        what: String,
        /// What it should be.
        expected: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// Too many redirects, or one to where nothing is read from.
    #[error("{what} leads to {to:?}, which is not followed: {why}")]
    Redirect {
        /// What was asked for.
        what: String,
        /// Where it leads.
        to: String,
        /// Why not.
        why: &'static str,
    },
    /// A file's name leads out of the folder.
    #[error(
        "the source lists a file named {name:?}, which could be written outside of the folder: nothing is downloaded from it"
    )]
    UnsafeName {
        /// The name.
        name: String,
    },
    /// There is no checkpoint that the runtime reads.
    #[error("{source_name} has no {missing}: a checkpoint has config.json, tokenizer.json and weights as .safetensors")]
    NoCheckpoint {
        /// The source.
        source_name: String,
        /// What is missing.
        missing: String,
    },
    /// The volume has too little room.
    #[error(
        "{} has room for {free} bytes and {needed} more are to be downloaded: give model.source a larger volume",
        folder.display()
    )]
    Space {
        /// The folder.
        folder: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that are to come.
        needed: u64,
    },
    /// The folder holds something else.
    #[error(
        "{} holds {found}, not {asked}: name another folder in model.source, or delete this one",
        folder.display()
    )]
    OtherSource {
        /// The folder.
        folder: PathBuf,
        /// What is in it.
        found: String,
        /// What was asked for.
        asked: String,
    },
    /// The volume knows no locks.
    #[error(
        "{} cannot be locked ({source}), so pods that share the volume would write over each other: take a volume whose file system has locks (flock)",
        file.display()
    )]
    Lock {
        /// The file of the lock.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The folder cannot be written to.
    #[error("{} cannot be {done}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was to be done.
        done: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// It failed as often as is tried.
    #[error("{last}; {} in a row brought nothing", counted(*attempts, "attempt"))]
    GivenUp {
        /// How often.
        attempts: usize,
        /// Why the last time.
        last: Box<DownloadError>,
    },
    /// A setting makes no sense.
    #[error("{setting} is {value:?}: {problem}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl DownloadError {
    /// Whether nothing changes when the same is tried again soon.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        !matches!(self, Self::Busy { .. } | Self::Connection { .. } | Self::Short { .. } | Self::Content { .. })
    }

    /// How long the source asks to be left alone.
    #[must_use]
    pub const fn asked_wait(&self) -> Option<Duration> {
        match self {
            Self::Busy { wait, .. } => *wait,
            _ => None,
        }
    }
}

/// An error of the file system, as an error of a download.
pub(crate) fn io(path: impl Into<PathBuf>, done: &'static str) -> impl FnOnce(io::Error) -> DownloadError {
    let path = path.into();
    move |source| DownloadError::Io { path, done, source }
}
