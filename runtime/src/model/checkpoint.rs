//! A checkpoint on disk: which tensor lies where, checked against the configuration before any weight is read.
//! Tensors are read when they are asked for, so a rank reads only what it holds.

mod error;
mod files;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use kernels::tensor::{MatrixView, Values, WeightKind};
use plan::wire::ModelIdentity;
use safetensors::Dtype;
use sha2::{Digest, Sha256};

pub use self::error::CheckpointError;
use self::files::{open_file, read, weight_files};
use super::config::Config;
use super::weights::{self, ExpertLayout};

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

#[cfg(test)]
mod tests;
