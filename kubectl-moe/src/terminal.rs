//! What a command reads from, writes to and tells the time by. The program gives it its own; tests give what they look at.

use std::io::{self, Read, Write};
use std::time::Duration;

use crate::PluginError;

/// Told what takes its time.
pub trait Progress: Send + Sync {
    /// Something begins.
    fn doing(&self, what: &str);
    /// It is done, and the line that told of it gone.
    fn done(&self);
}

/// Nobody looks.
impl Progress for () {
    fn doing(&self, _: &str) {}
    fn done(&self) {}
}

/// Standard input, output and error, a clock, and whom progress is told.
pub struct Terminal<'a> {
    /// Where `-` is read from.
    pub input: &'a mut (dyn Read + Send),
    /// Where results go.
    pub output: &'a mut (dyn Write + Send),
    /// Where warnings go.
    pub errors: &'a mut (dyn Write + Send),
    /// Time since some moment.
    pub now: &'a (dyn Fn() -> Duration + Send + Sync),
    /// Told what takes its time.
    pub progress: &'a dyn Progress,
    /// Whether results go to a terminal that can show a picture.
    pub is_a_screen: bool,
    /// Whether standard input was read: it can be once.
    pub input_is_read: bool,
}

impl Terminal<'_> {
    /// Prints a result, or a part of one that is to be seen at once.
    pub(crate) fn print(&mut self, text: &str) -> Result<(), PluginError> {
        self.progress.done();
        self.output.write_all(text.as_bytes()).and_then(|()| self.output.flush()).map_err(PluginError::Output)
    }

    /// Says what the result does not. That it cannot be said is no reason to keep the result back.
    pub(crate) fn warn(&mut self, warning: &str) {
        self.progress.done();
        let _ = writeln!(self.errors, "kubectl-moe: {warning}");
    }

    /// All of standard input; `None` if it was read before.
    pub(crate) fn read_input(&mut self) -> Option<io::Result<Vec<u8>>> {
        if std::mem::replace(&mut self.input_is_read, true) {
            return None;
        }
        let mut bytes = Vec::new();
        Some(self.input.read_to_end(&mut bytes).map(|_| bytes))
    }
}
