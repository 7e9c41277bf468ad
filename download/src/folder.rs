//! Where a checkpoint is put: a folder that is renamed to its name when everything in it is whole, and the lock that keeps two pods
//! from writing to it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock, statvfs};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{DownloadError, io as io_error};
use crate::files;
use crate::source::Remote;

/// File with what a folder holds.
const RECORD: &str = ".swiftbalancer-download.json";
/// Form of that file. A record of another form is none, and what lies beside it is deleted.
const FORM: u32 = 1;
/// Ends the name of what is not whole yet.
const PART: &str = ".part";

/// What a folder holds, or is to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    form: u32,
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
    /// How many bytes it has.
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
        Self { form: FORM, source, commit, files: files.iter().map(file).collect() }
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
        for (name, file) in &record.files {
            if !is_of_size(&self.whole.join(name), file.size)? {
                return Ok(None);
            }
        }
        Ok(Some(record))
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
        match self.begun()? {
            Some(before) => {
                for (name, file) in &before.files {
                    let is_same = before.source == record.source
                        && record.files.get(name) == Some(file)
                        && is_known(file, &before, record);
                    if !is_same {
                        remove(&self.file(name))?;
                        remove(&self.part(name))?;
                    }
                }
            }
            // Nobody knows what it is.
            None => {
                fs::remove_dir_all(&self.partial).map_err(io_error(&self.partial, "deleted"))?;
            }
        }
        for (name, file) in &record.files {
            let path = self.file(name);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(io_error(parent, "made"))?;
            }
            // One that was cut off goes on as the part that it is; its checksum says whether the rest of it is right.
            if path.exists() && !is_of_size(&path, file.size)? {
                fs::rename(&path, self.part(name)).map_err(io_error(&path, "renamed"))?;
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
            for (name, file) in before.files.clone() {
                if is_known(&file, &before, &record) {
                    record.files.entry(name).or_insert(file);
                }
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

    /// Whether a file is there that was whole and was checked.
    ///
    /// # Errors
    /// If the volume does not say.
    pub fn has(&self, name: &str, size: u64) -> Result<bool, DownloadError> {
        is_of_size(&self.file(name), size)
    }

    /// Bytes of a file that are there.
    ///
    /// # Errors
    /// If the volume does not say.
    pub fn bytes(&self, name: &str, size: u64) -> Result<u64, DownloadError> {
        if self.has(name, size)? {
            return Ok(size);
        }
        Ok(fs::metadata(self.part(name)).map_or(0, |part| part.len().min(size)))
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

/// Whether a file of one record is that of another, where neither tells one version from another: of one commit it is.
fn is_known(file: &FileRecord, before: &Record, record: &Record) -> bool {
    file.version.is_some() || before.commit == record.commit
}

/// A volume that does not say is not one without the file: what is whole would be taken for what is not.
fn is_of_size(path: &Path, size: u64) -> Result<bool, DownloadError> {
    match fs::metadata(path) {
        Ok(file) => Ok(file.is_file() && file.len() == size),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error(path, "looked at")(error)),
    }
}

fn read(folder: &Path) -> Result<Option<Record>, DownloadError> {
    let path = folder.join(RECORD);
    match fs::read(&path) {
        // One of another form, or that was not written to its end, is as good as none, and so is one that names what this program
        // would never write: files of its folder alone are deleted and renamed.
        Ok(json) => {
            let is_own = |record: &Record| {
                record.form == FORM && files::check_names(record.files.keys().map(String::as_str)).is_ok()
            };
            Ok(serde_json::from_slice::<Record>(&json).ok().filter(is_own))
        }
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
