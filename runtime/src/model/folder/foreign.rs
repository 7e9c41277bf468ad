//! Files that are something else than their names say, told by how they begin.

use std::fmt::{self, Display, Formatter};

/// Most bytes of a Git LFS pointer; the format's own bound.
const POINTER_BYTES: usize = 1024;

/// What a file is instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// A file without a byte.
    Empty,
    /// What Git keeps in the place of a large file.
    LfsPointer,
    /// What a web server answers instead of a file.
    WebPage,
    /// A file of `torch.save`, or another archive.
    Archive,
    /// A pickle.
    Pickle,
    /// A file of llama.cpp.
    Gguf,
    /// Compressed by gzip, zstd or xz.
    Compressed,
    /// HDF5, of Keras.
    Hdf5,
    /// Text in UTF-16, as some editors and shells write it.
    Utf16,
    /// As a download leaves it that has reserved its place and not yet come.
    Zeros,
}

impl Foreign {
    /// What a file is that begins so, if it is none that could be used.
    #[must_use]
    pub fn of(beginning: &[u8]) -> Option<Self> {
        let begins = |with: &[u8]| beginning.starts_with(with);
        let text = beginning.trim_ascii_start();
        let page = [&b"<!doctype"[..], b"<html", b"<?xml", b"<head", b"<error"];
        let is_page = page.iter().any(|tag| text.get(..tag.len()).is_some_and(|head| head.eq_ignore_ascii_case(tag)));
        // What the hub answers, and what Python makes of it.
        let answers = [&b"Entry not found"[..], b"Repository not found", b"Invalid username", b"Not Found", b"404"];
        match () {
            () if beginning.is_empty() => Some(Self::Empty),
            () if beginning.len() < POINTER_BYTES && begins(b"version https://git-lfs.github.com/spec/") => {
                Some(Self::LfsPointer)
            }
            () if is_page || answers.iter().any(|answer| begins(answer)) => Some(Self::WebPage),
            () if begins(b"PK\x03\x04") => Some(Self::Archive),
            () if begins(&[0x80, 2]) && beginning.get(2).is_some_and(|op| matches!(op, b'}' | b'c' | 0x8a | b'X')) => {
                Some(Self::Pickle)
            }
            () if begins(b"GGUF") => Some(Self::Gguf),
            () if begins(&[0x1f, 0x8b]) || begins(&[0x28, 0xb5, 0x2f, 0xfd]) || begins(b"\xfd7zXZ") => {
                Some(Self::Compressed)
            }
            () if begins(b"\x89HDF") => Some(Self::Hdf5),
            () if is_utf16(beginning) => Some(Self::Utf16),
            () if beginning.iter().take(64).all(|&byte| byte == 0) => Some(Self::Zeros),
            () => None,
        }
    }
}

/// Whether bytes begin with UTF-16's mark and some ASCII; the length at the beginning of a safetensors file can look like the
/// mark alone.
fn is_utf16(beginning: &[u8]) -> bool {
    let place_of_ascii = match beginning {
        [0xff, 0xfe, ..] => 0,
        [0xfe, 0xff, ..] => 1,
        _ => return false,
    };
    let is_ascii = |pair: &[u8; 2]| (1..0x80).contains(&pair[place_of_ascii]) && pair[1 - place_of_ascii] == 0;
    let (pairs, _) = beginning[2..].as_chunks::<2>();
    pairs.iter().take(3).filter(|pair| is_ascii(pair)).count() == pairs.len().min(3) && !pairs.is_empty()
}

impl Display for Foreign {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Empty => "empty: download it again",
            Self::LfsPointer => {
                "a Git LFS pointer, not the file itself: run `git lfs pull` in the folder, or download the file"
            }
            Self::WebPage => "an answer of a web server, not the file itself: download it again",
            Self::Archive | Self::Pickle => {
                "of torch.save, not what its name says: take the model's safetensors form (save_pretrained)"
            }
            Self::Gguf => "of llama.cpp (GGUF), not what its name says: take the model's safetensors form",
            Self::Compressed => "compressed: unpack it",
            Self::Hdf5 => "of Keras (HDF5), not what its name says: take the model's safetensors form",
            Self::Utf16 => "text in UTF-16: save it in UTF-8",
            Self::Zeros => "all zeros where it begins, as of a download that has not ended: download it again",
        })
    }
}
