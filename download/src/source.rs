//! What a checkpoint is downloaded from.

use reqwest::Url;

use crate::digest::{Checksum, ChecksumKind};
use crate::error::DownloadError;
use crate::http::{Client, Request};
use crate::hub::Hub;
use crate::s3::Bucket;

/// A file of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Its name, relative to the folder of the checkpoint.
    pub name: String,
    /// Its bytes, if the listing says.
    pub size: Option<u64>,
    /// What the source says that its bytes add up to, if it does.
    pub checksum: Option<Checksum>,
    /// Of a store whose objects change: what this version of it is called.
    pub tag: Option<String>,
}

/// The files of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The commit that was listed, of a source that has such.
    pub commit: Option<String>,
    /// All files.
    pub files: Vec<Remote>,
}

/// A hub of models, or a store that speaks S3.
#[derive(Clone, Debug)]
pub enum Source {
    /// A repository of a hub.
    Hub(Hub),
    /// Objects below a prefix.
    S3(Bucket),
}

impl Source {
    /// What it is called, without secrets.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Hub(hub) => hub.name(),
            Self::S3(bucket) => bucket.name(),
        }
    }

    /// All files, of a commit if one is named.
    pub(crate) async fn list(&self, client: &Client, commit: Option<&str>) -> Result<Listing, DownloadError> {
        match self {
            Self::Hub(hub) => hub.list(client, commit).await,
            Self::S3(bucket) => bucket.list(client).await,
        }
    }

    /// A file with its size and, if the source tells one, a checksum.
    pub(crate) async fn describe(
        &self,
        client: &Client,
        commit: Option<&str>,
        file: Remote,
    ) -> Result<Remote, DownloadError> {
        match self {
            Self::Hub(hub) => hub.describe(client, commit, file).await,
            Self::S3(bucket) => bucket.describe(client, file).await,
        }
    }

    /// The request for the bytes of a file.
    pub(crate) fn file(&self, commit: Option<&str>, file: &Remote) -> Result<Request, DownloadError> {
        match self {
            Self::Hub(hub) => hub.file(commit, &file.name),
            Self::S3(bucket) => bucket.file(file),
        }
    }
}

/// The URL of a source.
pub(crate) fn endpoint(setting: &'static str, text: &str) -> Result<Url, DownloadError> {
    let wrong = |problem| DownloadError::Setting { setting, value: text.to_owned(), problem };
    let url = Url::parse(text).map_err(|_| wrong("it is no URL"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(wrong("it has to begin with https:// or http://"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("it has to be a host, and a path if there is one, and no more: secrets come from a Secret"));
    }
    Ok(url)
}

/// A checksum of which the value is in hexadecimal digits, if it is one.
pub(crate) fn hexadecimal(kind: ChecksumKind, digits: usize, value: &str) -> Option<Checksum> {
    let is_one = value.len() == digits && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_one.then(|| Checksum { kind, value: value.to_ascii_lowercase() })
}
