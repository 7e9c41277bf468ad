//! Figures that tests measure: printed as they are found, and kept in `target/figures/NAME.txt` until the next run.

use std::fs::{self, File};
use std::io::Write;
use std::sync::Mutex;

use anyhow::Result;

use crate::workspace;

/// Where one program's figures go.
pub struct Figures {
    file: Mutex<File>,
}

impl Figures {
    /// Begins a new file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn begin(name: &str) -> Result<Self> {
        let folder = workspace::target().join("figures");
        fs::create_dir_all(&folder)?;
        Ok(Self { file: Mutex::new(File::create(folder.join(format!("{name}.txt")))?) })
    }

    /// Prints and keeps a figure.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn record(&self, what: &str, value: impl std::fmt::Display) -> Result<()> {
        println!("figure: {what}: {value}");
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(writeln!(file, "{what}: {value}")?)
    }
}
