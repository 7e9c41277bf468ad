//! The files of a checkpoint: which there are, and what the head of each says.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use safetensors::tensor::Metadata;

use super::{CheckpointError, Place};

/// A header, a configuration or an index larger than this is none.
const MAX_HEADER: u64 = 100 << 20;
/// Holds every tensor, where there is one file.
pub(super) const SINGLE: &str = "model.safetensors";
/// Says which file holds each tensor, where there are several.
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// A small file, whole.
pub(super) fn read(directory: &Path, name: &str) -> Result<Vec<u8>, CheckpointError> {
    let failed = |source| CheckpointError::Read { file: name.to_owned(), source };
    let (file, length) = open(directory, name).map_err(failed)?;
    if length > MAX_HEADER {
        let reason = format!("{length} bytes are too many for such a file");
        return Err(CheckpointError::Corrupt { file: name.to_owned(), reason });
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, 0).map_err(failed)?;
    Ok(bytes)
}

/// Opens a regular file; a pipe or a device could block or never end. Gives its length too.
fn open(directory: &Path, name: &str) -> std::io::Result<(File, u64)> {
    let path = directory.join(name);
    if !std::fs::metadata(&path)?.is_file() {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    Ok((file, length))
}

/// Which file holds each tensor, if an index says so.
pub(super) enum WeightFiles {
    Single,
    Index(BTreeMap<String, String>),
}

impl WeightFiles {
    pub fn files(&self) -> Vec<String> {
        match self {
            Self::Single => vec![SINGLE.to_owned()],
            Self::Index(map) => {
                let mut files: Vec<String> = map.values().cloned().collect();
                files.sort();
                files.dedup();
                files
            }
        }
    }

    pub fn names_another(&self, tensor: &str, file: &str) -> bool {
        match self {
            Self::Single => false,
            Self::Index(map) => map.get(tensor).is_none_or(|named| named != file),
        }
    }

    pub fn tensors(&self) -> impl Iterator<Item = &str> {
        let map = match self {
            Self::Single => None,
            Self::Index(map) => Some(map),
        };
        map.into_iter().flat_map(|map| map.keys().map(String::as_str))
    }
}

/// The files that hold the weights.
pub(super) fn weight_files(directory: &Path) -> Result<WeightFiles, CheckpointError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    if !directory.join(INDEX).exists() {
        return Ok(WeightFiles::Single);
    }
    let corrupt = |reason: String| CheckpointError::Corrupt { file: INDEX.to_owned(), reason };
    let index: Index = serde_json::from_slice(&read(directory, INDEX)?).map_err(|error| corrupt(error.to_string()))?;
    if directory.join(SINGLE).exists() && !index.weight_map.values().any(|name| name == SINGLE) {
        return Err(corrupt(format!(
            "it does not name {SINGLE}, which is there too; remove the one that is not in use"
        )));
    }
    // A name with a separator could leave the directory.
    if let Some(name) = index.weight_map.values().find(|name| name.contains(['/', '\\']) || name.starts_with('.')) {
        return Err(corrupt(format!("{name:?} is no file of this directory")));
    }
    Ok(WeightFiles::Index(index.weight_map))
}

/// Opens a safetensors file and reads its header. The tensors must fill the file without gaps.
pub(super) fn open_file(directory: &Path, name: &str) -> Result<(File, Vec<(String, Place)>), CheckpointError> {
    let failed = |source| CheckpointError::Read { file: name.to_owned(), source };
    let corrupt = |reason: String| CheckpointError::Corrupt { file: name.to_owned(), reason };
    let (file, length) = open(directory, name).map_err(failed)?;
    if length < 8 {
        return Err(corrupt(format!("{length} bytes are too few for a safetensors file")));
    }
    let mut size = [0; 8];
    file.read_exact_at(&mut size, 0).map_err(failed)?;
    let size = u64::from_le_bytes(size);
    if size > MAX_HEADER || size > length - 8 {
        return Err(corrupt(format!("a header of {size} bytes in a file of {length}")));
    }
    let mut header = vec![0; size as usize];
    file.read_exact_at(&mut header, 8).map_err(failed)?;
    let header: Metadata = serde_json::from_slice(&header).map_err(|error| corrupt(error.to_string()))?;
    let mut infos: Vec<_> = header.tensors().into_iter().collect();
    infos.sort_by_key(|(_, info)| info.data_offsets);
    let (mut end, mut places) = (0_u64, Vec::with_capacity(infos.len()));
    for (tensor, info) in infos {
        let (start, stop) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
        let bits = info.shape.iter().try_fold(info.dtype.bitsize() as u64, |bits, &size| bits.checked_mul(size as u64));
        if start != end || stop < start || bits != (stop - start).checked_mul(8) {
            return Err(corrupt(format!("tensor {tensor} has offsets {start}..{stop} that do not fit its shape")));
        }
        end = stop;
        places.push((tensor, Place { file: 0, start: 8 + size + start, dtype: info.dtype, shape: info.shape.clone() }));
    }
    if end != length - 8 - size {
        return Err(corrupt(format!("tensors of {end} bytes in a file that holds {}", length - 8 - size)));
    }
    Ok((file, places))
}
