//! Copies of model folders, and ways to spoil them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::group::MODEL;

pub const CONFIG: &str = "config.json";
pub const WEIGHTS: &str = "model.safetensors";
pub const INDEX: &str = "model.safetensors.index.json";
pub const SHARD: &str = "model-00002-of-00003.safetensors";

/// What spoils a folder.
pub type Spoil = Box<dyn FnOnce(&Path)>;

/// The folder of a model that is shipped: the one that serves, or a variant with random weights.
fn shipped(name: &str) -> PathBuf {
    let variants = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models/variants");
    if name == "tiny-moe" { PathBuf::from(MODEL) } else { variants.join(name) }
}

/// A copy of a shipped model, with texts that it may lack.
pub fn copy(name: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for source in [shipped("tiny-moe"), shipped(name)] {
        for entry in fs::read_dir(source).unwrap() {
            let entry = entry.unwrap();
            let file = entry.file_name().into_string().unwrap();
            if !file.starts_with("oracle.") {
                fs::copy(entry.path(), folder.path().join(file)).unwrap();
            }
        }
    }
    if name == "sharded_v5" {
        fs::remove_file(folder.path().join(WEIGHTS)).unwrap();
    }
    folder
}

/// Does nothing.
pub fn nothing() -> Spoil {
    Box::new(|_| ())
}

/// Removes a file.
pub fn remove(file: &'static str) -> Spoil {
    Box::new(move |folder| fs::remove_file(folder.join(file)).unwrap())
}

/// Writes a file.
pub fn write(file: &'static str, content: impl AsRef<[u8]> + 'static) -> Spoil {
    Box::new(move |folder| {
        fs::create_dir_all(folder.join(file).parent().unwrap()).unwrap();
        fs::write(folder.join(file), content).unwrap();
    })
}

/// Gives a file another name.
pub fn rename(from: &'static str, to: &'static str) -> Spoil {
    Box::new(move |folder| fs::rename(folder.join(from), folder.join(to)).unwrap())
}

/// Copies a file.
pub fn duplicate(from: &'static str, to: &'static str) -> Spoil {
    Box::new(move |folder| {
        fs::copy(folder.join(from), folder.join(to)).unwrap();
    })
}

/// Puts a link in a file's place.
pub fn link(file: &'static str, target: &'static str) -> Spoil {
    Box::new(move |folder| {
        let _ = fs::remove_file(folder.join(file));
        std::os::unix::fs::symlink(target, folder.join(file)).unwrap();
    })
}

/// Puts a pipe in a file's place.
pub fn pipe(file: &'static str) -> Spoil {
    Box::new(move |folder| {
        let _ = fs::remove_file(folder.join(file));
        rustix::fs::mkfifoat(rustix::fs::CWD, folder.join(file), rustix::fs::Mode::RWXU).unwrap();
    })
}

/// Changes a JSON file.
pub fn json(file: &'static str, change: impl FnOnce(&mut Map<String, Value>) + 'static) -> Spoil {
    Box::new(move |folder| {
        let path = folder.join(file);
        let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(value.as_object_mut().unwrap());
        fs::write(path, value.to_string()).unwrap();
    })
}

/// Sets a key of `config.json`; null removes it.
pub fn config(key: &'static str, value: Value) -> Spoil {
    json(CONFIG, move |config| {
        if value.is_null() {
            config.shift_remove(key);
        } else {
            config.insert(key.to_owned(), value);
        }
    })
}

/// Adds text to `config.json` before its end, which JSON need not be.
pub fn config_text(text: &'static str) -> Spoil {
    edit(CONFIG, move |config| {
        let end = config.iter().rposition(|&byte| byte == b'}').unwrap();
        config.splice(end..end, text.bytes());
    })
}

/// Changes the bytes of a file.
pub fn edit(file: &'static str, change: impl FnOnce(&mut Vec<u8>) + 'static) -> Spoil {
    Box::new(move |folder| {
        let path = folder.join(file);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
    })
}

/// Takes bytes off a file's end.
pub fn truncate(file: &'static str, bytes: usize) -> Spoil {
    edit(file, move |content| content.truncate(content.len() - bytes))
}

/// Changes the header of the weights as text; the data stays as it is.
pub fn header_text(change: impl FnOnce(String) -> String + 'static) -> Spoil {
    edit(WEIGHTS, move |bytes| {
        let size = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        let header = change(String::from_utf8(bytes[8..size].to_vec()).unwrap());
        let head = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
        bytes.splice(..size, head);
    })
}

/// Changes the header of the weights.
pub fn header(change: impl FnOnce(&mut Map<String, Value>) + 'static) -> Spoil {
    header_text(move |text| {
        let mut header: Value = serde_json::from_str(&text).unwrap();
        change(header.as_object_mut().unwrap());
        header.to_string()
    })
}

/// Gives a tensor another name.
pub fn rename_tensor(from: &'static str, to: &'static str) -> Spoil {
    header(move |header| {
        let tensor = header.shift_remove(from).unwrap();
        header.insert(to.to_owned(), tensor);
    })
}

/// Overwrites the first element of a tensor of two bytes an element.
pub fn weight(tensor: &'static str, element: [u8; 2]) -> Spoil {
    edit(WEIGHTS, move |bytes| {
        let size = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&bytes[8..size]).unwrap();
        let start = size + header[tensor]["data_offsets"][0].as_u64().unwrap() as usize;
        bytes[start..start + 2].copy_from_slice(&element);
    })
}

/// A safetensors file of this many empty tensors.
pub fn empty_tensors(count: usize) -> Vec<u8> {
    let tensor = json!({"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}).to_string();
    let members: Vec<String> = (0..count).map(|number| format!("\"{number:x}\":{tensor}")).collect();
    let header = format!("{{{}}}", members.join(","));
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()
}

/// One after the other.
pub fn both(first: Spoil, second: Spoil) -> Spoil {
    Box::new(move |folder| {
        first(folder);
        second(folder);
    })
}
