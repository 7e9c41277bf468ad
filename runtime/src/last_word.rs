//! The last word of this process: where whoever supervises it reads why it ended.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use plan::wire::process::{LastWord, variable};
use runtime::quoted::{Quoted, one_line};
use rustix::fs::OFlags;
use thiserror::Error;

/// The file of the last word, if there is to be one.
#[derive(Debug, Default)]
pub struct LastWordFile(Option<File>);

/// The file cannot be used. The process goes on without it: that it serves is worth more than what it says at its end.
#[derive(Debug, Error)]
#[error("{variable} is '{path}', which cannot be written to: a last word will be in the log alone", variable = variable::TERMINATION_FILE)]
pub struct NotWritable {
    path: Quoted,
    source: io::Error,
}

impl LastWordFile {
    /// Opens the file that the variable names, and empties it: what an earlier process has left there is not this one's. It is
    /// open from the start, since a process may end for want of descriptors.
    pub fn open(variable: Option<OsString>) -> (Self, Option<NotWritable>) {
        let Some(path) = variable.filter(|path| !path.is_empty()).map(PathBuf::from) else { return Default::default() };
        // A pipe that nobody reads is not waited for.
        let not_waiting = OFlags::NONBLOCK.bits() as i32;
        match File::options().write(true).create(true).truncate(true).custom_flags(not_waiting).open(&path) {
            Ok(file) => (Self(Some(file)), None),
            Err(source) => (Self(None), Some(NotWritable { path: Quoted::path(&path), source })),
        }
    }

    /// Says it.
    pub fn say(self, words: &str) {
        let Some(mut file) = self.0 else { return };
        if let Err(error) = file.write_all(LastWord::new(&one_line(words)).to_json().as_bytes()) {
            tracing::warn!(%error, "the last word cannot be written");
        }
    }
}

/// What is wrong with a command line, without the tips and the usage below it.
pub fn of_usage(error: &clap::Error) -> String {
    let said = error.to_string();
    let first = said.split("\n\n").next().unwrap_or_default();
    let words = first.split_whitespace().collect::<Vec<_>>().join(" ");
    words.strip_prefix("error: ").map_or(words.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser as _;
    use runtime::args::Arguments;

    use super::*;

    #[test]
    fn without_a_file_nothing_is_written_and_nothing_is_wrong() {
        for variable in [None, Some(OsString::new())] {
            let (file, problem) = LastWordFile::open(variable);
            assert!(file.0.is_none() && problem.is_none());
            file.say("nobody hears it");
        }
    }

    #[test]
    fn the_file_has_the_last_word_of_this_process_alone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "an earlier one's, which was much longer than the one that comes now".repeat(10))
            .unwrap();
        let (last, problem) = LastWordFile::open(Some(file.path().into()));
        assert!(problem.is_none());
        assert_eq!(fs::read(file.path()).unwrap(), b"", "a process that is told to end leaves none");
        last.say("no port\u{1b}[2J\nat all");
        let word = LastWord::from_json(&fs::read(file.path()).unwrap()).unwrap();
        assert_eq!(word, LastWord::new("no port\\u{1b}[2J\\nat all"));
    }

    #[test]
    fn a_file_that_cannot_be_written_to_is_told_and_no_reason_to_end() {
        let (last, problem) = LastWordFile::open(Some("/nowhere/termination-log".into()));
        let words = "SWIFTBALANCER_TERMINATION_FILE is '/nowhere/termination-log', which cannot be written to: a last word will \
                     be in the log alone";
        assert_eq!(problem.unwrap().to_string(), words);
        last.say("nobody hears it");
    }

    #[test]
    fn a_pipe_that_nobody_reads_keeps_nobody_waiting_and_one_that_is_read_has_the_last_word() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        let (last, problem) = LastWordFile::open(Some(pipe.clone().into()));
        assert!(problem.unwrap().to_string().contains("which cannot be written to"));
        last.say("nobody hears it");
        let reader = rustix::fs::open(&pipe, OFlags::RDONLY | OFlags::NONBLOCK, rustix::fs::Mode::empty()).unwrap();
        let (last, problem) = LastWordFile::open(Some(pipe.into()));
        assert!(problem.is_none());
        last.say("no port at all");
        let mut said = Vec::new();
        io::Read::read_to_end(&mut File::from(reader), &mut said).unwrap();
        assert_eq!(LastWord::from_json(&said).unwrap(), LastWord::new("no port at all"));
    }

    #[test]
    fn of_a_wrong_command_line_what_is_wrong_is_said_and_nothing_around_it() {
        for (line, words) in [
            (&["x", "coordinator", "--more"][..], "unexpected argument '--more' found"),
            (&["x", "serve"], "unrecognized subcommand 'serve'"),
            (
                &["x", "coordinator", "--model", "m", "--ranks", "2"],
                "the following required arguments were not provided: --secret-file <FILE>",
            ),
            (&["x", "inspect", "--model"], "a value is required for '--model <DIR>' but none was supplied"),
        ] {
            assert_eq!(of_usage(&Arguments::try_parse_from(line).unwrap_err()), words);
        }
    }
}
