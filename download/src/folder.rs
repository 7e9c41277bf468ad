//! Where a checkpoint is put: a folder that is renamed to its name when everything in it is whole, and the lock that keeps two pods
//! from writing to it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use plan::wire::VERSION;
use rustix::fs::{FlockOperation, flock, statvfs};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{DownloadError, io as io_error};
use crate::source::Remote;

/// File with what a folder holds.
const RECORD: &str = ".swiftbalancer-download.json";
/// Ends the name of what is not whole yet.
const PART: &str = ".part";

/// What a folder holds, or is to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: String,
    /// What it is downloaded from.
    pub source: String,
    /// The commit that the revision stood for when the download began.
    pub commit: Option<String>,
    /// Its files: how many bytes they have, and what tells one version of them from another.
    pub files: BTreeMap<String, FileRecord>,
}

/// A file of a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Bytes.
    pub size: u64,
    /// Checksum, or the tag of the store.
    pub version: Option<String>,
}

impl Record {
    /// A download that begins.
    #[must_use]
    pub fn new(source: String, commit: Option<String>, files: &[Remote]) -> Self {
        let file = |file: &Remote| {
            let version = file.checksum.as_ref().map(|checksum| checksum.value.clone()).or_else(|| file.tag.clone());
            (file.name.clone(), FileRecord { size: file.size.unwrap_or_default(), version })
        };
        Self { version: VERSION.to_owned(), source, commit, files: files.iter().map(file).collect() }
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.size).sum()
    }
}

/// The folder of a checkpoint, and what lies beside it until it is whole.
#[derive(Clone, Debug)]
pub struct Folder {
    whole: PathBuf,
    partial: PathBuf,
    lock: PathBuf,
}

/// Keeps others from writing until it is dropped, or its process ends in whatever way.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Folder {
    /// The folder of this path.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        let beside = |ending: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(ending);
            PathBuf::from(name)
        };
        Self { whole: path.to_owned(), partial: beside(".partial"), lock: beside(".lock") }
    }

    /// What it holds, if it is whole.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn whole(&self) -> Result<Option<Record>, DownloadError> {
        let Some(record) = read(&self.whole)? else { return Ok(None) };
        let has = |(name, file): (&String, &FileRecord)| is_of_size(&self.whole.join(name), file.size);
        Ok(record.files.iter().all(has).then_some(record))
    }

    /// Whether what is there under its name was downloaded, whole or not.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn is_ours(&self) -> Result<bool, DownloadError> {
        Ok(read(&self.whole)?.is_some())
    }

    /// What a download that was interrupted has left.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn begun(&self) -> Result<Option<Record>, DownloadError> {
        read(&self.whole)?.map_or_else(|| read(&self.partial), |record| Ok(Some(record)))
    }

    /// Takes the lock, if nobody has it.
    ///
    /// # Errors
    /// If the volume cannot be written to, or has no locks.
    pub fn try_lock(&self) -> Result<Option<Lock>, DownloadError> {
        if let Some(parent) = self.lock.parent() {
            fs::create_dir_all(parent).map_err(io_error(parent, "made"))?;
        }
        let opened = File::options().create(true).truncate(false).write(true).open(&self.lock);
        let file = opened.map_err(io_error(&self.lock, "opened to be written"))?;
        match flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(None),
            Err(error) => Err(DownloadError::Lock { file: self.lock.clone(), source: error.into() }),
        }
    }

    /// Makes ready for a download of files that are known by now: what was whole and no longer is goes on from what it has, and what is of
    /// another version is thrown away.
    ///
    /// # Errors
    /// If the volume cannot be written to.
    pub fn begin(&self, record: &Record) -> Result<(), DownloadError> {
        if self.whole.exists() {
            // A file of it was deleted or cut off: what is left is worth keeping.
            if self.partial.exists() {
                fs::remove_dir_all(&self.partial).map_err(io_error(&self.partial, "deleted"))?;
            }
            fs::rename(&self.whole, &self.partial).map_err(io_error(&self.whole, "renamed"))?;
        }
        fs::create_dir_all(&self.partial).map_err(io_error(&self.partial, "made"))?;
        let before = self.begun()?;
        if let Some(before) = before.filter(|before| before != record) {
            for (name, file) in &before.files {
                if before.source != record.source || record.files.get(name) != Some(file) {
                    remove(&self.file(name))?;
                    remove(&self.part(name))?;
                }
            }
        }
        for name in record.files.keys() {
            if let Some(parent) = self.file(name).parent() {
                fs::create_dir_all(parent).map_err(io_error(parent, "made"))?;
            }
        }
        let path = self.partial.join(RECORD);
        let json = serde_json::to_vec(record).map_err(|error| io_error(&path, "written")(error.into()))?;
        let new = self.partial.join(format!("{RECORD}{PART}"));
        fs::write(&new, json).map_err(io_error(&new, "written"))?;
        sync(&new)?;
        fs::rename(&new, &path).map_err(io_error(&path, "written"))
    }

    /// Makes ready for a file that says which others there are: what is there of those stays.
    ///
    /// # Errors
    /// If the volume cannot be written to.
    pub fn begin_first(&self, first: &Record) -> Result<(), DownloadError> {
        let mut record = first.clone();
        if let Some(before) = self.begun()?.filter(|before| before.source == record.source) {
            for (name, file) in before.files {
                record.files.entry(name).or_insert(file);
            }
        }
        self.begin(&record)
    }

    /// A file that is whole and was checked.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.partial.join(name)
    }

    /// A file of which a part is there.
    #[must_use]
    pub fn part(&self, name: &str) -> PathBuf {
        self.partial.join(format!("{name}{PART}"))
    }

    /// Bytes of a file that are there.
    #[must_use]
    pub fn bytes(&self, name: &str, size: u64) -> u64 {
        if is_of_size(&self.file(name), size) {
            return size;
        }
        fs::metadata(self.part(name)).map_or(0, |part| part.len().min(size))
    }

    /// Gives a file its name: it was checked.
    pub(crate) fn keep(&self, name: &str) -> Result<(), DownloadError> {
        let (part, file) = (self.part(name), self.file(name));
        fs::rename(&part, &file).map_err(io_error(part, "renamed"))
    }

    /// Refuses to begin what the volume has no room for.
    ///
    /// # Errors
    /// If it has too little.
    pub fn check_space(&self, needed: u64) -> Result<(), DownloadError> {
        let failed = io_error(&self.partial, "asked for its room");
        let room = statvfs(&self.partial).map_err(|error| failed(error.into()))?;
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        if free < needed {
            return Err(DownloadError::Space { folder: self.whole.clone(), free, needed });
        }
        Ok(())
    }

    /// Gives the folder its name, which says that it is whole.
    ///
    /// # Errors
    /// If it cannot be renamed.
    pub fn finish(&self) -> Result<(), DownloadError> {
        sync(&self.partial)?;
        fs::rename(&self.partial, &self.whole).map_err(io_error(&self.whole, "given its name"))?;
        self.whole.parent().map_or(Ok(()), sync)
    }
}

/// What is written stays, whatever happens to the node.
pub(crate) fn sync(path: &Path) -> Result<(), DownloadError> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    // Some file systems of networks know nothing of it, of a folder.
    let synced = synced.or_else(|error| if error.kind() == io::ErrorKind::InvalidInput { Ok(()) } else { Err(error) });
    synced.map_err(io_error(path, "written to its end"))
}

fn is_of_size(path: &Path, size: u64) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() == size)
}

fn read(folder: &Path) -> Result<Option<Record>, DownloadError> {
    let path = folder.join(RECORD);
    match fs::read(&path) {
        // One that another release wrote, or that was not written to its end, is as good as none.
        Ok(json) => Ok(serde_json::from_slice::<Record>(&json).ok().filter(|record| record.version == VERSION)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(path, "read")(error)),
    }
}

fn remove(path: &Path) -> Result<(), DownloadError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(path, "deleted")(error)),
        _ => Ok(()),
    }
}
