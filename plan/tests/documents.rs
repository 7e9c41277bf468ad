#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
//! Documents of every release, in `documents/RELEASE`: each stays readable, none of their fields goes away, and answers of
//! later releases are read too. A release begins with a folder of its own here.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use plan::wire::process::LastWord;
use plan::wire::{
    DownloadDocument, HealthDocument, LoadDocument, MapDocument, MonitorDocument, RecordedMap, State, WireError,
};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// What a document is, by the first word of its file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Download,
    Health,
    Last,
    Load,
    Map,
    Monitor,
    Recorded,
    State,
}

impl Kind {
    const ALL: [(&str, Self); 8] = [
        ("download", Self::Download),
        ("health", Self::Health),
        ("last", Self::Last),
        ("load", Self::Load),
        ("map", Self::Map),
        ("monitor", Self::Monitor),
        ("recorded", Self::Recorded),
        ("state", Self::State),
    ];

    const fn is_stored(self) -> bool {
        matches!(self, Self::Map | Self::Recorded)
    }

    /// Reads a document and gives what is written of it.
    fn read(self, document: &Value) -> Result<Value, WireError> {
        fn written(document: impl Serialize) -> Value {
            serde_json::to_value(document).unwrap()
        }
        let json = document.to_string();
        let json = json.as_bytes();
        match self {
            Self::Download => DownloadDocument::from_json(json).map(written),
            Self::Health => serde_json::from_slice::<HealthDocument>(json)
                .map(written)
                .map_err(|error| WireError::Json { reason: error.to_string() }),
            Self::Last => LastWord::from_json(json).map(written),
            Self::Load => LoadDocument::from_json(json).map(written),
            Self::Map => MapDocument::from_json(json).map(written),
            Self::Monitor => MonitorDocument::from_json(json).map(written),
            Self::Recorded => RecordedMap::from_json(json).map(written),
            Self::State => State::from_json(json).map(written),
        }
    }

    /// Where values of lists are that may grow.
    const fn words(self) -> &'static [&'static str] {
        match self {
            Self::Download => &["/phase"],
            Self::Health => &["/status"],
            Self::Monitor => &["/phase", "/decision/reason", "/events/2/what/reason"],
            Self::State => &["/phase", "/lastDecision/reason"],
            Self::Last | Self::Load | Self::Map | Self::Recorded => &[],
        }
    }
}

struct Released {
    file: PathBuf,
    kind: Kind,
    json: Value,
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries
}

fn corpus() -> Vec<Released> {
    let releases = entries(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/documents"));
    let files = releases.iter().flat_map(|release| entries(release));
    let read = |file: PathBuf| {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let word = name.split('-').next().unwrap();
        let (_, kind) =
            *Kind::ALL.iter().find(|(kind, _)| *kind == word).unwrap_or_else(|| panic!("{name}: what is it?"));
        let json = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        Released { file, kind, json }
    };
    files.map(read).collect()
}

/// Whether all of `part` is in `whole`, under the same names and with the same values.
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(name, value)| whole.get(name).is_some_and(|found| contains(found, value)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(whole, part)| contains(whole, part))
        }
        _ => whole == part,
    }
}

/// Pointers to every object of a document.
fn objects(json: &Value, at: &str) -> Vec<String> {
    match json {
        Value::Object(fields) => {
            let inner = fields.iter().flat_map(|(name, value)| objects(value, &format!("{at}/{name}")));
            std::iter::once(at.to_owned()).chain(inner).collect()
        }
        Value::Array(values) => {
            values.iter().enumerate().flat_map(|(index, value)| objects(value, &format!("{at}/{index}"))).collect()
        }
        _ => Vec::new(),
    }
}

fn with_added_field(json: &Value, at: &str) -> Value {
    let mut json = json.clone();
    json.pointer_mut(at).unwrap()["addedLater"] = json!({"of": ["another", {"release": 2}]});
    json
}

#[test]
fn this_release_has_its_documents_here_one_of_each_kind_at_least() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/documents").join(env!("CARGO_PKG_VERSION"));
    let here: BTreeSet<Kind> =
        corpus().iter().filter(|document| document.file.starts_with(&folder)).map(|document| document.kind).collect();
    assert_eq!(Vec::from_iter(here), Kind::ALL.map(|(_, kind)| kind));
}

#[test]
fn every_released_document_is_read_and_nothing_of_it_is_lost() {
    for Released { file, kind, json } in corpus() {
        let written = kind.read(&json).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(contains(&written, &json), "{} is written as {written}", file.display());
    }
}

fn hex(digit: u8) -> char {
    char::from_digit(digit.into(), 16).unwrap()
}

#[test]
fn a_stored_map_is_found_under_its_hash_by_every_later_release() {
    let maps = corpus().into_iter().filter(|document| document.kind == Kind::Map);
    for Released { file, json, .. } in maps {
        let stored = fs::read_to_string(&file).unwrap();
        let digest = Sha256::digest(stored.trim_end());
        let digest: String = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(hex).collect();
        let map = MapDocument::from_json(stored.as_bytes()).unwrap();
        assert_eq!(map.content_hash(), digest, "{}", file.display());
        map.to_map(&map.model).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(json.get("placement").is_some());
    }
}

#[test]
fn what_a_later_release_adds_to_an_answer_is_passed_over() {
    for Released { file, kind, json } in corpus().into_iter().filter(|document| !document.kind.is_stored()) {
        let expected = kind.read(&json).unwrap();
        for at in objects(&json, "") {
            let read = kind.read(&with_added_field(&json, &at));
            assert_eq!(read.as_ref(), Ok(&expected), "{} with a field more in {at:?}", file.display());
        }
    }
}

#[test]
fn what_a_later_release_adds_to_a_map_is_refused_by_its_name() {
    for Released { file, kind, json } in corpus().into_iter().filter(|document| document.kind.is_stored()) {
        for at in objects(&json, "") {
            let error = kind.read(&with_added_field(&json, &at)).unwrap_err().to_string();
            assert!(error.contains("unknown field `addedLater`"), "{} at {at:?}: {error}", file.display());
        }
    }
}

#[test]
fn a_word_of_a_later_release_is_kept_and_what_is_no_word_is_unknown() {
    let mut replaced = 0;
    for Released { file, kind, json } in corpus() {
        for at in kind.words().iter().filter(|at| json.pointer(at).is_some()) {
            for (said, read) in
                [(json!("quite_new"), "quite_new"), (json!({"new": 1}), "unknown"), (json!("\u{1b}["), "unknown")]
            {
                let mut newer = json.clone();
                *newer.pointer_mut(at).unwrap() = said;
                let written = kind.read(&newer).unwrap_or_else(|error| panic!("{} {at}: {error}", file.display()));
                assert_eq!(written.pointer(at), Some(&json!(read)), "{} {at}", file.display());
                *newer.pointer_mut(at).unwrap() = json!(read);
                assert!(contains(&written, &newer), "{} {at}", file.display());
                replaced += 1;
            }
        }
    }
    assert!(replaced > 20, "{replaced}");
}

#[test]
fn another_version_is_refused_in_answers_and_in_maps() {
    for Released { file, kind, json } in corpus() {
        let at = if kind == Kind::Recorded { "/map/version" } else { "/version" };
        if json.pointer(at).is_none() {
            continue;
        }
        let mut other = json.clone();
        *other.pointer_mut(at).unwrap() = json!("swiftbalancer.io/v2");
        let error = kind.read(&other).unwrap_err();
        assert_eq!(error, WireError::Version { found: "swiftbalancer.io/v2".to_owned() }, "{}", file.display());
    }
}
