//! Objects below a prefix of a bucket, of Amazon or of another store that speaks S3.

mod sign;

use http::header::{CONTENT_LENGTH, ETAG, IF_MATCH};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;
use roxmltree::{Document, Node};

use crate::digest::{Checksum, ChecksumKind};
use crate::error::DownloadError;
use crate::http::{Client, Request};
use crate::source::{Listing, Remote, endpoint, hexadecimal};

pub use sign::Keys;

/// What S3 leaves as it is in a path; in a query `/` is escaped too.
const PATH: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');
const QUERY: AsciiSet = PATH.add(b'/');
const REGION: &str = "us-east-1";
/// Answers of a listing, of 1,000 objects each.
const MOST_PAGES: usize = 100;

/// Objects below a prefix.
#[derive(Clone)]
pub struct Bucket {
    endpoint: Url,
    region: String,
    name: String,
    /// Empty, or with `/` at its end.
    prefix: String,
    keys: Option<Keys>,
}

/// What is asked of a bucket.
struct Asked<'a> {
    method: &'a str,
    /// The object; empty for the bucket itself.
    key: &'a str,
    query: &'a [(&'a str, &'a str)],
    /// Headers that are signed too: of those that begin with `x-amz-` all have to be.
    headers: &'a [(&'static str, &'static str)],
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.name())
    }
}

impl Bucket {
    /// What `s3://BUCKET/PREFIX` names, in Amazon's store if no other is named. Without keys requests are not signed.
    ///
    /// # Errors
    /// If it is no such URL.
    pub fn new(at: Option<&str>, url: &str, region: Option<&str>, keys: Option<Keys>) -> Result<Self, DownloadError> {
        let wrong = |problem| DownloadError::Setting { setting: "s3", value: url.to_owned(), problem };
        let rest = url.strip_prefix("s3://").ok_or_else(|| wrong("it has to begin with s3://"))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-');
        if bucket.len() < 3 || bucket.len() > 63 || !bucket.bytes().all(is_part) || bucket.contains("..") {
            return Err(wrong("a bucket is named with 3 to 63 lower-case letters, digits, '.' and '-'"));
        }
        if prefix.split('/').any(|part| matches!(part, "." | "..")) {
            return Err(wrong("the prefix must not contain '..'"));
        }
        let prefix = prefix.trim_matches('/');
        let region = region.unwrap_or(REGION);
        let own = format!("https://s3.{region}.amazonaws.com");
        Ok(Self {
            endpoint: endpoint("endpoint", at.unwrap_or(&own))?,
            region: region.to_owned(),
            name: bucket.to_owned(),
            prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") },
            keys,
        })
    }

    pub(crate) fn name(&self) -> String {
        let host = self.endpoint.as_str().trim_end_matches('/');
        format!("s3://{}/{} of {host}", self.name, self.prefix.trim_end_matches('/'))
    }

    /// A request, signed for now.
    fn request(&self, what: String, asked: &Asked<'_>) -> Result<Request, DownloadError> {
        let Asked { method, key, query, headers: extra } = asked;
        let base = self.endpoint.path().trim_end_matches('/');
        let name = if key.is_empty() { self.name.clone() } else { format!("{}/{key}", self.name) };
        let path = format!("{base}/{}", utf8_percent_encode(&name, &PATH));
        let escaped = |text: &str| utf8_percent_encode(text, &QUERY).to_string();
        let mut pairs: Vec<String> =
            query.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value))).collect();
        pairs.sort();
        let query = pairs.join("&");
        let mut url = self.endpoint.clone();
        url.set_path(&path);
        url.set_query((!query.is_empty()).then_some(query.as_str()));
        let mut headers: HeaderMap = extra
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        if let Some(keys) = &self.keys {
            let host = url.host_str().unwrap_or_default();
            let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
            let signed = keys.sign(
                &sign::Signed { method, host: &host, path: &path, query: &query, headers: extra },
                &self.region,
                Timestamp::now(),
            );
            for (name, value) in signed {
                let wrong = || DownloadError::Setting {
                    setting: "AWS_ACCESS_KEY_ID",
                    value: "not shown".to_owned(),
                    problem: "it has letters that no key has: the Secret has something else in it",
                };
                let value = value.parse().map_err(|_| wrong())?;
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        let secrets = HeaderMap::new();
        Ok(Request { what, url, headers, secrets, may_lead_elsewhere: false, advice })
    }

    pub(crate) async fn list(&self, client: &Client) -> Result<Listing, DownloadError> {
        let what = format!("listing {}", self.name());
        let (mut files, mut token) = (Vec::new(), None::<String>);
        for _ in 0..MOST_PAGES {
            let mut query = vec![("list-type", "2"), ("prefix", self.prefix.as_str())];
            query.extend(token.as_deref().map(|token| ("continuation-token", token)));
            let body = client
                .read(&self.request(what.clone(), &Asked { method: "GET", key: "", query: &query, headers: &[] })?)
                .await?;
            let page = page(&String::from_utf8_lossy(&body), &self.prefix).map_err(|problem| {
                DownloadError::Answer { what: what.clone(), expected: "a list of objects", problem }
            })?;
            files.extend(page.files);
            token = page.next;
            if token.is_none() {
                return Ok(Listing { commit: None, files });
            }
        }
        Err(DownloadError::Answer {
            what,
            expected: "a list of at most 100,000 objects",
            problem: "it goes on: name the folder of one checkpoint in model.source.s3.url".to_owned(),
        })
    }

    pub(crate) async fn describe(&self, client: &Client, file: Remote) -> Result<Remote, DownloadError> {
        let request = self.of(&file, "HEAD", &[("x-amz-checksum-mode", "ENABLED")])?;
        let answer = client.head(&request).await?;
        let headers = answer.response.headers();
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let size = header(CONTENT_LENGTH.as_str()).and_then(|size| size.parse().ok());
        let tag = header(ETAG.as_str()).map(str::to_owned).or(file.tag);
        let checksum = checksum(&header, tag.as_deref());
        Ok(Remote { name: file.name, size: size.or(file.size), checksum, tag })
    }

    pub(crate) fn file(&self, file: &Remote) -> Result<Request, DownloadError> {
        let request = self.of(file, "GET", &[])?;
        // What was begun is gone on with only if the object is still the same.
        Ok(match &file.tag {
            Some(tag) => request.with(IF_MATCH, tag),
            None => request,
        })
    }

    fn of(
        &self,
        file: &Remote,
        method: &str,
        headers: &[(&'static str, &'static str)],
    ) -> Result<Request, DownloadError> {
        let what = format!("reading {} of {}", file.name, self.name());
        let key = format!("{}{}", self.prefix, file.name);
        self.request(what, &Asked { method, key: &key, query: &[], headers })
    }
}

/// The checksum of a whole object: one that the store has computed itself, or the entity tag where it is an MD5.
fn checksum<'a>(header: &impl Fn(&str) -> Option<&'a str>, tag: Option<&str>) -> Option<Checksum> {
    let is_of_parts = |value: &str| value.contains('-');
    let kinds = [
        ("x-amz-checksum-sha256", ChecksumKind::Sha256Base64),
        ("x-amz-checksum-sha1", ChecksumKind::Sha1Base64),
        ("x-amz-checksum-crc64nvme", ChecksumKind::Crc64Nvme),
        ("x-amz-checksum-crc32c", ChecksumKind::Crc32C),
        ("x-amz-checksum-crc32", ChecksumKind::Crc32),
    ];
    let is_composite = header("x-amz-checksum-type").is_some_and(|kind| kind == "COMPOSITE");
    let own = kinds.into_iter().filter(|_| !is_composite).find_map(|(name, kind)| {
        let value = header(name).filter(|value| !is_of_parts(value))?;
        Some(Checksum { kind, value: value.to_owned() })
    });
    // With keys of the user's, or of a key service, the tag is another number of the same look.
    let encryption = header("x-amz-server-side-encryption").is_some_and(|kind| kind != "AES256");
    let has_own_key = header("x-amz-server-side-encryption-customer-algorithm").is_some();
    let is_md5 = !encryption && !has_own_key;
    own.or_else(|| hexadecimal(ChecksumKind::Md5, 32, tag.filter(|_| is_md5)?.trim_matches('"')))
}

struct Page {
    files: Vec<Remote>,
    next: Option<String>,
}

fn text<'a>(node: Node<'a, 'a>, name: &str) -> Option<&'a str> {
    node.children().find(|child| child.tag_name().name() == name)?.text()
}

fn page(xml: &str, prefix: &str) -> Result<Page, String> {
    let document = Document::parse(xml).map_err(|error| error.to_string())?;
    let root = document.root_element();
    if root.tag_name().name() != "ListBucketResult" {
        return Err(format!("its root is {:?}", root.tag_name().name()));
    }
    let mut files = Vec::new();
    for object in root.children().filter(|child| child.tag_name().name() == "Contents") {
        let key = text(object, "Key").ok_or("an object has no Key")?;
        let name = key.strip_prefix(prefix).ok_or_else(|| format!("{key:?} is not below the prefix"))?;
        // What programs with folders leave as their mark.
        if name.is_empty() || name.ends_with('/') {
            continue;
        }
        let size = text(object, "Size").and_then(|size| size.parse().ok());
        files.push(Remote {
            name: name.to_owned(),
            size,
            checksum: None,
            tag: text(object, "ETag").map(str::to_owned),
        });
    }
    let is_cut = text(root, "IsTruncated") == Some("true");
    let next = text(root, "NextContinuationToken").filter(|_| is_cut).map(str::to_owned);
    if is_cut && next.is_none() {
        return Err("it goes on and does not say where".to_owned());
    }
    Ok(Page { files, next })
}

/// Code and words of an error of a store; empty if it is none.
pub(crate) fn error(xml: &str) -> (String, String) {
    let Ok(document) = Document::parse(xml) else { return Default::default() };
    let root = document.root_element();
    if root.tag_name().name() != "Error" {
        return Default::default();
    }
    let of = |name| text(root, name).unwrap_or_default().to_owned();
    (of("Code"), of("Message"))
}

fn advice(status: StatusCode, code: &str) -> &'static str {
    match (status, code) {
        (_, "NoSuchBucket") => "the store has no such bucket: check model.source.s3.url and endpoint",
        (_, "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken" | "ExpiredToken") => {
            "the store does not take the keys: put those of an account that may read the bucket into the Secret that model.source.s3.credentialsSecretRef names"
        }
        (_, "RequestTimeTooSkewed") => "the clock of the node differs from that of the store: set it right",
        (_, "AuthorizationHeaderMalformed" | "PermanentRedirect") => {
            "the bucket is in another region: set model.source.s3.region to it"
        }
        (StatusCode::PRECONDITION_FAILED, _) => {
            "the object was replaced while it was read: the next run takes the new one"
        }
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => {
            "the keys may not read it, or there are none: give s3:GetObject and s3:ListBucket to the account of the keys that model.source.s3.credentialsSecretRef names"
        }
        (StatusCode::NOT_FOUND, _) => "check url and endpoint of model.source.s3",
        _ => "check endpoint and region of model.source.s3",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_a_listing_is_read_and_marks_of_folders_are_passed_over() {
        let xml = r#"<?xml version="1.0" encoding="UTF-8"?>
            <ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>true</IsTruncated>
            <NextContinuationToken>t&amp;1</NextContinuationToken>
            <Contents><Key>m/</Key><Size>0</Size></Contents>
            <Contents><Key>m/config.json</Key><Size>12</Size><ETag>&quot;e&quot;</ETag></Contents></ListBucketResult>"#;
        let page = page(xml, "m/").map_err(|problem| panic!("{problem}")).unwrap_or_else(|()| unreachable!());
        assert_eq!(page.next.as_deref(), Some("t&1"));
        let file = Remote { name: "config.json".into(), size: Some(12), checksum: None, tag: Some("\"e\"".into()) };
        assert_eq!(page.files, [file]);
    }

    #[test]
    fn an_answer_that_is_no_listing_or_is_of_another_prefix_is_refused() {
        assert!(page("<html></html>", "").is_err());
        assert!(page("<ListBucketResult><Contents><Key>other</Key></Contents></ListBucketResult>", "m/").is_err());
        assert!(page("<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>", "").is_err());
    }

    #[test]
    fn a_tag_is_a_checksum_only_where_it_is_an_md5() {
        let md5 = "\"25f9e794323b453885f5181f1b624d0b\"";
        let of = |headers: &[(&str, &'static str)]| {
            checksum(&|name: &str| headers.iter().find(|(own, _)| *own == name).map(|(_, value)| *value), Some(md5))
        };
        assert_eq!(of(&[]).unwrap().kind, ChecksumKind::Md5);
        assert_eq!(of(&[("x-amz-server-side-encryption", "AES256")]).unwrap().kind, ChecksumKind::Md5);
        assert_eq!(of(&[("x-amz-server-side-encryption", "aws:kms")]), None);
        assert_eq!(of(&[("x-amz-checksum-crc64nvme", "rosUhgp5mIg=")]).unwrap().kind, ChecksumKind::Crc64Nvme);
        let parts = [("x-amz-checksum-crc32c", "AAAAAA=="), ("x-amz-checksum-type", "COMPOSITE")];
        assert_eq!(of(&parts).unwrap().kind, ChecksumKind::Md5);
        assert_eq!(checksum(&|_: &str| None::<&str>, Some("\"25f9e794323b453885f5181f1b624d0b-7\"")), None);
    }

    #[test]
    fn what_is_no_bucket_is_refused_by_name() {
        for url in ["http://bucket/x", "s3://", "s3://UP/x", "s3://ab", "s3://bucket/../x"] {
            assert!(Bucket::new(None, url, None, None).is_err(), "{url}");
        }
        let bucket = Bucket::new(None, "s3://bucket.a/m/x/", Some("eu-west-1"), None).unwrap();
        assert_eq!(bucket.name(), "s3://bucket.a/m/x of https://s3.eu-west-1.amazonaws.com");
    }
}
