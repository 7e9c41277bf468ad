//! What the download of a checkpoint says of itself: while it runs over HTTP, at its end as the last word of its container.

use serde::{Deserialize, Serialize};

use super::{Told, VERSION, WireError, read};

/// What a download does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DownloadPhase {
    /// It asks which files there are.
    #[serde(rename = "listing")]
    Listing,
    /// Another pod downloads into the same folder.
    #[serde(rename = "waiting")]
    Waiting,
    /// Files arrive.
    #[serde(rename = "downloading")]
    Downloading,
    /// Every file is there.
    #[serde(rename = "complete")]
    Complete,
}

/// `GET` [`super::path::DOWNLOAD`], and what a download that has succeeded leaves as the last word of its container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DownloadDocument {
    /// [`VERSION`].
    version: String,
    /// What it does.
    pub phase: Told<DownloadPhase>,
    /// The commit that is read, of a source that has such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Bytes that are there.
    pub bytes: u64,
    /// Bytes of all files; `None` until they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// Why nothing arrives at the moment, if something is wrong that may pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl DownloadDocument {
    /// A download that has just begun.
    #[must_use]
    pub fn new() -> Self {
        let phase = Told::Known(DownloadPhase::Listing);
        Self { version: VERSION.to_owned(), phase, commit: None, bytes: 0, total_bytes: None, trouble: None }
    }

    /// The document.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a document is plain data")
    }

    /// Reads a document, its version first.
    ///
    /// # Errors
    /// If it is no JSON, of another version, or no such document.
    pub fn from_json(json: &[u8]) -> Result<Self, WireError> {
        read(json)
    }
}

impl Default for DownloadDocument {
    fn default() -> Self {
        Self::new()
    }
}
