//! Which files of a folder hold the weights, and what their index says. Opens none of them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::CheckpointError;
use crate::model::folder::{self, FileError, Listing};
use crate::model::json;
use crate::quoted::Quoted;

/// Bytes of the largest index that is read; that of a model with 140,000 tensors has 15 MB.
const MAX_INDEX: u64 = 32 << 20;
/// Holds every tensor, where there is one file.
pub(super) const SINGLE: &str = "model.safetensors";
/// Says which file holds each tensor, where there are several.
pub(super) const INDEX: &str = "model.safetensors.index.json";
const EXTENSION: &str = ".safetensors";
/// Weights in other forms: of torch, Keras, Flax, llama.cpp and ONNX.
const OTHER_FORMS: [&str; 9] = [".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".ggml", ".onnx"];

/// The files that hold the weights, in order, and which tensors an index says that they have.
#[derive(Debug, Default)]
pub(super) struct WeightFiles {
    pub names: Vec<String>,
    /// For each tensor its file's place in `names`; none if there is no index.
    index: Option<BTreeMap<String, u32>>,
}

impl WeightFiles {
    /// Whether the index does not name file `file` for `tensor`.
    pub fn names_another(&self, tensor: &str, file: usize) -> bool {
        self.index.as_ref().is_some_and(|map| map.get(tensor).is_none_or(|&named| named as usize != file))
    }

    /// Tensors that the index names.
    pub fn tensors(&self) -> impl Iterator<Item = &str> {
        self.index.iter().flat_map(|map| map.keys().map(String::as_str))
    }
}

/// The files that hold the weights of a model with at most `most` tensors: those that the index names, or else
/// `model.safetensors`, or else every file of that form.
pub(super) fn weight_files(directory: &Path, most: usize) -> Result<WeightFiles, CheckpointError> {
    let listing = Listing::of(directory).map_err(|source| FileError::Read { file: Quoted::path(directory), source })?;
    if let Some(file) = listing.files.iter().find(|name| is_of_an_adapter(name)) {
        return Err(CheckpointError::Adapter { file: file.into() });
    }
    match folder::read_if_there(directory, INDEX, MAX_INDEX)? {
        Some(index) => indexed(&index, &listing, most),
        None => Ok(WeightFiles { names: unindexed(&listing)?, index: None }),
    }
}

fn is_of_an_adapter(name: &str) -> bool {
    name == "adapter_config.json" || name.starts_with("adapter_model.")
}

fn is_of_another_form(name: &str) -> bool {
    OTHER_FORMS.iter().any(|form| name.ends_with(form))
}

/// What an index says.
fn indexed(index: &[u8], listing: &Listing, most: usize) -> Result<WeightFiles, CheckpointError> {
    let corrupt = |reason: &str| CheckpointError::Corrupt { file: INDEX.into(), reason: reason.into() };
    let mut reading = Reading { files: WeightFiles::default(), most, refused: None };
    let mut reader = serde_json::Deserializer::from_slice(json::without_mark(index));
    let read = IndexSeed(&mut reading).deserialize(&mut reader).and_then(|()| reader.end());
    if let Some(refused) = reading.refused {
        return Err(refused);
    }
    read.map_err(|error| corrupt(&error.to_string()))?;
    let mut files = reading.files;
    if files.index.is_none() {
        return Err(corrupt("it has no weight_map"));
    }
    // A name with a separator could leave the directory.
    if let Some(name) = files.names.iter().find(|name| name.contains(['/', '\\']) || name.starts_with('.')) {
        return Err(corrupt(&format!("{:?} is no file of this directory", Quoted::<64>::from(name).to_string())));
    }
    if let Some(name) = files.names.iter().find(|name| !name.ends_with(EXTENSION)) {
        if is_of_another_form(name) {
            return Err(CheckpointError::NoWeights { found: Some(name.into()) });
        }
        return Err(corrupt(&format!("{:?} is no *{EXTENSION} file", Quoted::<64>::from(name).to_string())));
    }
    files.sort();
    if listing.has(SINGLE) && !files.names.iter().any(|name| name == SINGLE) {
        return Err(corrupt(&format!(
            "it does not name {SINGLE}, which is there too; remove the one that is not in use"
        )));
    }
    match files.names.iter().find(|name| !listing.has(name) && !listing.folders.contains(name)) {
        Some(name) => {
            weights_are_named(listing)?;
            Err(CheckpointError::MissingFile { file: name.into(), named_by: INDEX.into() })
        }
        None => Ok(files),
    }
}

/// Whether every file with weights has a name that is text: one that has not may be what is missing.
fn weights_are_named(listing: &Listing) -> Result<(), CheckpointError> {
    let has_weights = |name: &&PathBuf| {
        let name = name.to_string_lossy();
        name.ends_with(EXTENSION) || is_of_another_form(&name)
    };
    match listing.not_text.iter().find(has_weights) {
        Some(name) => Err(CheckpointError::NotText { file: Quoted::path(name) }),
        None => Ok(()),
    }
}

impl WeightFiles {
    fn sort(&mut self) {
        let mut order: Vec<usize> = (0..self.names.len()).collect();
        order.sort_by(|&a, &b| self.names[a].cmp(&self.names[b]));
        let mut place = vec![0; order.len()];
        for (new, &old) in order.iter().enumerate() {
            place[old] = new as u32;
        }
        self.names.sort();
        for file in self.index.iter_mut().flat_map(BTreeMap::values_mut) {
            *file = place[*file as usize];
        }
    }
}

/// The files with weights of a folder without an index.
fn unindexed(listing: &Listing) -> Result<Vec<String>, CheckpointError> {
    if listing.has(SINGLE) {
        return Ok(vec![SINGLE.to_owned()]);
    }
    weights_are_named(listing)?;
    let weights = listing.files.iter().filter(|name| name.ends_with(EXTENSION));
    // A vendor's own form of the same weights, which some keep beside that of transformers.
    let (own, names): (Vec<_>, Vec<_>) = weights.cloned().partition(|name| name.starts_with("consolidated"));
    if let Some(missing) = missing_part(&names) {
        return Err(missing);
    }
    if !names.is_empty() {
        return Ok(names);
    }
    let found = own.first().or_else(|| listing.files.iter().find(|name| is_of_another_form(name)));
    // The name of a link that leads nowhere, or of what is no file, is told by whoever opens it.
    if found.is_none() && listing.folders.iter().any(|name| name == SINGLE) {
        return Ok(vec![SINGLE.to_owned()]);
    }
    Err(CheckpointError::NoWeights { found: found.map(Quoted::from) })
}

/// The first part that is not there, where names say of how many they are one: `model-00001-of-00003.safetensors`.
fn missing_part(names: &[String]) -> Option<CheckpointError> {
    let there: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    names.iter().find_map(|name| {
        let (start, count) = name.strip_suffix(EXTENSION)?.rsplit_once("-of-")?;
        let (stem, number) = start.rsplit_once('-')?;
        let (width, parts) = (number.len(), count.parse::<u32>().ok()?);
        number.parse::<u32>().ok()?;
        let part = |part: u32| format!("{stem}-{part:0width$}-of-{count}{EXTENSION}");
        // Some count from 0.
        let first = u32::from(!there.contains(part(0).as_str()));
        // Ends at the first that is missing, so a name that claims billions costs nothing.
        let missing = (first..first.saturating_add(parts)).map(part).find(|part| !there.contains(part.as_str()))?;
        Some(CheckpointError::MissingFile { file: missing.into(), named_by: name.into() })
    })
}

/// An index while it is read.
struct Reading {
    files: WeightFiles,
    most: usize,
    refused: Option<CheckpointError>,
}

/// The index's object, of which `weight_map` counts.
struct IndexSeed<'a>(&'a mut Reading);

impl<'de> DeserializeSeed<'de> for IndexSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for IndexSeed<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with weight_map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(key) = entries.next_key::<String>()? {
            if key != "weight_map" {
                entries.next_value::<IgnoredAny>()?;
            } else if self.0.files.index.is_some() {
                return Err(serde::de::Error::custom("weight_map is there twice"));
            } else {
                entries.next_value_seed(MapSeed(self.0))?;
            }
        }
        Ok(())
    }
}

/// The object that names a file for each tensor.
struct MapSeed<'a>(&'a mut Reading);

impl<'de> DeserializeSeed<'de> for MapSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MapSeed<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with the file of each tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let Reading { files, most, refused } = self.0;
        let map = files.index.insert(BTreeMap::new());
        let mut places: BTreeMap<String, u32> = BTreeMap::new();
        while let Some((tensor, name)) = entries.next_entry::<String, String>()? {
            let next = places.len() as u32;
            let place = match places.entry(name) {
                Entry::Occupied(place) => *place.get(),
                Entry::Vacant(vacant) => {
                    files.names.push(vacant.key().clone());
                    *vacant.insert(next)
                }
            };
            if map.len() == *most {
                *refused = Some(CheckpointError::TooMany { file: INDEX.into(), most: *most });
                return Err(serde::de::Error::custom("too many tensors"));
            }
            match map.entry(tensor) {
                Entry::Occupied(entry) => {
                    let message = format!("it names tensor {} twice", Quoted::<64>::from(entry.key()));
                    return Err(serde::de::Error::custom(message));
                }
                Entry::Vacant(vacant) => vacant.insert(place),
            };
        }
        Ok(())
    }
}
