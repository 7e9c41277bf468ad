//! Which configurations are accepted, and what makes a checkpoint another.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use runtime::model::checkpoint::Checkpoint;
use serde_json::{Value, json};

use crate::fixtures::{VARIANTS, tiny_moe, variant};

/// Opens a copy of a variant after `spoil` has changed it; gives the error with its sources.
fn refusal(name: &str, spoil: impl FnOnce(&Path)) -> String {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(variant(name)).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().starts_with("oracle.") {
            continue;
        }
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    spoil(copy.path());
    match Checkpoint::open(copy.path()) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(error) = source {
                write!(text, ": {error}").unwrap();
                source = error.source();
            }
            text
        }
    }
}

/// Changes `config.json`; `null` removes a key.
fn config(key: &'static str, value: Value) -> impl FnOnce(&Path) {
    move |directory| {
        let path = directory.join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let object = config.as_object_mut().unwrap();
        if value.is_null() {
            object.remove(key);
        } else {
            object.insert(key.to_owned(), value);
        }
        fs::write(path, config.to_string()).unwrap();
    }
}

#[test]
fn every_checkpoint_that_is_shipped_is_accepted() {
    Checkpoint::open(&tiny_moe()).unwrap();
    for name in VARIANTS {
        assert_eq!(refusal(name, |_| ()), "accepted", "{name}");
    }
}

#[test]
fn a_window_of_a_layer_type_that_is_not_used_is_no_reason_to_refuse() {
    assert_eq!(refusal("sharded_v5", config("sliding_window", json!(8))), "accepted");
}

#[test]
fn a_window_that_is_in_use_is_refused_and_one_that_is_not_is_not() {
    let window = |used: bool| {
        refusal("base", |directory| {
            config("sliding_window", json!(64))(directory);
            config("use_sliding_window", json!(used))(directory);
        })
    };
    assert!(window(true).contains("sliding_window = 64 is not supported"), "{}", window(true));
    assert_eq!(window(false), "accepted");
}

#[test]
fn the_identity_changes_with_the_configuration_and_the_layout_and_with_nothing_else() {
    let digest = |name: &str| Checkpoint::open(&variant(name)).unwrap().identity("a name").digest;
    assert_eq!(digest("base"), Checkpoint::open(&variant("base")).unwrap().identity("another").digest);
    let all: std::collections::BTreeSet<String> = VARIANTS.iter().map(|name| digest(name)).collect();
    assert_eq!(all.len(), VARIANTS.len());
    let identity = Checkpoint::open(&variant("dense_layers")).unwrap().identity("dense");
    assert_eq!((identity.layers, identity.experts, identity.name.as_str()), (1, 8, "dense"));
}
