//! Fetches one file: from where it was left, until it is whole and its checksum is right.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};

use http::StatusCode;
use http::header::{CONTENT_RANGE, RANGE};
use reqwest::Response;
use tokio::task::block_in_place;

use crate::backoff::Backoff;
use crate::digest::Hasher;
use crate::error::{DownloadError, io};
use crate::folder::Folder;
use crate::http::Client;
use crate::progress::Progress;
use crate::source::{Remote, Source};

/// Times that a file is read again because it was not what it should be.
const MOST_CORRUPT: usize = 2;
/// Bytes of a file that are read at a time to compute its checksum.
const BUFFER: usize = 1 << 20;

/// What all files are fetched with.
#[derive(Clone, Debug)]
pub(crate) struct Fetcher {
    pub client: Client,
    pub source: Source,
    pub commit: Option<String>,
    pub folder: Folder,
    pub progress: Progress,
    pub backoff: Backoff,
}

/// The part of a file that is there.
struct Part {
    file: File,
    bytes: u64,
    hasher: Option<Hasher>,
}

impl Fetcher {
    /// Fetches a file, however often that takes; `place` spreads those that fail together.
    pub async fn fetch(&self, file: &Remote, place: usize) -> Result<(), DownloadError> {
        let size = file.size.unwrap_or_default();
        if self.folder.has(&file.name, size)? {
            return Ok(());
        }
        let mut part = block_in_place(|| self.open(file, size))?;
        let (mut failures, mut corrupt, mut most) = (0, 0, part.bytes);
        loop {
            let error = match self.attempt(file, size, &mut part).await {
                Ok(()) => return Ok(()),
                Err(error) if error.is_permanent() => return Err(error),
                Err(error) => error,
            };
            if matches!(error, DownloadError::Content { .. }) {
                corrupt += 1;
                if corrupt > MOST_CORRUPT {
                    return Err(DownloadError::GivenUp { attempts: corrupt, last: Box::new(error) });
                }
                self.restart(file, size, &mut part)?;
            }
            // A source that begins anew each time comes no further.
            failures = if part.bytes > most { 1 } else { failures + 1 };
            most = most.max(part.bytes);
            if failures >= self.backoff.attempts {
                return Err(DownloadError::GivenUp { attempts: failures, last: Box::new(error) });
            }
            let wait = self.backoff.wait(failures, error.asked_wait(), place);
            tracing::warn!(file = file.name, %error, seconds = wait.as_secs_f32(), "tried again");
            self.progress.trouble(error.to_string());
            tokio::time::sleep(wait).await;
        }
    }

    /// Opens what is there, and computes the checksum of it.
    fn open(&self, file: &Remote, size: u64) -> Result<Part, DownloadError> {
        let path = self.folder.part(&file.name);
        let opened = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let mut opened = opened.map_err(io(&path, "opened to be written"))?;
        let mut hasher = hasher(file, size);
        let there = opened.metadata().map_err(io(&path, "read"))?.len();
        if there > size {
            opened.set_len(size).map_err(io(&path, "cut"))?;
        }
        let (mut bytes, mut buffer) = (0, vec![0; BUFFER]);
        if let Some(hasher) = &mut hasher {
            loop {
                let read = opened.read(&mut buffer).map_err(io(&path, "read"))?;
                if read == 0 {
                    break;
                }
                hasher.update(&buffer[..read]);
                bytes += read as u64;
            }
        } else {
            bytes = opened.seek(SeekFrom::End(0)).map_err(io(&path, "read"))?;
        }
        Ok(Part { file: opened, bytes, hasher })
    }

    /// Begins a file anew.
    fn restart(&self, file: &Remote, size: u64, part: &mut Part) -> Result<(), DownloadError> {
        let path = self.folder.part(&file.name);
        part.file.set_len(0).map_err(io(&path, "cut"))?;
        part.file.rewind().map_err(io(&path, "cut"))?;
        self.progress.lose(part.bytes);
        (part.bytes, part.hasher) = (0, hasher(file, size));
        Ok(())
    }

    async fn attempt(&self, file: &Remote, size: u64, part: &mut Part) -> Result<(), DownloadError> {
        if part.bytes < size {
            self.read(file, size, part).await?;
        }
        if let (Some(checksum), Some(hasher)) = (&file.checksum, part.hasher.take()) {
            let found = hasher.finish();
            if found != checksum.value {
                let expected = checksum.value.clone();
                return Err(DownloadError::Content {
                    file: file.name.clone(),
                    kind: checksum.kind.name(),
                    found,
                    expected,
                });
            }
        }
        block_in_place(|| {
            let path = self.folder.part(&file.name);
            part.file.sync_all().map_err(io(&path, "written to its end"))?;
            self.folder.keep(&file.name)
        })
    }

    /// Reads what is missing.
    async fn read(&self, file: &Remote, size: u64, part: &mut Part) -> Result<(), DownloadError> {
        let mut request = self.source.file(self.commit.as_deref(), file)?;
        if part.bytes > 0 {
            request = request.with(RANGE, &format!("bytes={}-", part.bytes));
        }
        let what = request.what.clone();
        let mut response = self.client.get(&request).await?;
        if !continues(&response, part.bytes, size).map_err(|problem| DownloadError::Answer {
            what: what.clone(),
            expected: "the rest of a file",
            problem,
        })? {
            // The source gives whole files alone.
            self.restart(file, size, part)?;
        }
        let path = self.folder.part(&file.name);
        loop {
            let chunk = response.chunk().await;
            let chunk = chunk
                .map_err(|source| DownloadError::Connection { what: what.clone(), source: source.without_url() })?;
            let Some(chunk) = chunk else { break };
            if part.bytes + chunk.len() as u64 > size {
                return Err(DownloadError::Content {
                    file: file.name.clone(),
                    kind: "size",
                    found: format!("more than {size}"),
                    expected: size.to_string(),
                });
            }
            block_in_place(|| part.file.write_all(&chunk)).map_err(io(&path, "written"))?;
            if let Some(hasher) = &mut part.hasher {
                hasher.update(&chunk);
            }
            part.bytes += chunk.len() as u64;
            self.progress.add(chunk.len() as u64);
        }
        if part.bytes < size {
            return Err(DownloadError::Short { what });
        }
        Ok(())
    }
}

fn hasher(file: &Remote, size: u64) -> Option<Hasher> {
    file.checksum.as_ref().map(|checksum| Hasher::new(checksum.kind, size))
}

/// Whether an answer goes on from where a file was left; otherwise it is the whole file.
fn continues(response: &Response, from: u64, size: u64) -> Result<bool, String> {
    let header = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    if response.status() != StatusCode::PARTIAL_CONTENT {
        return Ok(from == 0);
    }
    let range = header.unwrap_or_default();
    let parts = range.strip_prefix("bytes ").and_then(|range| range.split_once('/'));
    let begins = parts.and_then(|(range, _)| range.split_once('-')?.0.parse::<u64>().ok());
    let whole = parts.map(|(_, whole)| whole);
    if begins != Some(from) || !whole.is_some_and(|whole| whole == "*" || whole.parse() == Ok(size)) {
        return Err(format!("its Content-Range is {range:?}, not from byte {from} of {size}"));
    }
    Ok(true)
}

/// A small file that is whole.
pub(crate) fn small(folder: &Folder, name: &str) -> Result<Vec<u8>, DownloadError> {
    let path = folder.file(name);
    fs::read(&path).map_err(io(&path, "read"))
}

/// Files of which the source says nothing but their size.
pub(crate) fn unchecked(files: &[Remote]) -> Vec<&str> {
    let is_weak = |file: &&Remote| file.checksum.is_none();
    files.iter().filter(is_weak).map(|file| file.name.as_str()).collect()
}
