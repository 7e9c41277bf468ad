//! Keys that callers show: read from a file, one a line, and again when the file has changed, so that a mounted Secret can
//! be rotated. While two are there both are taken.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};
use thiserror::Error;

/// How often the file is looked at, at most.
const LOOK: Duration = Duration::from_secs(1);

/// Bytes of the file at most.
const FILE_BYTES: u64 = 1 << 20;

/// Why a file holds no keys.
#[derive(Debug, Error)]
pub enum KeysError {
    /// It cannot be read.
    #[error("cannot read the keys in {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing is in it.
    #[error("{path} has no key; write one on each line")]
    None {
        /// The file.
        path: PathBuf,
    },
    /// One can be guessed.
    #[error("{path} has a key of {found} bytes, at least {least} are needed; make one with `openssl rand -hex 32`")]
    Short {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        found: usize,
        /// The bound.
        least: usize,
    },
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Keys {
    path: PathBuf,
    least: usize,
    file: Mutex<File>,
}

#[derive(Debug)]
struct File {
    looked: Instant,
    changed: Option<SystemTime>,
    /// Of each key, so that neither content nor length shows in the time that a comparison takes.
    digests: Vec<[u8; 32]>,
}

impl Keys {
    /// Reads a file of keys, each of at least so many bytes.
    ///
    /// # Errors
    /// If it cannot be read, is empty or has a key that is too short.
    pub fn load(path: &Path, least: usize) -> Result<Self, KeysError> {
        let changed = changed(path);
        let file = File { looked: Instant::now(), changed, digests: read(path, least)? };
        Ok(Self { path: path.to_owned(), least, file: Mutex::new(file) })
    }

    /// Whether one of the keys is this one.
    #[must_use]
    pub fn admit(&self, key: &[u8], now: Instant) -> bool {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(file.looked) >= LOOK {
            file.looked = now;
            self.look(&mut file);
        }
        let shown: [u8; 32] = Sha256::digest(key).into();
        file.digests.iter().fold(Choice::from(0), |found, digest| found | digest.ct_eq(&shown)).into()
    }

    fn look(&self, file: &mut File) {
        let changed = changed(&self.path);
        if changed == file.changed {
            return;
        }
        file.changed = changed;
        match read(&self.path, self.least) {
            Ok(digests) => {
                tracing::info!(path = %self.path.display(), keys = digests.len(), "keys read again");
                file.digests = digests;
            }
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "the keys of before stay in force"),
        }
    }
}

fn changed(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|file| file.modified()).ok()
}

fn read(path: &Path, least: usize) -> Result<Vec<[u8; 32]>, KeysError> {
    let failed = |source| KeysError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(fs::File::open(path).map_err(failed)?, FILE_BYTES), &mut text)
        .map_err(failed)?;
    let keys: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if keys.is_empty() {
        return Err(KeysError::None { path: path.to_owned() });
    }
    if let Some(short) = keys.iter().find(|key| key.len() < least) {
        return Err(KeysError::Short { path: path.to_owned(), found: short.len(), least });
    }
    Ok(keys.into_iter().map(|key| Sha256::digest(key).into()).collect())
}

/// The key that a request shows as `Authorization: Bearer KEY`.
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, key) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_of_the_file_is_admitted_and_a_changed_file_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        fs::write(&path, "first-key\n\n  second-key  \n").unwrap();
        let keys = Keys::load(&path, 8).unwrap();
        let start = Instant::now();
        assert!(keys.admit(b"first-key", start) && keys.admit(b"second-key", start));
        assert!(!keys.admit(b"first-ke", start) && !keys.admit(b"", start));
        fs::write(&path, "third-key").unwrap();
        let later = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
        fs::File::open(&path).unwrap().set_modified(later).unwrap();
        assert!(keys.admit(b"first-key", start), "not looked at yet");
        let after = start + 2 * LOOK;
        assert!(keys.admit(b"third-key", after) && !keys.admit(b"first-key", after));
        fs::remove_file(&path).unwrap();
        assert!(keys.admit(b"third-key", after + 2 * LOOK), "what was last read stays in force");
    }

    #[test]
    fn files_without_usable_keys_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        assert!(matches!(Keys::load(&path, 8), Err(KeysError::Read { .. })));
        fs::write(&path, "\n \n").unwrap();
        assert!(matches!(Keys::load(&path, 8), Err(KeysError::None { .. })));
        fs::write(&path, "long-enough\nshort").unwrap();
        assert!(matches!(Keys::load(&path, 8), Err(KeysError::Short { found: 5, .. })));
    }

    #[test]
    fn a_bearer_key_is_found_whatever_the_case_of_its_scheme() {
        let headers = |value: &'static str| HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())]);
        assert_eq!(bearer(&headers("Bearer abc")), Some(&b"abc"[..]));
        assert_eq!(bearer(&headers("bearer  abc ")), Some(&b"abc"[..]));
        assert_eq!(bearer(&headers("Basic abc")), None);
        assert_eq!(bearer(&headers("Bearer")), None);
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
