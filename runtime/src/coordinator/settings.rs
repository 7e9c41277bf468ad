//! What a coordinator is told, and what it makes of it: everything that can be wrong with a setting, the checkpoint or
//! the map is found here, before a socket is opened or a rank is asked for anything.

mod error;
mod minimum_gain;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kernels::backend::PageShape;
use kernels::tensor::WeightKind;
use plan::balance::Policy;
use plan::coverage::Coverage;
use plan::formats::{self, Found};
use plan::map::{ExpertMap, MapShape};
use plan::moves::usual_staging_pages;
use plan::policy::Terms;
use plan::wire::ModelIdentity;
use plan::wire::keys::LEAST_BYTES;

pub use self::error::SettingsError;
pub use self::minimum_gain::{MinimumGain, NoGain};
use crate::bounds;
use crate::experts::planner::Planner;
use crate::experts::rebalance::{self, Rebalancer};
use crate::experts::record;
use crate::fabric::secret::Secret;
use crate::memory::RankPart;
use crate::model::checkpoint::{Checkpoint, WeightSeed};
use crate::model::folder;
use crate::model::forward::expert_shape;
use crate::quoted::Quoted;
use crate::scheduler::Limits;
use crate::server::{AdminAccess, Keys, ModelLimits, ServedModel};

/// What a coordinator is told.
#[derive(Clone, Debug)]
pub struct CoordinatorSettings {
    /// Folder of the checkpoint.
    pub model: PathBuf,
    /// What its weights are drawn from instead of being read.
    pub weights: Option<WeightSeed>,
    /// Name in requests; the folder's name if there is none.
    pub served_name: Option<String>,
    /// Ranks of the group.
    pub ranks: usize,
    /// Where the OpenAI API is served.
    pub listen: SocketAddr,
    /// Where the admin API is served.
    pub admin_listen: SocketAddr,
    /// Where ranks register.
    pub control_listen: SocketAddr,
    /// What ranks prove by that they belong to the deployment, and have the coordinator prove.
    pub secret: Secret,
    /// Whether a plan is made after each window of load.
    pub dynamic: bool,
    /// Steps of a window.
    pub window_steps: u64,
    /// Steps after the start, and after a window has closed, before a plan is applied.
    pub wait_steps: u64,
    /// How long a rank may take to receive the pages of one transaction.
    pub move_deadline: Duration,
    /// Pages that each rank can receive before they are in use; as many as its part of the map suggests if there is none.
    pub staging_pages: Option<u32>,
    /// How a target map is found.
    pub policy: Policy,
    /// Least gain in balance ratio for which experts move.
    pub minimum_gain: MinimumGain,
    /// Bytes per second that moves to one rank may use; 0 is no limit. What suits its device if there is none.
    pub move_bytes_per_second: Option<u64>,
    /// Bytes that one rebalance may move; 0 is no limit.
    pub rebalance_bytes: u64,
    /// Windows after one that moved pages in which none move.
    pub cool_down_windows: u64,
    /// What may be lost with every expert still present, where that is possible.
    pub min_coverage: Coverage,
    /// Physical experts of each layer beyond one copy of each; those of the given map if there is none.
    pub redundancy: Option<usize>,
    /// A map to start from.
    pub map_path: Option<PathBuf>,
    /// Where recorded maps are written.
    pub record_path: Option<PathBuf>,
    /// Experts per layer that the model must have.
    pub expect_experts: Option<usize>,
    /// Bounds of the scheduler.
    pub limits: Limits,
    /// Tokens of prompt and answer together; the model's own bound if there is none.
    pub max_model_len: Option<usize>,
    /// Bytes of a request's body; what the context can hold if there is none.
    pub body_limit: Option<usize>,
    /// The file with the token of the admin API; without one, whoever reaches the admin port over loopback may use it.
    pub admin_token_path: Option<PathBuf>,
    /// The file with the keys of the public API; without one, whoever reaches it may use it.
    pub api_keys_path: Option<PathBuf>,
    /// A rank that has not answered a step for so long is lost.
    pub step_deadline: Duration,
    /// How long it serves on after it was told to stop, so that whoever sends it requests can turn to another.
    pub leave: Duration,
    /// How long requests may go on after that.
    pub grace: Duration,
}

/// What the settings come to.
pub struct Prepared {
    /// The model.
    pub identity: ModelIdentity,
    /// The same as requests see it.
    pub served: ServedModel,
    /// Who may use the admin API.
    pub admin: AdminAccess,
    /// Who may use the public one, if not everybody.
    pub api_keys: Option<Arc<Keys>>,
    /// With the map to start with.
    pub rebalancer: Rebalancer,
    /// How plans are made.
    pub planner: Planner,
    /// What a rank needs memory for.
    pub rank: RankNeeds,
    /// Tokens that the model has.
    pub vocabulary: usize,
    /// Experts that it sends each token to in each MoE layer.
    pub top_k: usize,
    /// Whether the map was given.
    pub static_map: bool,
    /// The file that recorded maps are written to, if they are.
    pub recorded_at: Option<PathBuf>,
}

/// What a rank needs memory for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RankNeeds {
    /// Its part in the group.
    pub part: RankPart,
    /// Tokens of all the sequences that it may have at a time.
    pub kv_tokens: u64,
}

impl CoordinatorSettings {
    /// Checks everything, in the order in which it can be wrong: the settings alone, the checkpoint, the map. `now` is
    /// the Unix time in seconds.
    ///
    /// # Errors
    /// If anything is wrong.
    pub fn prepare(&self, now: i64) -> Result<Prepared, SettingsError> {
        self.check_alone()?;
        let recorded_at = self.recorded_at()?;
        let checkpoint = open_checkpoint(&self.model, self.weights)?;
        let name = self.served_name.clone().unwrap_or_else(|| folder_name(&self.model));
        let identity = checkpoint.identity(&name);
        let config = checkpoint.config();
        let limits = ModelLimits {
            max_model_len: self.max_model_len(config.max_positions)?,
            vocab_size: config.vocabulary,
            has_texts: self.weights.is_none(),
        };
        if let Some(expected) = self.expect_experts
            && expected != identity.experts
        {
            return Err(SettingsError::Experts { found: identity.experts, expected });
        }
        let map = self.map(&identity)?;
        let served = load_texts(&self.model, name, &limits, now)?;
        let shape = map.shape();
        let (slots, usual) = (shape.slots_per_rank, usual_staging_pages(shape.pages_per_rank()));
        let staging_pages = self.staging_pages.unwrap_or(usual);
        let kv_tokens = (self.limits.running_per_rank as u64).saturating_mul(limits.max_model_len as u64);
        // Of its threads, each rank knows itself.
        let step_tokens = self.limits.step_tokens;
        let part = RankPart { ranks: self.ranks, slots, staging_pages, step_tokens, threads: 1, has_nccl: false };
        let rank = RankNeeds { part, kv_tokens };
        let planner = Planner {
            policy: self.policy,
            staging_pages,
            min_coverage: self.min_coverage,
            terms: Terms {
                minimum_gain: self.minimum_gain.0,
                bytes_per_second: self.move_bytes_per_second.and_then(limit).map(|bytes| bytes as f64),
                byte_budget: limit(self.rebalance_bytes),
                cool_down: self.cool_down_windows,
                ..Terms::usual(page_bytes(&checkpoint), 0.0)
            },
        };
        let &Self { dynamic, window_steps, wait_steps, move_deadline: deadline, .. } = self;
        let rebalance = rebalance::Settings { dynamic, window_steps, wait_steps, staging_pages, deadline };
        let rebalancer = Rebalancer::new(rebalance, identity.clone(), map, 0)?;
        let (admin, api_keys) = (self.admin_access()?, self.api_keys()?);
        let (vocabulary, top_k, static_map) = (config.vocabulary, config.router.top_k, self.map_path.is_some());
        Ok(Prepared {
            identity,
            served,
            admin,
            api_keys,
            rebalancer,
            planner,
            rank,
            vocabulary,
            top_k,
            static_map,
            recorded_at,
        })
    }

    fn check_alone(&self) -> Result<(), SettingsError> {
        let Limits { queued, running_per_rank, step_tokens } = self.limits;
        for (bounds, found) in [
            (bounds::RANKS, self.ranks),
            (bounds::QUEUED, queued),
            (bounds::RUNNING, running_per_rank),
            (bounds::STEP_TOKENS, step_tokens),
            (bounds::BODY, self.body_limit.unwrap_or(1)),
            (bounds::MODEL_LEN, self.max_model_len.unwrap_or(1)),
            (bounds::REDUNDANCY, self.redundancy.unwrap_or(0)),
            (bounds::EXPERTS, self.expect_experts.unwrap_or(1)),
            (bounds::COVERAGE, self.min_coverage.ranks),
            (bounds::NODE_COVERAGE, self.min_coverage.nodes),
        ] {
            bounds.check(found as u64)?;
        }
        bounds::MOVE_BYTES.check(self.move_bytes_per_second.unwrap_or(0))?;
        bounds::REBALANCE_BYTES.check(self.rebalance_bytes)?;
        bounds::COOL_DOWN.check(self.cool_down_windows)?;
        bounds::STEP_DEADLINE.check(self.step_deadline.as_secs())?;
        bounds::LEAVE.check(self.leave.as_secs())?;
        bounds::GRACE.check(self.grace.as_secs())?;
        if step_tokens < running_per_rank {
            return Err(SettingsError::StepTooSmall { tokens: step_tokens, sequences: running_per_rank });
        }
        bounds::STAGING.check(self.staging_pages.unwrap_or(1).into())?;
        bounds::WINDOW.check(self.window_steps)?;
        bounds::WAIT.check(self.wait_steps)?;
        bounds::MOVE_DEADLINE.check(self.move_deadline.as_secs())?;
        Ok(())
    }

    /// The file that recorded maps are written to.
    fn recorded_at(&self) -> Result<Option<PathBuf>, SettingsError> {
        let refused = |path: &Path, reason| SettingsError::RecordPath { path: Quoted::path(path), reason };
        let path = self.record_path.as_deref();
        path.map(|path| record::check(path).map_err(|reason| refused(path, reason))).transpose()
    }

    fn admin_access(&self) -> Result<AdminAccess, SettingsError> {
        match &self.admin_token_path {
            Some(path) => Ok(AdminAccess::Token(Arc::new(Keys::load(path, LEAST_BYTES)?))),
            None if self.admin_listen.ip().is_loopback() => Ok(AdminAccess::Loopback),
            None => Err(SettingsError::OpenAdmin { address: self.admin_listen }),
        }
    }

    fn api_keys(&self) -> Result<Option<Arc<Keys>>, SettingsError> {
        let load = |path: &PathBuf| Keys::load(path, 1).map(Arc::new);
        Ok(self.api_keys_path.as_ref().map(load).transpose()?)
    }

    fn max_model_len(&self, most: usize) -> Result<usize, SettingsError> {
        match self.max_model_len {
            Some(asked) if asked > most => Err(SettingsError::TooLong { asked, most }),
            asked => Ok(asked.unwrap_or(most)),
        }
    }

    /// The given map, or the placement that engines start with.
    fn map(&self, identity: &ModelIdentity) -> Result<ExpertMap, SettingsError> {
        let shape = |redundancy| MapShape::with_redundancy(identity.layers, identity.experts, self.ranks, redundancy);
        let Some(path) = &self.map_path else {
            return Ok(ExpertMap::contiguous(shape(self.redundancy.unwrap_or(0))?)?);
        };
        let text = folder::read_of_at_most(path, folder::LARGEST_TEXT)
            .map_err(|source| SettingsError::ReadMap { path: Quoted::path(path), source })?;
        let found = formats::read(&text, identity, self.ranks);
        let Found { map, second_copies, .. } =
            found.map_err(|source| SettingsError::Map { path: Quoted::path(path), source })?;
        if !second_copies.is_empty() {
            tracing::warn!(
                path = %path.display(),
                slots = second_copies.len(),
                "the expert map has slots whose expert their rank holds already; they hold others without tokens now, and \
                 'kubectl moe map convert --repair' makes a map that uses them"
            );
        }
        if map.slots_of_ranks().per_rank().is_none() {
            return Err(SettingsError::UnequalRanks { path: Quoted::path(path) });
        }
        let found = map.shape();
        let slots = self.redundancy.map(shape).transpose()?.map_or(found.slots_per_rank, |shape| shape.slots_per_rank);
        if (found.ranks, found.slots_per_rank) != (self.ranks, slots) {
            return Err(SettingsError::MapShape {
                path: Quoted::path(path),
                found_ranks: found.ranks,
                found_slots: found.slots_per_rank,
                ranks: self.ranks,
                slots,
            });
        }
        Ok(map)
    }
}

/// The checkpoint in `folder`, all but its weights and texts checked; or its configuration alone, with weights that are drawn.
pub(crate) fn open_checkpoint(folder: &Path, seed: Option<WeightSeed>) -> Result<Checkpoint, SettingsError> {
    Checkpoint::of(folder, seed).map_err(|source| SettingsError::Checkpoint { path: Quoted::path(folder), source })
}

/// The texts of the checkpoint in `folder`.
pub(crate) fn load_texts(
    folder: &Path,
    name: String,
    limits: &ModelLimits,
    now: i64,
) -> Result<ServedModel, SettingsError> {
    ServedModel::load(folder, name, limits, now)
        .map_err(|source| SettingsError::Served { path: Quoted::path(folder), source })
}

fn limit(bytes: u64) -> Option<u64> {
    (bytes > 0).then_some(bytes)
}

/// The name that a model has where none is given.
pub(crate) fn folder_name(path: &Path) -> String {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    whole.file_name().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Bytes of one expert's three matrices.
fn page_bytes(checkpoint: &Checkpoint) -> u64 {
    let PageShape { hidden, intermediate, kind } = expert_shape(checkpoint);
    let weight = match kind {
        WeightKind::Bf16 => 2,
        WeightKind::F32 => 4,
    };
    (3 * hidden * intermediate * weight) as u64
}
