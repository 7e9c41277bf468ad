//! Keys that callers show: read from a file, one a line, and again when the file has changed, so that a mounted Secret can
//! be rotated. While two are there both are taken. Blank lines and those that begin with `#` are for whoever reads the file.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};
use thiserror::Error;

use crate::model::folder;
use crate::quoted::Quoted;

/// How often the file is read.
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
        path: Quoted,
        /// What the system says of it.
        source: io::Error,
    },
    /// It is no file of keys.
    #[error("{path} is longer than the {most} bytes that a file of keys may have")]
    Large {
        /// The file.
        path: Quoted,
        /// The bound.
        most: u64,
    },
    /// Nothing is in it, or comments alone.
    #[error("{path} has no key; write one on each line (those that begin with # are comments)")]
    None {
        /// The file.
        path: Quoted,
    },
    /// One can be guessed.
    #[error("{path} has a key of {found} bytes, at least {least} are needed; make one with `openssl rand -hex 32`")]
    Short {
        /// The file.
        path: Quoted,
        /// Its bytes.
        found: usize,
        /// The bound.
        least: usize,
    },
    /// One cannot be shown: a comment behind a key would become a part of it.
    #[error(
        "{path} has a key on line {line} with a space or another character than visible ASCII; write comments on lines of their own"
    )]
    Unshowable {
        /// The file.
        path: Quoted,
        /// Where, from 1.
        line: usize,
    },
}

/// Of each key, so that neither content nor length shows in the time that a comparison takes.
type Digests = Vec<[u8; 32]>;

/// See the module's documentation. The file is read on a thread of its own: a volume that hangs keeps no request waiting.
#[derive(Debug)]
pub struct Keys {
    digests: Arc<ArcSwap<Digests>>,
    /// The thread ends with it.
    _ends: Sender<Infallible>,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    least: usize,
    digests: Arc<ArcSwap<Digests>>,
    /// Why it could not be read when it was last looked at.
    failed: Option<String>,
}

impl Keys {
    /// Reads a file of keys, each of at least so many bytes, now and again and again.
    ///
    /// # Errors
    /// If it cannot be read, is empty or too long, or has a key that is too short.
    pub fn load(path: &Path, least: usize) -> Result<Self, KeysError> {
        let mut file = File::load(path, least)?;
        let (digests, (ends, ended)) = (Arc::clone(&file.digests), bounded(0));
        let run = move || {
            while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                file.look();
            }
        };
        let started = thread::Builder::new().name("keys".to_owned()).spawn(run);
        started.map_err(|source| KeysError::Read { path: Quoted::path(path), source })?;
        Ok(Self { digests, _ends: ends })
    }

    /// Whether one of the keys is this one.
    #[must_use]
    pub fn admit(&self, key: &[u8]) -> bool {
        admits(&self.digests.load(), key)
    }
}

fn admits(digests: &Digests, key: &[u8]) -> bool {
    let shown: [u8; 32] = Sha256::digest(key).into();
    digests.iter().fold(Choice::from(0), |found, digest| found | digest.ct_eq(&shown)).into()
}

impl File {
    fn load(path: &Path, least: usize) -> Result<Self, KeysError> {
        let digests = Arc::new(ArcSwap::from_pointee(read(path, least)?));
        Ok(Self { path: path.to_owned(), least, digests, failed: None })
    }

    /// Reads it all each time: what was seen half written can be of the same moment as the whole.
    fn look(&mut self) {
        match read(&self.path, self.least) {
            Ok(digests) => {
                self.failed = None;
                if digests != **self.digests.load() {
                    tracing::info!(path = %self.path.display(), keys = digests.len(), "keys read again");
                    self.digests.store(Arc::new(digests));
                }
            }
            Err(error) => {
                let words = Some(error.to_string());
                if self.failed != words {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the keys of before stay in force");
                    self.failed = words;
                }
            }
        }
    }
}

fn read(path: &Path, least: usize) -> Result<Digests, KeysError> {
    let failed = |source| KeysError::Read { path: Quoted::path(path), source };
    let bytes = folder::read_of_at_most(path, FILE_BYTES).map_err(|source| match source.kind() {
        io::ErrorKind::FileTooLarge => KeysError::Large { path: Quoted::path(path), most: FILE_BYTES },
        _ => failed(source),
    })?;
    let text = String::from_utf8(bytes).map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    // Some editors begin a file with a mark that says that it is UTF-8.
    let lines = text.strip_prefix('\u{feff}').unwrap_or(&text).lines().map(str::trim);
    let keys = (1..).zip(lines).filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let (numbers, keys): (Vec<usize>, Vec<&str>) = keys.unzip();
    if keys.is_empty() {
        return Err(KeysError::None { path: Quoted::path(path) });
    }
    if let Some(short) = keys.iter().find(|key| key.len() < least) {
        return Err(KeysError::Short { path: Quoted::path(path), found: short.len(), least });
    }
    if let Some(bad) = keys.iter().position(|key| !key.bytes().all(|byte| byte.is_ascii_graphic())) {
        return Err(KeysError::Unshowable { path: Quoted::path(path), line: numbers[bad] });
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
    use std::fs;

    use super::*;

    #[test]
    fn each_key_of_the_file_is_admitted_and_a_changed_file_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        fs::write(&path, "\u{feff}# of the first team\nfirst-key\n\n  second-key#2  \r\n  # retired: third-key\n")
            .unwrap();
        let moment = fs::metadata(&path).unwrap().modified().unwrap();
        let mut file = File::load(&path, 8).unwrap();
        let admit = |file: &File, key: &[u8]| admits(&file.digests.load(), key);
        assert!(admit(&file, b"first-key") && admit(&file, b"second-key#2"));
        for none in ["first-ke", "", "third-key", "second-key", "# of the first team", "# retired: third-key"] {
            assert!(!admit(&file, none.as_bytes()), "{none}");
        }
        for (text, key) in [("third-ke", b"third-ke".as_slice()), ("third-key", b"third-key")] {
            fs::write(&path, text).unwrap();
            // Written in two halves within one moment of the file system's clock.
            fs::File::options().append(true).open(&path).unwrap().set_modified(moment).unwrap();
            file.look();
            assert!(admit(&file, key) && !admit(&file, b"first-key"), "{text}");
        }
        fs::remove_file(&path).unwrap();
        file.look();
        assert!(admit(&file, b"third-key"), "what was last read stays in force");
    }

    #[test]
    fn the_file_is_read_again_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        fs::write(&path, "first-key").unwrap();
        let keys = Keys::load(&path, 8).unwrap();
        assert!(keys.admit(b"first-key"));
        fs::write(&path, "second-key").unwrap();
        let patience = std::time::Instant::now() + Duration::from_secs(30);
        while !keys.admit(b"second-key") {
            assert!(std::time::Instant::now() < patience, "the new key is taken");
            thread::yield_now();
        }
        assert!(!keys.admit(b"first-key"));
    }

    #[test]
    fn files_without_usable_keys_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        assert!(matches!(Keys::load(&path, 8), Err(KeysError::Read { .. })));
        for none in ["", "\n \n", "# the-only-key\n", "\u{feff}#the-only-key"] {
            fs::write(&path, none).unwrap();
            assert!(matches!(Keys::load(&path, 8), Err(KeysError::None { .. })), "{none}");
        }
        fs::write(&path, "long-key\n".repeat((FILE_BYTES / 9) as usize + 1)).unwrap();
        assert!(matches!(Keys::load(&path, 8), Err(KeysError::Large { .. })), "no key is cut");
        fs::write(&path, "long-enough\nshort").unwrap();
        assert!(matches!(Keys::load(&path, 8), Err(KeysError::Short { found: 5, .. })));
        for unshowable in ["# team a\nlong-enough # of team a", "\nlong-enough\u{e9}", "first-key\nsecond\tkey"] {
            fs::write(&path, unshowable).unwrap();
            assert!(matches!(Keys::load(&path, 8), Err(KeysError::Unshowable { line: 2, .. })), "{unshowable}");
        }
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
