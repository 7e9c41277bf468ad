//! A store that speaks S3, with one bucket, whose listing has two objects a page.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use download::s3::{Bucket, Keys};
use download::source::Source;
use md5::{Digest as _, Md5};
use plan::words::hexadecimal;

use super::fake_hub::{Fault, Files};
use super::server::{Answer, Asked, Server};

pub struct FakeStore {
    pub server: Server,
    pub faults: Arc<Mutex<VecDeque<Fault>>>,
    /// Whether the listing tells of another `config.json` by now.
    pub replaced: Arc<AtomicBool>,
}

fn tag(bytes: &[u8]) -> String {
    format!("\"{}\"", hexadecimal(&Md5::digest(bytes)))
}

pub fn keys() -> Keys {
    Keys { id: "id".to_owned(), secret: "secret".to_owned(), session: None }
}

impl FakeStore {
    /// `faults` change the answers to a GET of the first shard.
    pub fn start(files: Files) -> Self {
        let faults = Arc::<Mutex<VecDeque<Fault>>>::default();
        let replaced = Arc::<AtomicBool>::default();
        let (changes, is_replaced) = (Arc::clone(&faults), Arc::clone(&replaced));
        let server = Server::start(move |asked| {
            let mut answer = answer(asked, &files);
            if asked.target.contains("list-type") && is_replaced.load(Ordering::SeqCst) {
                let listing = String::from_utf8(answer.body).unwrap();
                let other = hexadecimal(&Md5::digest("another"));
                answer.body = listing.replace(&hexadecimal(&Md5::digest(&files["config.json"])), &other).into_bytes();
            }
            let is_changed = asked.method == "GET" && asked.target.contains("model-1-of-2");
            match changes.lock().unwrap().pop_front_if(|_| is_changed) {
                Some(fault) => fault(answer),
                None => answer,
            }
        });
        Self { server, faults, replaced }
    }

    pub fn fault(&self, fault: impl Fn(Answer) -> Answer + Send + Sync + 'static) {
        self.faults.lock().unwrap().push_back(Box::new(fault));
    }

    pub fn source(&self, url: &str) -> Source {
        Source::S3(Bucket::new(Some(&self.server.url()), url, None, Some(keys())).unwrap())
    }
}

fn error(status: u16, code: &str) -> Answer {
    Answer::new(status, format!("<Error><Code>{code}</Code><Message>words</Message></Error>"))
}

fn answer(asked: &Asked, files: &Files) -> Answer {
    let is_signed = asked.header("authorization").is_some_and(|header| {
        header.starts_with("AWS4-HMAC-SHA256 Credential=id/") && header.contains("/us-east-1/s3/aws4_request")
    });
    if !is_signed {
        return error(403, "AccessDenied");
    }
    let (path, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
    let Some(key) = path.strip_prefix("/models") else { return error(404, "NoSuchBucket") };
    if key.is_empty() {
        let start = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("continuation-token=t"))
            .map_or(0, |at| at.parse().unwrap());
        assert!(query.contains("list-type=2") && query.contains("prefix=tiny%2F"), "{query}");
        let object = |(name, bytes): (&String, &Vec<u8>)| {
            format!(
                "<Contents><Key>tiny/{name}</Key><ETag>{}</ETag><Size>{}</Size></Contents>",
                tag(bytes).replace('"', "&quot;"),
                bytes.len()
            )
        };
        let page: String = files.iter().skip(start).take(2).map(object).collect();
        let more = start + 2 < files.len();
        let next =
            if more { format!("<NextContinuationToken>t{}</NextContinuationToken>", start + 2) } else { String::new() };
        return Answer::new(
            200,
            format!("<ListBucketResult><IsTruncated>{more}</IsTruncated>{next}{page}</ListBucketResult>"),
        );
    }
    let Some(bytes) = key.strip_prefix("/tiny/").and_then(|name| files.get(name)) else {
        return error(404, "NoSuchKey");
    };
    if asked.header("if-match").is_some_and(|asked| asked != tag(bytes)) {
        return error(412, "PreconditionFailed");
    }
    let answer = Answer::of_range(asked, bytes).with("etag", tag(bytes));
    if asked.method == "HEAD" { answer.with("content-length", bytes.len().to_string()) } else { answer }
}
