//! The head of a safetensors file: which tensor lies where. What it costs to read one is bounded by its own size and by
//! what the model needs, whatever it claims.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use safetensors::Dtype;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::{CheckpointError, Place};
use crate::model::folder::{self, FileError, Foreign};
use crate::quoted::Quoted;

/// Bytes of the largest header that is read; one of 100,000 tensors has 15 MB.
const MAX_HEADER: u64 = 32 << 20;
/// Dimensions of a tensor; a model's have three.
const MOST_DIMENSIONS: usize = 8;
/// Bytes that tell what a file is instead of weights.
const BEGINNING: u64 = 1024;

/// Opens a safetensors file and reads its header, of at most `most` tensors. They must fill the file without gaps.
pub(super) fn open(directory: &Path, name: &str, most: usize) -> Result<(File, Vec<(String, Place)>), CheckpointError> {
    let failed = |source| FileError::Read { file: name.into(), source };
    let corrupt = |reason: &str| CheckpointError::Corrupt { file: name.into(), reason: reason.into() };
    let (file, length) = folder::open(directory, name)?;
    let mut beginning = vec![0; length.min(BEGINNING) as usize];
    file.read_exact_at(&mut beginning, 0).map_err(failed)?;
    let size = beginning.first_chunk().map_or(0, |size| u64::from_le_bytes(*size));
    if beginning.get(8) != Some(&b'{') || size > MAX_HEADER || size > length - 8 {
        return Err(match Foreign::of(&beginning) {
            Some(found) => FileError::Foreign { file: name.into(), found }.into(),
            None => corrupt(&format!(
                "a header of {size} bytes in a file of {length} (at most {MAX_HEADER} are read): download it again"
            )),
        });
    }
    let mut header = vec![0; size as usize];
    file.read_exact_at(&mut header, 8).map_err(failed)?;
    let mut tensors = tensors(&header, name, most)?;
    drop(header);
    tensors.sort_by_key(|(_, info)| info.offsets);
    let mut end = 0;
    for (tensor, info) in &tensors {
        let (start, stop) = info.offsets;
        let tensor = Quoted::<48>::from(tensor);
        if start != end {
            return Err(corrupt(&format!(
                "tensor {tensor} begins at byte {start} of the data, the one before ends at {end}"
            )));
        }
        if stop < start || info.bytes() != Some(stop - start) {
            let Info { shape, .. } = info;
            let shape = Quoted::<32>::new(format!("{shape:?}"));
            return Err(corrupt(&format!("tensor {tensor} of shape {shape} has bytes {start} to {stop} of the data")));
        }
        end = stop;
    }
    let held = length - 8 - size;
    if held != end {
        return Err(corrupt(&format!(
            "it holds {held} bytes of tensors, and its header names {end}: download it again"
        )));
    }
    let place = |info: Info| Place { file: 0, start: 8 + size + info.offsets.0, dtype: info.dtype, shape: info.shape };
    Ok((file, tensors.into_iter().map(|(tensor, info)| (tensor, place(info))).collect()))
}

/// What a header says of a tensor.
struct Info {
    dtype: Dtype,
    shape: Vec<usize>,
    offsets: (u64, u64),
}

impl Info {
    fn bytes(&self) -> Option<u64> {
        let width = self.dtype.bitsize() as u64 / 8;
        self.shape.iter().try_fold(width, |bytes, &size| bytes.checked_mul(size as u64))
    }
}

/// The tensors of a header, in any order.
fn tensors(header: &[u8], file: &str, most: usize) -> Result<Vec<(String, Info)>, CheckpointError> {
    let mut reading = Reading { file, most, tensors: Vec::new(), refused: None };
    let mut reader = serde_json::Deserializer::from_slice(header);
    let read = HeaderSeed(&mut reading).deserialize(&mut reader).and_then(|()| reader.end());
    let Reading { tensors, refused, .. } = reading;
    match (refused, read) {
        (Some(refused), _) => Err(refused),
        (None, Err(error)) => {
            let reason = Quoted::new(format!("its header cannot be read: {error}"));
            Err(CheckpointError::Corrupt { file: file.into(), reason })
        }
        (None, Ok(())) => {
            let mut names: Vec<&str> = tensors.iter().map(|(name, _)| name.as_str()).collect();
            names.sort_unstable();
            if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
                let reason = Quoted::new(format!("its header names tensor {} twice", Quoted::<64>::from(pair[0])));
                return Err(CheckpointError::Corrupt { file: file.into(), reason });
            }
            Ok(tensors)
        }
    }
}

/// A header while it is read.
struct Reading<'a> {
    file: &'a str,
    most: usize,
    tensors: Vec<(String, Info)>,
    refused: Option<CheckpointError>,
}

struct HeaderSeed<'a, 'b>(&'a mut Reading<'b>);

impl<'de> DeserializeSeed<'de> for HeaderSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for HeaderSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with a member for each tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        #[derive(Deserialize)]
        struct Raw<'a> {
            #[serde(borrow)]
            dtype: Cow<'a, str>,
            shape: Vec<u64>,
            data_offsets: (u64, u64),
        }
        let Reading { file, most, tensors, refused } = self.0;
        while let Some(name) = entries.next_key::<String>()? {
            if name == "__metadata__" {
                entries.next_value::<IgnoredAny>()?;
                continue;
            }
            let Raw { dtype, shape, data_offsets: offsets } = entries.next_value()?;
            let found = supported(&dtype);
            *refused = if tensors.len() == *most {
                Some(CheckpointError::TooMany { file: (*file).into(), most: *most })
            } else if found.is_none() {
                Some(CheckpointError::Type { tensor: name.as_str().into(), found: dtype.into() })
            } else {
                None
            };
            let (None, Some(dtype)) = (&refused, found) else { return Err(A::Error::custom("refused")) };
            if shape.len() > MOST_DIMENSIONS {
                let name = Quoted::<48>::from(&name);
                return Err(A::Error::custom(format!("tensor {name} has {} dimensions", shape.len())));
            }
            let shape = shape.into_iter().map(|size| size as usize).collect();
            tensors.push((name, Info { dtype, shape, offsets }));
        }
        Ok(())
    }
}

fn supported(dtype: &str) -> Option<Dtype> {
    match dtype {
        "BF16" => Some(Dtype::BF16),
        "F16" => Some(Dtype::F16),
        "F32" => Some(Dtype::F32),
        _ => None,
    }
}
