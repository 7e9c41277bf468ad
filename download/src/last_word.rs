//! The last word of this process: where its kubelet, and with it the operator, reads how it ended.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use plan::wire::process::LastWord;

/// The file of the last word, if there is to be one.
#[derive(Debug)]
pub struct LastWordFile(Option<PathBuf>);

impl LastWordFile {
    /// The file that the variable names.
    #[must_use]
    pub fn new(variable: Option<OsString>) -> Self {
        Self(variable.filter(|path| !path.is_empty()).map(PathBuf::from))
    }

    /// Says why it failed.
    pub fn failed(self, words: &str) {
        let plain: String = words.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
        self.say(&LastWord::new(&plain).to_json());
    }

    /// Says it.
    pub fn say(self, document: &str) {
        let Some(path) = self.0 else { return };
        if let Err(error) = fs::write(&path, document) {
            tracing::warn!(path = %path.display(), %error, "the last word cannot be written");
        }
    }
}
