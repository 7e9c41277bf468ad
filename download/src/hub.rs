//! A repository of a hub of models that speaks the protocol of Hugging Face's.

use std::sync::Arc;

use http::header::{AUTHORIZATION, CONTENT_LENGTH, ETAG};
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::Url;
use serde::Deserialize;

use crate::digest::{Checksum, ChecksumKind};
use crate::error::DownloadError;
use crate::http::{Client, Request};
use crate::source::{Listing, Remote, endpoint, hexadecimal};

/// The public hub.
pub const PUBLIC: &str = "https://huggingface.co";

/// A repository.
#[derive(Clone)]
pub struct Hub {
    endpoint: Url,
    repository: Arc<str>,
    revision: Arc<str>,
    token: Option<HeaderValue>,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.name())
    }
}

/// A revision, as the hub describes it.
#[derive(Deserialize)]
struct Described {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

impl Hub {
    /// A revision of a repository, of the public hub if no other is named.
    ///
    /// # Errors
    /// If the endpoint is no URL, a name is none of a repository, or the token cannot be sent.
    pub fn new(at: Option<&str>, repository: &str, revision: &str, token: Option<&str>) -> Result<Self, DownloadError> {
        let wrong =
            |setting, value: &str, problem| DownloadError::Setting { setting, value: value.to_owned(), problem };
        let mut endpoint = endpoint("endpoint", at.unwrap_or(PUBLIC))?;
        endpoint.set_path(endpoint.path().trim_end_matches('/').to_owned().as_str());
        let is_part = |part: &str| {
            let letters = part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
            letters && !part.is_empty() && !part.starts_with(['.', '-']) && !part.contains("..") && !part.contains("--")
        };
        if repository.split('/').count() > 2 || !repository.split('/').all(is_part) {
            return Err(wrong("hugging-face", repository, "a repository is OWNER/NAME"));
        }
        if revision.is_empty() || revision.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(wrong("revision", revision, "it has to be a branch, a tag or a commit"));
        }
        let token = token.map(str::trim).filter(|token| !token.is_empty()).map(|token| {
            let header = HeaderValue::from_str(&format!("Bearer {token}"));
            let problem = "it has letters that no token has: the Secret has something else in its key";
            header.map_err(|_| wrong("HF_TOKEN", "not shown", problem))
        });
        Ok(Self { endpoint, repository: repository.into(), revision: revision.into(), token: token.transpose()? })
    }

    /// Without the host: a commit is the same wherever it is read.
    pub(crate) fn name(&self) -> String {
        format!("{} at revision {}", self.repository, self.revision)
    }

    fn request(&self, what: String, path: &[&str]) -> Request {
        let mut url = self.endpoint.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let token = self.token.iter().map(|token| {
            let mut token = token.clone();
            token.set_sensitive(true);
            (AUTHORIZATION, token)
        });
        let advice = if self.token.is_some() { advice_with_token } else { advice_without_token };
        let (headers, secrets) = (HeaderMap::new(), token.collect());
        Request { what, url, headers, secrets, may_lead_elsewhere: true, advice }
    }

    pub(crate) async fn list(&self, client: &Client, commit: Option<&str>) -> Result<Listing, DownloadError> {
        let revision = commit.unwrap_or(&self.revision);
        let what = format!("asking {} for revision {revision} of {}", self.host(), self.repository);
        let parts = ["api", "models"].into_iter().chain(self.repository.split('/')).chain(["revision", revision]);
        let mut request = self.request(what.clone(), &parts.collect::<Vec<_>>());
        request.url.query_pairs_mut().append_pair("blobs", "true");
        let body = client.read(&request).await?;
        let wrong =
            |problem: String| DownloadError::Answer { what: what.clone(), expected: "a revision's files", problem };
        let described: Described = serde_json::from_slice(&body).map_err(|error| wrong(error.to_string()))?;
        if !is_commit(&described.sha) {
            return Err(wrong(format!("{:?} is no commit", described.sha)));
        }
        let asked = commit.or(Some(&*self.revision).filter(|revision| is_commit(revision)));
        if asked.is_some_and(|asked| !asked.eq_ignore_ascii_case(&described.sha)) {
            return Err(wrong(format!("it is of commit {}", described.sha)));
        }
        Ok(Listing { commit: Some(described.sha), files: described.siblings.into_iter().map(remote).collect() })
    }

    fn host(&self) -> &str {
        self.endpoint.host_str().unwrap_or_default()
    }

    pub(crate) async fn describe(
        &self,
        client: &Client,
        commit: Option<&str>,
        file: Remote,
    ) -> Result<Remote, DownloadError> {
        if file.size.is_some() && file.checksum.is_some() {
            return Ok(file);
        }
        let request = self.file(commit, &file.name)?;
        let answer = client.head(&request).await?;
        let headers = answer.response.headers();
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if let (Some(commit), Some(told)) = (commit, header("x-repo-commit"))
            && commit != told
        {
            let problem = format!("it is of commit {told}");
            return Err(DownloadError::Answer { what: request.what, expected: "a file of the commit", problem });
        }
        let own_length = header(CONTENT_LENGTH.as_str()).filter(|_| !answer.leads_elsewhere);
        let size = header("x-linked-size").or(own_length).and_then(|size| size.parse().ok());
        // A server that is no hub may call something else by as many digits.
        let is_hub = header("x-repo-commit").is_some();
        let own_tag = header(ETAG.as_str()).filter(|_| !answer.leads_elsewhere && is_hub);
        let tag = header("x-linked-etag").or(own_tag);
        let checksum = file.checksum.or_else(|| checksum(tag?));
        match file.size.or(size) {
            Some(size) => Ok(Remote { size: Some(size), checksum, ..file }),
            None => Err(DownloadError::Answer {
                what: request.what,
                expected: "the size of a file",
                problem: "neither X-Linked-Size nor Content-Length is there".to_owned(),
            }),
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "a request to a store may not be possible")]
    pub(crate) fn file(&self, commit: Option<&str>, name: &str) -> Result<Request, DownloadError> {
        let revision = commit.unwrap_or(&self.revision);
        let what = format!("reading {name} of {}", self.repository);
        let parts = self.repository.split('/').chain(["resolve", revision]).chain(name.split('/'));
        Ok(self.request(what, &parts.collect::<Vec<_>>()))
    }
}

fn is_commit(revision: &str) -> bool {
    hexadecimal(ChecksumKind::GitBlob, 40, revision).is_some()
}

fn remote(sibling: Sibling) -> Remote {
    let Sibling { rfilename, size, blob_id, lfs } = sibling;
    let is_large = lfs.is_some();
    let (sha256, lfs_size) = lfs.map_or((None, None), |lfs| (lfs.sha256, lfs.size));
    let large = sha256.and_then(|sha256| hexadecimal(ChecksumKind::Sha256, 64, &sha256));
    // Of a large file git has no more than a pointer.
    let small = blob_id.filter(|_| !is_large).and_then(|blob| hexadecimal(ChecksumKind::GitBlob, 40, &blob));
    Remote { name: rfilename, size: lfs_size.or(size), checksum: large.or(small), tag: None }
}

/// The checksum that an entity tag is: of a large file its SHA-256, of others their name in git.
fn checksum(tag: &str) -> Option<Checksum> {
    let bare = tag.trim_start_matches("W/").trim_matches('"');
    hexadecimal(ChecksumKind::Sha256, 64, bare).or_else(|| hexadecimal(ChecksumKind::GitBlob, 40, bare))
}

fn advice_without_token(status: StatusCode, code: &str) -> &'static str {
    match (status, code) {
        (_, "GatedRepo") => {
            "the repository is gated: ask for access on its page, and name a Secret with a token of that account in model.source.huggingFace.tokenSecretRef"
        }
        (StatusCode::NOT_FOUND, "RevisionNotFound") => {
            "the repository has no such revision: check model.source.huggingFace.revision"
        }
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) | (StatusCode::NOT_FOUND, "RepoNotFound") => {
            "the repository does not exist, is private or is gated: check model.source.huggingFace.repo, or name a Secret with a token in tokenSecretRef"
        }
        (StatusCode::NOT_FOUND, _) => "check repo, revision and endpoint of model.source.huggingFace",
        _ => "check model.source.huggingFace.endpoint: a hub of models answers otherwise",
    }
}

fn advice_with_token(status: StatusCode, code: &str) -> &'static str {
    match (status, code) {
        (_, "GatedRepo") | (StatusCode::FORBIDDEN, _) => {
            "the account of the token may not read the repository: ask for access on its page, or put a token that may read it into the Secret that model.source.huggingFace.tokenSecretRef names"
        }
        (StatusCode::UNAUTHORIZED, _) => {
            "the token is not valid, or the repository does not exist: put a token that is into the Secret that model.source.huggingFace.tokenSecretRef names, and check repo"
        }
        (StatusCode::NOT_FOUND, "RepoNotFound") => {
            "the repository does not exist, or the account of the token may not see it: check model.source.huggingFace.repo and tokenSecretRef"
        }
        _ => advice_without_token(status, code),
    }
}
