//! A checkpoint on disk: which tensor lies where, checked against the configuration before any weight is read.
//! Tensors are read when they are asked for, so a rank reads only what it holds.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use kernels::tensor::{MatrixView, Values, WeightKind};
use plan::wire::ModelIdentity;
use safetensors::{Dtype, tensor::Metadata};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::config::{Config, ConfigError};
use super::weights::{self, ExpertLayout};

/// A header, a configuration or an index larger than this is none.
const MAX_HEADER: u64 = 100 << 20;
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A checkpoint whose every tensor has been found, with the right shape and a supported type.
#[derive(Debug)]
pub struct Checkpoint {
    directory: PathBuf,
    config: Config,
    files: Vec<(String, File)>,
    tensors: BTreeMap<String, Place>,
    experts: ExpertLayout,
    expert_kind: WeightKind,
    digest: String,
}

/// Where a tensor lies.
#[derive(Debug)]
pub(super) struct Place {
    file: usize,
    start: u64,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
}

/// Weights read from disk.
#[derive(Debug)]
pub(super) enum Loaded {
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
    F32(Vec<f32>),
}

impl Loaded {
    pub(super) fn values(&self) -> Values<'_> {
        match self {
            Self::Bf16(values) => Values::Bf16(values),
            Self::F16(values) => Values::F16(values),
            Self::F32(values) => Values::F32(values),
        }
    }

    fn first_not_finite(&self) -> Option<usize> {
        match self {
            Self::Bf16(values) => values.iter().position(|value| !value.is_finite()),
            Self::F16(values) => values.iter().position(|value| !value.is_finite()),
            Self::F32(values) => values.iter().position(|value| !value.is_finite()),
        }
    }

    pub(super) fn matrix(&self, rows: usize) -> MatrixView<'_> {
        let values = self.values();
        MatrixView::new(rows, values.len() / rows, values)
    }
}

impl Checkpoint {
    /// Opens a directory with `config.json` and one or several safetensors files, and checks all but the weights.
    ///
    /// # Errors
    /// If a file is missing, truncated or corrupt, the configuration is not supported, or a tensor is missing, too many,
    /// of another shape or of an unsupported type. The error names it.
    pub fn open(directory: &Path) -> Result<Self, CheckpointError> {
        let config_json = read(directory, "config.json")?;
        let config = Config::from_json(&config_json).map_err(CheckpointError::Config)?;
        let mut files = Vec::new();
        let mut tensors = BTreeMap::new();
        let index = weight_files(directory)?;
        for name in index.files() {
            let file = files.len();
            let (handle, header) = open_file(directory, &name)?;
            for (tensor, place) in header {
                if index.names_another(&tensor, &name) {
                    return Err(CheckpointError::Index { tensor, file: name });
                }
                if tensors.insert(tensor.clone(), Place { file, ..place }).is_some() {
                    return Err(CheckpointError::Duplicate { tensor });
                }
            }
            files.push((name, handle));
        }
        if let Some(tensor) = index.tensors().find(|tensor| !tensors.contains_key(*tensor)) {
            return Err(CheckpointError::Missing { tensor: tensor.to_owned() });
        }
        let (experts, expert_kind) = weights::check(&config, &tensors)?;
        let digest = digest(&config_json, &tensors);
        let checkpoint = Self { directory: directory.to_owned(), config, files, tensors, experts, expert_kind, digest };
        checkpoint.check_tied()?;
        Ok(checkpoint)
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// How experts are kept in memory.
    #[must_use]
    pub const fn expert_kind(&self) -> WeightKind {
        self.expert_kind
    }

    pub(super) const fn expert_layout(&self) -> ExpertLayout {
        self.experts
    }

    /// Which model it is, served as `name`.
    #[must_use]
    pub fn identity(&self, name: &str) -> ModelIdentity {
        ModelIdentity {
            name: name.to_owned(),
            digest: self.digest.clone(),
            layers: self.config.sparse_layers(),
            experts: self.config.experts,
        }
    }

    /// Number of weights.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.tensors.values().map(|place| elements(&place.shape)).sum()
    }

    /// Bytes of all weights on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.tensors.values().map(|place| elements(&place.shape) * place.dtype.bitsize() as u64 / 8).sum()
    }

    /// Reads a whole tensor.
    pub(super) fn tensor(&self, name: &str) -> Result<Loaded, CheckpointError> {
        let len = elements(&self.place(name)?.shape);
        self.part(name, 0, len as usize)
    }

    /// Reads `len` elements of a tensor from `first` on.
    pub(super) fn part(&self, name: &str, first: usize, len: usize) -> Result<Loaded, CheckpointError> {
        let place = self.place(name)?;
        let (file_name, file) = &self.files[place.file];
        let width = place.dtype.bitsize() / 8;
        let start = place.start + (first * width) as u64;
        let read = |bytes: &mut [u8]| {
            file.read_exact_at(bytes, start).map_err(|source| CheckpointError::Read { file: file_name.clone(), source })
        };
        let loaded = match place.dtype {
            Dtype::BF16 => {
                let mut values = vec![bf16::ZERO; len];
                read(bytemuck::cast_slice_mut(&mut values))?;
                Loaded::Bf16(values)
            }
            Dtype::F16 => {
                let mut values = vec![f16::ZERO; len];
                read(bytemuck::cast_slice_mut(&mut values))?;
                Loaded::F16(values)
            }
            _ => {
                let mut values = vec![0.0_f32; len];
                read(bytemuck::cast_slice_mut(&mut values))?;
                Loaded::F32(values)
            }
        };
        match loaded.first_not_finite() {
            Some(at) => Err(CheckpointError::NotFinite { tensor: name.to_owned(), element: first + at }),
            None => Ok(loaded),
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn place(&self, name: &str) -> Result<&Place, CheckpointError> {
        self.tensors.get(name).ok_or_else(|| CheckpointError::Missing { tensor: name.to_owned() })
    }

    /// A tied checkpoint may store the output matrix too; then both must be the same.
    fn check_tied(&self) -> Result<(), CheckpointError> {
        if !self.config.tied_embeddings || !self.has(weights::HEAD) {
            return Ok(());
        }
        let (embedding, head) = (self.tensor(weights::EMBEDDING)?, self.tensor(weights::HEAD)?);
        let (embedding, head) = (embedding.values(), head.values());
        let same = (0..embedding.len()).all(|index| embedding.get(index).to_bits() == head.get(index).to_bits());
        if same { Ok(()) } else { Err(CheckpointError::Untied) }
    }
}

pub(super) fn elements(shape: &[usize]) -> u64 {
    shape.iter().map(|&size| size as u64).product()
}

fn read(directory: &Path, name: &str) -> Result<Vec<u8>, CheckpointError> {
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
enum WeightFiles {
    Single,
    Index(BTreeMap<String, String>),
}

impl WeightFiles {
    fn files(&self) -> Vec<String> {
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

    fn names_another(&self, tensor: &str, file: &str) -> bool {
        match self {
            Self::Single => false,
            Self::Index(map) => map.get(tensor).is_none_or(|named| named != file),
        }
    }

    fn tensors(&self) -> impl Iterator<Item = &str> {
        let map = match self {
            Self::Single => None,
            Self::Index(map) => Some(map),
        };
        map.into_iter().flat_map(|map| map.keys().map(String::as_str))
    }
}

fn weight_files(directory: &Path) -> Result<WeightFiles, CheckpointError> {
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
fn open_file(directory: &Path, name: &str) -> Result<(File, Vec<(String, Place)>), CheckpointError> {
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

/// See [`ModelIdentity::digest`].
fn digest(config: &[u8], tensors: &BTreeMap<String, Place>) -> String {
    let mut hash = Sha256::new();
    hash.update((config.len() as u64).to_le_bytes());
    hash.update(config);
    for (name, place) in tensors {
        let Place { file, start, dtype, shape } = place;
        hash.update(format!("{name}\0{dtype:?}\0{shape:?}\0{file}\0{start}\n"));
    }
    format!("{:x}", hash.finalize())
}

/// Why a checkpoint is refused. Only [`CheckpointError::Read`] can be worth a retry.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// A file cannot be read.
    #[error("failed to read {file} of the checkpoint")]
    Read {
        /// The file.
        file: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is truncated or not what it claims to be.
    #[error("{file} is corrupt or truncated: {reason}")]
    Corrupt {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// The configuration is refused.
    #[error("the model's config.json is refused: {0}")]
    Config(ConfigError),
    /// A tensor is missing.
    #[error("tensor {tensor} is missing: no weight file has it, and config.json or the index asks for it")]
    Missing {
        /// Its name.
        tensor: String,
    },
    /// A tensor is not part of the model.
    #[error("tensor {tensor} is not part of this model; ignoring it could give wrong answers")]
    Extra {
        /// Its name.
        tensor: String,
    },
    /// A tensor is in two files.
    #[error("tensor {tensor} is in two files")]
    Duplicate {
        /// Its name.
        tensor: String,
    },
    /// A file and the index disagree.
    #[error("{INDEX} does not name {file} for tensor {tensor}")]
    Index {
        /// The tensor.
        tensor: String,
        /// The file it was found in.
        file: String,
    },
    /// A tensor has the wrong shape.
    #[error(
        "tensor {tensor} has shape {found:?}, but config.json (with transformers' values of the keys that it lacks) \
         asks for {expected:?}"
    )]
    Shape {
        /// Its name.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that the configuration gives.
        expected: Vec<usize>,
    },
    /// A tensor has a type that is not supported.
    #[error("tensor {tensor} has type {found}, only BF16, F16 and F32 are supported")]
    Type {
        /// Its name.
        tensor: String,
        /// Its type.
        found: String,
    },
    /// A weight is no number, so no output would be.
    #[error("tensor {tensor} has a weight that is infinite or not a number, element {element}")]
    NotFinite {
        /// Its name.
        tensor: String,
        /// Which element, in row-major order.
        element: usize,
    },
    /// The output matrix is stored, differs from the embedding, and is said to be tied to it.
    #[error("tie_word_embeddings is true, but lm_head.weight differs from model.embed_tokens.weight")]
    Untied,
}

#[cfg(test)]
mod tests;
