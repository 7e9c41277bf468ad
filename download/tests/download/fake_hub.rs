//! A hub of models with one repository, whose large files lie on another host.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex};

use download::hub::Hub;
use download::source::Source;
use plan::words::hexadecimal;
use serde_json::json;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::server::{Answer, Asked, Server};

pub const TOKEN: &str = "hf_secret";
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub const LATER: &str = "89abcdef0123456789abcdef0123456789abcdef";

/// Changes an answer.
pub type Fault = Box<dyn Fn(Answer) -> Answer + Send + Sync>;

/// How it behaves.
#[derive(Default)]
pub struct Behaviour {
    /// What the listing tells of sizes and checksums is left out, as some mirrors do.
    pub is_terse: bool,
    /// Whether every request needs the token.
    pub is_private: bool,
    /// What `main` stands for.
    pub commit: Mutex<Option<&'static str>>,
    /// What happens to the next answers with this in their path.
    pub faults: Mutex<BTreeMap<&'static str, VecDeque<Fault>>>,
}

impl Behaviour {
    pub fn fault(&self, part: &'static str, fault: impl Fn(Answer) -> Answer + Send + Sync + 'static) {
        self.faults.lock().unwrap().entry(part).or_default().push_back(Box::new(fault));
    }

    fn changed(&self, asked: &Asked, answer: Answer) -> Answer {
        let mut faults = self.faults.lock().unwrap();
        let of_it = faults.iter_mut().find(|(part, _)| asked.method == "GET" && asked.target.contains(**part));
        match of_it.and_then(|(_, faults)| faults.pop_front()) {
            Some(fault) => fault(answer),
            None => answer,
        }
    }
}

pub struct FakeHub {
    pub api: Server,
    pub cdn: Server,
    pub behaviour: Arc<Behaviour>,
}

pub type Files = BTreeMap<String, Vec<u8>>;

fn is_large(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|ending| ending == "safetensors" || ending == "bin")
}

fn git(bytes: &[u8]) -> String {
    hexadecimal(&Sha1::new_with_prefix(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize())
}

/// A checkpoint of two shards, with what else lies in a repository.
pub fn checkpoint() -> Files {
    let index = json!({"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}).to_string();
    [
        ("config.json", b"{\"model_type\": \"qwen3_moe\"}".to_vec()),
        ("model.safetensors.index.json", index.into_bytes()),
        ("model-1-of-2.safetensors", super::bytes(300_000, 1)),
        ("model-2-of-2.safetensors", super::bytes(100_001, 2)),
        ("tokenizer.json", super::bytes(5000, 3)),
        ("additional_chat_templates/tool.jinja", b"{{ x }}".to_vec()),
        ("pytorch_model.bin", super::bytes(1000, 4)),
        ("README.md", b"words".to_vec()),
        ("original/consolidated.00.pth", super::bytes(1000, 5)),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes))
    .into()
}

/// The names of those that the runtime reads.
pub const READ: [&str; 6] = [
    "additional_chat_templates/tool.jinja",
    "config.json",
    "model-1-of-2.safetensors",
    "model-2-of-2.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
];

impl FakeHub {
    pub fn start(files: Files, behaviour: Behaviour) -> Self {
        let (files, behaviour) = (Arc::new(files), Arc::new(behaviour));
        let (own, changes) = (Arc::clone(&files), Arc::clone(&behaviour));
        let cdn = Server::start(move |asked| {
            let name = asked.target.trim_start_matches("/cdn/").split('?').next().unwrap();
            changes.changed(
                asked,
                own.get(name).map_or_else(|| Answer::new(404, ""), |bytes| Answer::of_range(asked, bytes)),
            )
        });
        let (cdn_url, changes) = (cdn.url(), Arc::clone(&behaviour));
        let api = Server::start(move |asked| {
            let allowed = !changes.is_private || asked.header("authorization") == Some(&format!("Bearer {TOKEN}"));
            let answer = if allowed { answer(asked, &files, &changes, &cdn_url) } else { Answer::new(401, "") };
            // Where it leads is not where things fail.
            if answer.status == 302 { answer } else { changes.changed(asked, answer) }
        });
        Self { api, cdn, behaviour }
    }

    pub fn source(&self, token: Option<&str>) -> Source {
        Source::Hub(Hub::new(Some(&self.api.url()), "Org/Model", "main", token).unwrap())
    }
}

fn answer(asked: &Asked, files: &Files, behaviour: &Behaviour, cdn: &str) -> Answer {
    let main = behaviour.commit.lock().unwrap().unwrap_or(COMMIT);
    let path = asked.target.split('?').next().unwrap();
    if let Some(revision) = path.strip_prefix("/api/models/Org/Model/revision/") {
        let commit = match revision {
            "main" => main,
            COMMIT => COMMIT,
            LATER => LATER,
            _ => return Answer::new(404, "").with("x-error-code", "RevisionNotFound"),
        };
        let sibling = |(name, bytes): (&String, &Vec<u8>)| match (behaviour.is_terse, is_large(name)) {
            (true, _) => json!({"rfilename": name}),
            (false, true) => json!({
                "rfilename": name, "size": bytes.len(), "blobId": "0".repeat(40),
                "lfs": {"sha256": hexadecimal(&Sha256::digest(bytes)), "size": bytes.len(), "pointerSize": 135},
            }),
            (false, false) => json!({"rfilename": name, "size": bytes.len(), "blobId": git(bytes)}),
        };
        let siblings: Vec<_> = files.iter().map(sibling).collect();
        return Answer::new(200, json!({"sha": commit, "siblings": siblings}).to_string());
    }
    let rest = path.strip_prefix("/Org/Model/resolve/").and_then(|rest| rest.split_once('/'));
    let Some((revision, name)) = rest else {
        return Answer::new(404, "")
            .with("x-error-code", "RepoNotFound")
            .with("x-error-message", "Repository not found");
    };
    let Some(bytes) = files.get(name) else { return Answer::new(404, "").with("x-error-code", "EntryNotFound") };
    let commit = if revision == "main" { main } else { revision };
    if is_large(name) {
        let tag = format!("\"{}\"", hexadecimal(&Sha256::digest(bytes)));
        return Answer::new(302, "")
            .with("location", format!("{cdn}/cdn/{name}?signature=x"))
            .with("x-repo-commit", commit)
            .with("x-linked-etag", tag)
            .with("x-linked-size", bytes.len().to_string());
    }
    let answer =
        Answer::of_range(asked, bytes).with("x-repo-commit", commit).with("etag", format!("\"{}\"", git(bytes)));
    if asked.method == "HEAD" { answer.with("content-length", bytes.len().to_string()) } else { answer }
}
