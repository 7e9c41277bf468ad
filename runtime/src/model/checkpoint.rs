//! A checkpoint on disk: which tensor lies where, checked against the configuration before any weight is read.
//! Tensors are read when they are asked for, so a rank reads only what it holds. Or there are no weights: they are drawn from a seed.

mod error;
mod files;
mod header;
mod lent;
mod seed;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kernels::backend::PageShape;
use kernels::drawn::Drawn;
use kernels::tensor::WeightKind;
use plan::wire::ModelIdentity;
use rayon::prelude::*;
use safetensors::Dtype;
use sha2::{Digest, Sha256};

pub use self::error::CheckpointError;
use self::files::weight_files;
use self::lent::Lender;
pub(super) use self::lent::Loaded;
pub use self::seed::{UnknownWeights, WeightSeed};
use super::config::Config;
use super::folder::{self, FileError};
use super::sizes::{Sizes, stored_as};
use super::weights::{self, ExpertLayout};

/// Bytes of the largest `config.json` that is read; those with a list of every module have some 100 kB.
const MAX_CONFIG: u64 = 4 << 20;
/// Elements that are read at a time where a tensor is not needed whole.
const PART: usize = 4 << 20;

/// A checkpoint whose every tensor has been found, with the right shape and a supported type, and one reader of it.
#[derive(Debug)]
pub struct Checkpoint {
    found: Arc<Found>,
    read: AtomicU64,
    lender: Lender,
}

/// What was found in the folder, for however many readers.
#[derive(Debug)]
struct Found {
    directory: PathBuf,
    /// What its weights are drawn from, if it has none.
    seed: Option<WeightSeed>,
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

impl Place {
    fn bytes(&self) -> u64 {
        elements(&self.shape) * self.dtype.bitsize() as u64 / 8
    }
}

impl Checkpoint {
    /// Opens a directory with `config.json` and one or several safetensors files, and checks all but the weights.
    ///
    /// # Errors
    /// If a file is missing, truncated or corrupt, the configuration is not supported, or a tensor is missing, too many,
    /// of another shape or of an unsupported type. The error names it.
    pub fn open(directory: &Path) -> Result<Self, CheckpointError> {
        let (config, config_json) = config_of(directory)?;
        let most = config.most_tensors();
        let mut files: Vec<(String, File)> = Vec::new();
        let mut tensors: BTreeMap<String, Place> = BTreeMap::new();
        let index = weight_files(directory, most)?;
        for (file, name) in index.names.iter().enumerate() {
            let (handle, header) = header::open(directory, name, most)?;
            for (tensor, place) in header {
                if let Some(other) = tensors.get(&tensor) {
                    let (first, second) = (files[other.file].0.as_str().into(), name.into());
                    return Err(CheckpointError::Duplicate { tensor: tensor.into(), first, second });
                }
                if index.names_another(&tensor, file) {
                    return Err(CheckpointError::Index { tensor: tensor.into(), file: name.into() });
                }
                tensors.insert(tensor, Place { file, ..place });
            }
            if tensors.len() > most {
                return Err(CheckpointError::TooMany { file: name.into(), most });
            }
            files.push((name.clone(), handle));
        }
        if let Some(tensor) = index.tensors().find(|tensor| !tensors.contains_key(*tensor)) {
            return Err(CheckpointError::Missing { tensor: tensor.into() });
        }
        let (experts, expert_kind) = weights::check(&config, &tensors)?;
        let digest = digest(&config_json, &tensors, None);
        let (directory, seed) = (directory.to_owned(), None);
        let found = Found { directory, seed, config, files, tensors, experts, expert_kind, digest };
        let checkpoint = Self::read_from(Arc::new(found));
        checkpoint.check_tied()?;
        Ok(checkpoint)
    }

    /// The same of a directory of which `config.json` alone is looked at: its weights are drawn, and kept as that says.
    ///
    /// # Errors
    /// If the configuration is missing, corrupt or not supported.
    pub fn drawn(directory: &Path, seed: WeightSeed) -> Result<Self, CheckpointError> {
        let (config, config_json) = config_of(directory)?;
        let dtype = match stored_as(&config_json) {
            WeightKind::Bf16 => Dtype::BF16,
            WeightKind::F32 => Dtype::F32,
        };
        let most = config.most_tensors();
        let mut tensors = BTreeMap::new();
        let mut add = |name: String, shape: &[usize]| {
            // A configuration that claims billions of experts costs nothing.
            if tensors.len() == most {
                return Err(CheckpointError::TooMany { file: "config.json".into(), most });
            }
            tensors.insert(name, Place { file: 0, start: 0, dtype, shape: shape.to_vec() });
            Ok(())
        };
        weights::expect(&config, ExpertLayout::Separate, &mut add)?;
        let (experts, expert_kind) = weights::check(&config, &tensors)?;
        let digest = digest(&config_json, &tensors, Some(seed));
        let (directory, seed, files) = (directory.to_owned(), Some(seed), Vec::new());
        let found = Found { directory, seed, config, files, tensors, experts, expert_kind, digest };
        Ok(Self::read_from(Arc::new(found)))
    }

    /// The checkpoint of a directory, with its weights drawn from the seed if there is one.
    ///
    /// # Errors
    /// See [`Self::open`] and [`Self::drawn`].
    pub fn of(directory: &Path, seed: Option<WeightSeed>) -> Result<Self, CheckpointError> {
        seed.map_or_else(|| Self::open(directory), |seed| Self::drawn(directory, seed))
    }

    /// The same files for another reader, which counts by itself what it reads.
    #[must_use]
    pub fn for_another_reader(&self) -> Self {
        Self::read_from(Arc::clone(&self.found))
    }

    fn read_from(found: Arc<Found>) -> Self {
        Self { found, read: AtomicU64::new(0), lender: Lender::default() }
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.found.directory
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.found.config
    }

    /// How experts are kept in memory.
    #[must_use]
    pub fn expert_kind(&self) -> WeightKind {
        self.found.expert_kind
    }

    pub(super) fn expert_layout(&self) -> ExpertLayout {
        self.found.experts
    }

    /// Which model it is, served as `name`.
    #[must_use]
    pub fn identity(&self, name: &str) -> ModelIdentity {
        ModelIdentity {
            name: name.to_owned(),
            digest: self.found.digest.clone(),
            layers: self.found.config.sparse_layers(),
            experts: self.found.config.experts.count,
        }
    }

    /// Number of weights.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.found.tensors.values().map(|place| elements(&place.shape)).sum()
    }

    /// Bytes of all weights as they are on disk, or would be.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.found.tensors.values().map(Place::bytes).sum()
    }

    /// Bytes of weights that this reader has read from disk, or that were drawn for it.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Bytes of the weights that every rank reads: all but the experts.
    #[must_use]
    pub fn shared_bytes(&self) -> u64 {
        self.shared().map(|(_, place)| place.bytes()).sum()
    }

    /// What its parts take in memory: vectors and what is no bfloat16 are widened to f32, and a tied matrix is there twice, as a
    /// table and as a matrix.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        let config = &self.found.config;
        let is_narrow = |place: &Place| place.dtype == Dtype::BF16 && place.shape.len() > 1;
        let held = |(_, place): (_, &Place)| elements(&place.shape) * if is_narrow(place) { 2 } else { 4 };
        let (tied, of_networks) =
            (self.found.tensors.get_key_value(config.names.embedding), weights::dense_tensors(config));
        let alone = self.shared().filter(|(name, _)| !of_networks.contains(*name));
        let bytes = alone.chain(tied.filter(|_| config.tied_embeddings)).map(held).sum();
        let network = |(names, intermediate): ([String; 3], usize)| {
            let is_bf16 = |name: &String| self.found.tensors.get(name).is_some_and(|place| place.dtype == Dtype::BF16);
            let kind = if names.iter().all(is_bf16) { WeightKind::Bf16 } else { WeightKind::F32 };
            PageShape { hidden: config.hidden, intermediate, kind }
        };
        let dense = weights::dense_networks(config).map(network).collect();
        Sizes { config: config.clone(), expert: weights::expert_shape(self), dense, shared: bytes }
    }

    fn shared(&self) -> impl Iterator<Item = (&String, &Place)> {
        let is_tied = |name: &str| self.found.config.tied_embeddings && name == self.found.config.names.head;
        let is_left = move |name: &str| {
            self.found.config.is_of_an_expert(name) || self.found.config.names.is_derived(name) || is_tied(name)
        };
        self.found.tensors.iter().filter(move |(name, _)| !is_left(name))
    }

    /// Bytes of the weights of one expert.
    #[must_use]
    pub fn expert_bytes(&self) -> u64 {
        let of_experts = self.found.tensors.iter().filter(|(name, _)| self.found.config.is_of_an_expert(name));
        let bytes: u64 = of_experts.map(|(_, place)| place.bytes()).sum();
        bytes / (self.found.config.sparse_layers() * self.found.config.experts.count) as u64
    }

    /// Names of the files with weights.
    pub fn weight_files(&self) -> impl Iterator<Item = &str> {
        self.found.files.iter().map(|(name, _)| name.as_str())
    }

    /// Reads every weight that ranks read, all together, and keeps none. Those that are drawn are what they are.
    ///
    /// # Errors
    /// If a file cannot be read, or a weight is infinite or not a number.
    pub fn check_weights(&self) -> Result<(), CheckpointError> {
        let read = self.found.tensors.iter().filter(|(name, _)| !self.found.config.names.is_derived(name));
        let parts = read.flat_map(|(name, place)| {
            let len = elements(&place.shape) as usize;
            (0..len).step_by(PART).map(move |first| (name.as_str(), first, PART.min(len - first)))
        });
        let parts: Vec<_> = parts.collect();
        let wrong = parts.into_par_iter().find_map_first(|(name, first, len)| self.part(name, first, len).err());
        wrong.map_or(Ok(()), Err)
    }

    /// Gives the memory that weights were read into to the system, once much has been read.
    pub fn forget_memory(&self) {
        self.lender.forget();
    }

    /// Reads a whole tensor.
    pub(super) fn tensor(&self, name: &str) -> Result<Loaded<'_>, CheckpointError> {
        let len = elements(&self.place(name)?.shape);
        self.part(name, 0, len as usize)
    }

    /// Reads `len` elements of a tensor from `first` on.
    pub(super) fn part(&self, name: &str, first: usize, len: usize) -> Result<Loaded<'_>, CheckpointError> {
        let place = self.place(name)?;
        if let Some(seed) = self.found.seed {
            return Ok(self.draw(vec![self.drawn_tensor(seed, name, place).part(first, len)], place.dtype));
        }
        let mut loaded = self.lender.lend(place.dtype, len);
        self.read(place, first, loaded.bytes_mut(0, len))?;
        match loaded.first_not_finite() {
            Some(at) => Err(CheckpointError::NotFinite { tensor: name.into(), element: first + at }),
            None => Ok(Loaded::Read(loaded)),
        }
    }

    /// Reads whole tensors of one type, one after the other; `None` if they are of several.
    pub(super) fn tensors(&self, names: &[String]) -> Result<Option<Loaded<'_>>, CheckpointError> {
        let places = names.iter().map(|name| self.place(name)).collect::<Result<Vec<_>, _>>()?;
        let Some(dtype) = places.first().map(|place| place.dtype) else { return Ok(None) };
        if places.iter().any(|place| place.dtype != dtype) {
            return Ok(None);
        }
        if let Some(seed) = self.found.seed {
            let parts = names.iter().zip(&places).map(|(name, place)| self.drawn_tensor(seed, name, place)).collect();
            return Ok(Some(self.draw(parts, dtype)));
        }
        let len = |place: &Place| elements(&place.shape) as usize;
        let mut loaded = self.lender.lend(dtype, places.iter().map(|place| len(place)).sum());
        let mut end = 0;
        for place in &places {
            self.read(place, 0, loaded.bytes_mut(end, len(place)))?;
            end += len(place);
        }
        let Some(mut at) = loaded.first_not_finite() else { return Ok(Some(Loaded::Read(loaded))) };
        let mut index = 0;
        while at >= len(places[index]) {
            at -= len(places[index]);
            index += 1;
        }
        Err(CheckpointError::NotFinite { tensor: names[index].as_str().into(), element: at })
    }

    /// All values of a tensor. What is multiplied by it stays about as large as it is: each output's weights have 1 as the sum of
    /// their squares. A row that is looked up, and not multiplied by, is as large as what norms give.
    fn drawn_tensor(&self, WeightSeed(seed): WeightSeed, name: &str, place: &Place) -> Drawn {
        let spread = match place.shape[..] {
            [_] if name.rsplit('.').next() == Some("bias") => (0.0, 0.02),
            [_] => (1.0, 0.1),
            _ if name == self.found.config.names.embedding && !self.found.config.tied_embeddings => (0.0, 1.0),
            _ => (0.0, 1.0 / place.shape.last().map_or(1.0, |&columns| columns as f32).sqrt()),
        };
        Drawn::new(seed, name, elements(&place.shape) as usize, spread)
    }

    fn draw(&self, parts: Vec<Drawn>, dtype: Dtype) -> Loaded<'_> {
        let kind = if dtype == Dtype::BF16 { WeightKind::Bf16 } else { WeightKind::F32 };
        let loaded = Loaded::Drawn { kind, parts };
        let bytes = loaded.values().len() * dtype.bitsize() / 8;
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
        loaded
    }

    /// Reads a tensor's elements from `first` on.
    fn read(&self, place: &Place, first: usize, bytes: &mut [u8]) -> Result<(), CheckpointError> {
        let (file_name, file) = &self.found.files[place.file];
        let start = place.start + (first * place.dtype.bitsize() / 8) as u64;
        let failed = |source| FileError::Read { file: file_name.into(), source };
        file.read_exact_at(bytes, start).map_err(failed)?;
        self.read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// The kind that holds all of these tensors exactly.
    pub(super) fn kind_of(&self, names: &[String]) -> Result<WeightKind, CheckpointError> {
        for name in names {
            if self.place(name)?.dtype != Dtype::BF16 {
                return Ok(WeightKind::F32);
            }
        }
        Ok(WeightKind::Bf16)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.found.tensors.contains_key(name)
    }

    fn place(&self, name: &str) -> Result<&Place, CheckpointError> {
        self.found.tensors.get(name).ok_or_else(|| CheckpointError::Missing { tensor: name.into() })
    }

    /// A tied checkpoint may store the output matrix too; then both must be the same.
    fn check_tied(&self) -> Result<(), CheckpointError> {
        if !self.found.config.tied_embeddings || !self.has(self.found.config.names.head) {
            return Ok(());
        }
        let (embedding, head) =
            (self.tensor(self.found.config.names.embedding)?, self.tensor(self.found.config.names.head)?);
        let (embedding, head) = (embedding.values(), head.values());
        let same = (0..embedding.len()).all(|index| embedding.get(index).to_bits() == head.get(index).to_bits());
        if same { Ok(()) } else { Err(CheckpointError::Untied) }
    }
}

/// What the folder's `config.json` says, and its text.
pub(super) fn config_of(directory: &Path) -> Result<(Config, Vec<u8>), CheckpointError> {
    let json =
        folder::read(directory, "config.json", MAX_CONFIG).map_err(|error| folder::explained(error, directory))?;
    Ok((Config::from_json(&json).map_err(CheckpointError::Config)?, json))
}

pub(super) fn elements(shape: &[usize]) -> u64 {
    shape.iter().map(|&size| size as u64).product()
}

/// See [`ModelIdentity::digest`].
fn digest(config: &[u8], tensors: &BTreeMap<String, Place>, seed: Option<WeightSeed>) -> String {
    let mut hash = Sha256::new();
    if let Some(seed) = seed {
        hash.update(format!("{seed}\0"));
    }
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
