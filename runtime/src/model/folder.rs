//! The files of a model's folder as people have them: read within bounds, never waited for, and where one is not what
//! its name says, told what it is instead. Knows nothing of what the files mean.

mod foreign;

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt, FileTypeExt as _, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use thiserror::Error;

pub use self::foreign::Foreign;
use crate::quoted::Quoted;

/// Bytes of the largest tokenizer, template or configuration of texts that is read; those of the largest vocabularies
/// have some 35 MB.
pub const LARGEST_TEXT: u64 = 64 << 20;
/// Names of a folder that are looked at; a model's has some hundreds.
const MOST_NAMES: usize = 100_000;

/// Why a file cannot be had.
#[derive(Debug, Error)]
pub enum FileError {
    /// There is none of this name.
    #[error("there is no {file}{}", .hint.as_ref().map(|hint| format!(": {hint}")).unwrap_or_default())]
    Missing {
        /// The file.
        file: Quoted,
        /// What the folder is instead, and what to do.
        hint: Option<String>,
    },
    /// A link of this name leads nowhere.
    #[error("{file} is a link to {target}, which is not there: copy the folder with what its links lead to (cp -rL)")]
    Dangling {
        /// The file.
        file: Quoted,
        /// Where it leads.
        target: Quoted<40>,
    },
    /// A folder, a pipe or a device.
    #[error("{file} is {found}, not a regular file: put the file itself there")]
    NotRegular {
        /// The file.
        file: Quoted,
        /// What it is.
        found: &'static str,
    },
    /// It is something else than its name says.
    #[error("{file} is {found}")]
    Foreign {
        /// The file.
        file: Quoted,
        /// What it is.
        found: Foreign,
    },
    /// It is larger than any such file.
    #[error("{file} has {bytes} bytes, more than the {most} that are read of such a file: is it another file?")]
    TooLarge {
        /// The file.
        file: Quoted,
        /// Its size.
        bytes: u64,
        /// The bound.
        most: u64,
    },
    /// The system does not give it.
    #[error("failed to read {file}")]
    Read {
        /// The file.
        file: Quoted,
        /// What the system says.
        source: std::io::Error,
    },
}

impl FileError {
    /// Whether trying again is of no use until somebody changes the folder.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            // It may still be on its way.
            Self::Missing { .. } | Self::Dangling { .. } => false,
            Self::NotRegular { .. } | Self::Foreign { .. } | Self::TooLarge { .. } => true,
            // A file that is shorter than its own header says stays so.
            Self::Read { source, .. } => source.kind() == std::io::ErrorKind::UnexpectedEof,
        }
    }
}

/// The whole of `name` in `directory`, of at most `most` bytes.
///
/// # Errors
/// If there is no such file, it is larger or no regular file, or something else that is known by how it begins.
pub fn read(directory: &Path, name: &str, most: u64) -> Result<Vec<u8>, FileError> {
    let (file, length) = open(directory, name)?;
    if length > most {
        return Err(FileError::TooLarge { file: name.into(), bytes: length, most });
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, 0).map_err(|source| FileError::Read { file: name.into(), source })?;
    match Foreign::of(&bytes) {
        Some(found) => Err(FileError::Foreign { file: name.into(), found }),
        None => Ok(bytes),
    }
}

/// As [`read`]; `None` if there is no such file.
///
/// # Errors
/// As [`read`].
pub fn read_if_there(directory: &Path, name: &str, most: u64) -> Result<Option<Vec<u8>>, FileError> {
    match read(directory, name, most) {
        Err(FileError::Missing { .. }) => Ok(None),
        read => read.map(Some),
    }
}

/// The whole of a file that somebody names, of at most `most` bytes: no pipe or device, which could block or never end.
///
/// # Errors
/// If it is no regular file or cannot be read; of the kind `FileTooLarge` if it has more bytes.
pub fn read_of_at_most(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let regular = |found: &std::fs::Metadata| {
        // Of a folder the system says the same when it is read.
        let can_be_read = found.is_file() || found.is_dir();
        can_be_read.then_some(()).ok_or_else(|| io::Error::other("it is a pipe, socket or device, not a regular file"))
    };
    regular(&std::fs::metadata(path)?)?;
    let file = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)?;
    regular(&file.metadata()?)?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    within(bytes, most)
}

/// As [`read_of_at_most`], of a file or of a pipe that has given all its bytes within `patience`: what nobody else is to read
/// comes through one from a parent, or from what a shell runs in `<(...)`.
///
/// # Errors
/// As [`read_of_at_most`]; of the kind `TimedOut` if a pipe has not ended in time.
pub fn read_once_of_at_most(path: &Path, most: u64, patience: Duration) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.file_type().is_fifo() {
        return read_of_at_most(path, most);
    }
    let deadline = Instant::now() + patience;
    let mut pipe = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)?;
    let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&left)) {
            Ok(0) => {
                let message = format!("it is a pipe that has not ended within {} s", patience.as_secs_f64());
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        match pipe.read(&mut part) {
            Ok(0) => return Ok(bytes),
            Ok(read) => {
                bytes.extend_from_slice(&part[..read]);
                bytes = within(bytes, most)?;
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
}

fn within(bytes: Vec<u8>, most: u64) -> io::Result<Vec<u8>> {
    if bytes.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {most} bytes")));
    }
    Ok(bytes)
}

/// Opens `name` in `directory`, and its length. A pipe or a device, which could block or never end, is not opened; nor
/// does opening wait if one takes the file's place meanwhile.
///
/// # Errors
/// If there is no such file, or it is no regular file.
pub fn open(directory: &Path, name: &str) -> Result<(File, u64), FileError> {
    let path = directory.join(name);
    let failed = |source| FileError::Read { file: name.into(), source };
    let found = std::fs::metadata(&path).map_err(|source| absent(&path, name, source))?;
    regular(&found, name)?;
    let mut options = File::options();
    let file = options.read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(&path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    regular(&found, name)?;
    Ok((file, found.len()))
}

fn regular(found: &std::fs::Metadata, name: &str) -> Result<(), FileError> {
    if found.is_file() {
        return Ok(());
    }
    let found = if found.is_dir() { "a folder" } else { "a pipe, socket or device" };
    Err(FileError::NotRegular { file: name.into(), found })
}

/// Why there is nothing at `path`.
fn absent(path: &Path, name: &str, source: std::io::Error) -> FileError {
    // The latter where the folder itself is a file.
    if !matches!(source.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) {
        return FileError::Read { file: name.into(), source };
    }
    match std::fs::read_link(path) {
        Ok(target) => FileError::Dangling { file: name.into(), target: Quoted::path(&target) },
        Err(_) => FileError::Missing { file: name.into(), hint: None },
    }
}

/// What a folder holds, sorted by name; hidden files are left out.
#[derive(Debug, Default)]
pub struct Listing {
    /// Names of all but folders.
    pub files: Vec<String>,
    /// Names of folders.
    pub folders: Vec<String>,
    /// Names that are no UTF-8.
    pub not_text: Vec<PathBuf>,
}

impl Listing {
    /// Lists a folder.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub fn of(directory: &Path) -> std::io::Result<Self> {
        let mut listing = Self::default();
        for entry in std::fs::read_dir(directory)?.take(MOST_NAMES) {
            let entry = entry?;
            match entry.file_name().into_string() {
                Ok(name) if name.starts_with('.') => {}
                Ok(name) if entry.path().is_dir() => listing.folders.push(name),
                Ok(name) => listing.files.push(name),
                Err(name) if name.as_encoded_bytes().starts_with(b".") => {}
                Err(name) => listing.not_text.push(name.into()),
            }
        }
        listing.files.sort();
        listing.folders.sort();
        listing.not_text.sort();
        Ok(listing)
    }

    /// Whether it holds a file of this name.
    #[must_use]
    pub fn has(&self, file: &str) -> bool {
        self.files.iter().any(|name| name == file)
    }
}

/// `error`, with what is in the folder instead if its `config.json` is missing.
#[must_use]
pub fn explained(error: FileError, directory: &Path) -> FileError {
    let FileError::Missing { file, hint: None } = error else { return error };
    FileError::Missing { file, hint: Some(instead_of_a_model(directory)) }
}

/// What a folder without a `config.json` is, and what to give instead.
fn instead_of_a_model(directory: &Path) -> String {
    let listing = match Listing::of(directory) {
        Ok(listing) => listing,
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            return "this is a file; give the folder that holds it".to_owned();
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return "there is no such folder".to_owned();
        }
        Err(error) => return format!("the folder cannot be listed: {error}"),
    };
    if listing.has("adapter_config.json") {
        return "this is a LoRA adapter, not a model; merge it into its base model and give that".to_owned();
    }
    if let Some(name) = listing.files.iter().find(|name| name.to_lowercase().ends_with(".gguf")) {
        let name = Quoted::<40>::from(name);
        return format!("{name} is of llama.cpp; give the model's safetensors form with its config.json");
    }
    if listing.has("params.json") {
        return "params.json is of the vendor's own form; give the form of transformers".to_owned();
    }
    let inside = |folder: &PathBuf| directory.join(folder).join("config.json").is_file();
    let snapshots = Listing::of(&directory.join("snapshots")).unwrap_or_default().folders;
    let snapshots = snapshots.iter().map(|name| Path::new("snapshots").join(name));
    let subfolders = snapshots.chain(listing.folders.iter().map(PathBuf::from)).collect::<Vec<_>>();
    if let Some(folder) = subfolders.iter().find(|folder| inside(folder)) {
        return format!("its folder {} has one; give that", Quoted::<64>::path(folder));
    }
    let is_empty = listing.files.is_empty() && listing.folders.is_empty() && listing.not_text.is_empty();
    let what = if is_empty { "the folder is empty" } else { "this is no model, or its download has not ended" };
    what.to_owned()
}

#[cfg(test)]
mod tests;
