//! Reads the small files of a checkpoint whole: regular files of a sane size. A pipe or a device could block or never
//! end, and a pointer of Git LFS is not the file that it stands for. Knows nothing of what the files say.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;
use serde_json::Value;
use thiserror::Error;

/// A tokenizer or a configuration larger than this is none, bytes.
const LARGEST: u64 = 256 << 20;
/// What a Git LFS pointer begins with.
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Why a file of a checkpoint cannot be read.
#[derive(Debug, Error)]
pub enum FileError {
    /// It is a folder, a pipe or a device.
    #[error("it is not a regular file")]
    NotRegular,
    /// It is too large.
    #[error("it has {bytes} bytes, more than the {LARGEST} that such a file may have")]
    TooLarge {
        /// Its size.
        bytes: u64,
    },
    /// It only says where the file is.
    #[error("it is a Git LFS pointer, not the file itself; run `git lfs pull` in the checkpoint's folder")]
    Pointer,
    /// The system refuses.
    #[error(transparent)]
    Read(#[from] std::io::Error),
}

/// A file whole; `None` if there is none.
///
/// # Errors
/// If it is no regular file of a sane size, is a Git LFS pointer, or cannot be read.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    // Opening a pipe without this flag waits for a writer.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    read_regular(&file).map(Some)
}

fn read_regular(file: &File) -> Result<Vec<u8>, FileError> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(FileError::NotRegular);
    }
    if metadata.len() > LARGEST {
        return Err(FileError::TooLarge { bytes: metadata.len() });
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    // It may grow while it is read.
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(FileError::TooLarge { bytes: bytes.len() as u64 });
    }
    if bytes.starts_with(POINTER) {
        return Err(FileError::Pointer);
    }
    Ok(bytes)
}

/// JSON as Python's tools write it: a byte order mark before it is skipped, and the bare words `NaN`, `Infinity` and
/// `-Infinity`, which are no JSON, become strings, so that whoever takes the value can refuse it by its key.
///
/// # Errors
/// If it is no JSON otherwise.
pub fn parse_json(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    serde_json::from_slice(bytes).or_else(|error| match quote_words(bytes) {
        Some(quoted) => serde_json::from_slice(&quoted),
        None => Err(error),
    })
}

/// The same with the words that are no JSON in quotes; `None` if there are none.
fn quote_words(bytes: &[u8]) -> Option<Vec<u8>> {
    const WORDS: [&[u8]; 3] = [b"NaN", b"-Infinity", b"Infinity"];
    let (mut quoted, mut found, mut at, mut in_string) = (Vec::with_capacity(bytes.len() + 16), false, 0, false);
    while at < bytes.len() {
        let rest = &bytes[at..];
        let word = WORDS.iter().find(|word| !in_string && rest.starts_with(word));
        let length = match (word, bytes[at]) {
            (Some(word), _) => {
                quoted.extend([b"\"", *word, b"\""].concat());
                found = true;
                at += word.len();
                continue;
            }
            (None, b'\\') if in_string => 2.min(rest.len()),
            (None, b'"') => {
                in_string = !in_string;
                1
            }
            (None, _) => 1,
        };
        quoted.extend_from_slice(&rest[..length]);
        at += length;
    }
    found.then_some(quoted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_regular_files_that_are_the_file_itself_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        assert!(matches!(read(&path("none")), Ok(None)));
        assert!(matches!(read(directory.path()), Err(FileError::NotRegular)));
        std::os::unix::fs::symlink("/dev/zero", path("device")).unwrap();
        assert!(matches!(read(&path("device")), Err(FileError::NotRegular)));
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert!(matches!(read(&path("pipe")), Err(FileError::NotRegular)));
        File::create(path("large")).unwrap().set_len(1 << 40).unwrap();
        assert!(matches!(read(&path("large")), Err(FileError::TooLarge { bytes: 0x100_0000_0000 })));
        std::fs::write(path("pointer"), "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n").unwrap();
        let error = read(&path("pointer")).unwrap_err();
        assert!(error.to_string().contains("git lfs pull"), "{error}");
        std::fs::write(path("file"), "text").unwrap();
        assert_eq!(read(&path("file")).unwrap().as_deref(), Some(b"text".as_slice()));
    }

    #[test]
    fn words_that_are_no_json_are_strings_and_a_byte_order_mark_is_nothing() {
        let text = "\u{feff}{\"a\": [NaN, -Infinity, Infinity], \"\\\"NaN\": \"Infinity\", \"b\\\\\": NaN}";
        let expected = json!({"a": ["NaN", "-Infinity", "Infinity"], "\"NaN": "Infinity", "b\\": "NaN"});
        assert_eq!(parse_json(text.as_bytes()).unwrap(), expected);
        for bad in ["", "{\"a\": nan}", "{\"a\": NaNa}", "{\"a\": Infinity", "\"\\"] {
            assert!(parse_json(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
