//! The versioned JSON that the coordinator's admin API, the operator and the kubectl plugin exchange, and that expert
//! maps are stored as. An unknown version or field is an error, never ignored.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::ids::ExpertId;
use crate::load::ExpertLoad;
use crate::map::{ExpertMap, MapError, MapShape};

/// `version` of every document this build writes and the only one it reads.
pub const VERSION: &str = "swiftbalancer.io/v1";

/// Paths of the coordinator's admin API.
pub mod path {
    /// `GET`: [`super::State`].
    pub const STATE: &str = "/admin/v1/state";
    /// `GET`: the map in force; `POST` a [`super::MapDocument`]: move to it. Both [`super::MapDocument`].
    pub const MAP: &str = "/admin/v1/map";
    /// `GET`: the last recorded map, [`super::RecordedMap`]; 404 before the first.
    pub const RECORDED_MAP: &str = "/admin/v1/map/recorded";
    /// `GET`: load of the last closed window, [`super::LoadDocument`]; 404 before the first.
    pub const LOAD: &str = "/admin/v1/load";
    /// `POST`: close the window now and plan, whatever its length.
    pub const REBALANCE: &str = "/admin/v1/rebalance";
}

/// Which model a map or load belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ModelIdentity {
    /// The name it is served under.
    pub name: String,
    /// Hex SHA-256 of the checkpoint's `config.json` and of its tensors' names, types, shapes and offsets: two
    /// checkpoints with equal digests have the same experts in the same places.
    pub digest: String,
    /// MoE layers.
    pub layers: usize,
    /// Logical experts per layer.
    pub experts: usize,
}

impl ModelIdentity {
    /// Whether both have the same experts in the same places, whatever they are served as.
    fn check_same(&self, expected: &Self) -> Result<(), WireError> {
        let Self { name: _, digest, layers, experts } = self;
        if (digest, layers, experts) == (&expected.digest, &expected.layers, &expected.experts) {
            return Ok(());
        }
        Err(WireError::OtherModel { found: self.clone().into(), expected: expected.clone().into() })
    }
}

/// An expert map on the wire and on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct MapDocument {
    /// [`VERSION`].
    pub version: String,
    /// The model it was made for.
    pub model: ModelIdentity,
    /// Ranks of the expert-parallel group.
    pub ranks: usize,
    /// Slots of each rank and layer.
    pub slots_per_rank: usize,
    /// `[layers][ranks][slots_per_rank]` logical experts.
    pub placement: Vec<Vec<Vec<u32>>>,
}

impl MapDocument {
    /// The document of a map.
    #[must_use]
    pub fn new(model: ModelIdentity, map: &ExpertMap) -> Self {
        let shape = map.shape();
        let placement = map
            .layers()
            .map(|layer| {
                (0..shape.ranks)
                    .map(|rank| map.rank(layer, rank.into()).iter().map(|expert| expert.0).collect())
                    .collect()
            })
            .collect();
        Self { version: VERSION.to_owned(), model, ranks: shape.ranks, slots_per_rank: shape.slots_per_rank, placement }
    }

    /// Reads a document; checks its version first, so that a newer one is named as such.
    ///
    /// # Errors
    /// If it is no JSON, of another version, or has unknown or missing fields.
    pub fn from_json(json: &[u8]) -> Result<Self, WireError> {
        read(json)
    }

    /// The map, checked against the model that is to be served with it.
    ///
    /// # Errors
    /// If it is of another version or model, or is no valid map.
    pub fn to_map(&self, model: &ModelIdentity) -> Result<ExpertMap, WireError> {
        check_version(Some(&self.version))?;
        self.model.check_same(model)?;
        let shape = MapShape {
            layers: model.layers,
            experts: model.experts,
            ranks: self.ranks,
            slots_per_rank: self.slots_per_rank,
        };
        shape.check()?;
        if self.placement.len() != shape.layers {
            return Err(WireError::Layers { found: self.placement.len(), expected: shape.layers });
        }
        let mut slots = Vec::with_capacity(shape.layers * shape.physical());
        for (layer, ranks) in self.placement.iter().enumerate() {
            if ranks.len() != shape.ranks {
                return Err(WireError::Ranks { layer, found: ranks.len(), expected: shape.ranks });
            }
            for (rank, experts) in ranks.iter().enumerate() {
                if experts.len() != shape.slots_per_rank {
                    let (found, expected) = (experts.len(), shape.slots_per_rank);
                    return Err(WireError::Slots { layer, rank, found, expected });
                }
                slots.extend(experts.iter().map(|&expert| ExpertId(expert)));
            }
        }
        Ok(ExpertMap::new(shape, slots)?)
    }

    /// Hex SHA-256 of the canonical JSON: the name under which a map is stored. Equal placements of one model have
    /// equal hashes.
    #[must_use]
    pub fn content_hash(&self) -> String {
        let canonical = serde_json::to_vec(self).expect("a map document is plain data");
        hex(&Sha256::digest(canonical))
    }
}

/// Where a recorded map comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Provenance {
    /// Number of the window whose load the map was planned from; counts from 1.
    pub window: u64,
    /// Steps in that window.
    pub window_steps: u64,
    /// (token, expert) pairs counted in it, over all layers.
    pub window_pairs: u64,
    /// Epoch of the map in the deployment that recorded it.
    pub epoch: u64,
    /// Balance ratio that the map gives the window's load.
    pub ratio: f64,
}

/// A map that is worth starting from, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RecordedMap {
    /// The map.
    pub map: MapDocument,
    /// Where it comes from.
    pub provenance: Provenance,
}

impl RecordedMap {
    /// Reads a document, the version of its map first.
    ///
    /// # Errors
    /// As [`MapDocument::from_json`].
    pub fn from_json(json: &[u8]) -> Result<Self, WireError> {
        #[derive(Deserialize)]
        struct Head {
            map: Version,
        }
        let head: Head = parse(json)?;
        check_version(head.map.version.as_deref())?;
        parse(json)
    }
}

/// Load of one window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LoadDocument {
    /// [`VERSION`].
    pub version: String,
    /// The model it was counted on.
    pub model: ModelIdentity,
    /// Number of the window, from 1.
    pub window: u64,
    /// Steps in it.
    pub steps: u64,
    /// (token, expert) pairs, `[layers][experts]`.
    pub counts: Vec<Vec<u64>>,
}

impl LoadDocument {
    /// The document of a window's load.
    #[must_use]
    pub fn new(model: ModelIdentity, window: u64, steps: u64, load: &ExpertLoad) -> Self {
        let counts = (0..load.layers()).map(|layer| load.layer(layer.into()).to_vec()).collect();
        Self { version: VERSION.to_owned(), model, window, steps, counts }
    }

    /// Reads a document, its version first.
    ///
    /// # Errors
    /// As [`MapDocument::from_json`].
    pub fn from_json(json: &[u8]) -> Result<Self, WireError> {
        read(json)
    }

    /// The load, checked against the model that it is to be used for.
    ///
    /// # Errors
    /// If it is of another version or model, or its counts have other dimensions than the model.
    pub fn to_load(&self, model: &ModelIdentity) -> Result<ExpertLoad, WireError> {
        check_version(Some(&self.version))?;
        self.model.check_same(model)?;
        if self.counts.len() != model.layers {
            return Err(WireError::Layers { found: self.counts.len(), expected: model.layers });
        }
        if let Some(layer) = self.counts.iter().position(|counts| counts.len() != model.experts) {
            return Err(WireError::Experts { layer, found: self.counts[layer].len(), expected: model.experts });
        }
        Ok(ExpertLoad::from_rows(&self.counts).unwrap_or_else(|| ExpertLoad::zero(model.layers, model.experts)))
    }
}

/// What the rebalancer is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// `dynamic_eplb` is off: load is counted, nothing moves unless it is asked for.
    Off,
    /// Load of the current window is being counted.
    Collecting,
    /// A window has closed; a plan is being made or waits for `num_wait_worker_iterations`.
    Planning,
    /// Transactions are being staged and committed.
    Moving,
}

/// One closed window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct WindowReport {
    /// Its number, from 1.
    pub number: u64,
    /// Steps in it.
    pub steps: u64,
    /// (token, expert) pairs counted in it, over all layers.
    pub pairs: u64,
    /// Measured `expert_load_balance_ratio` of the window: each rank's own count of tokens it computed.
    pub ratio: f64,
    /// The same per layer, `[layers]`.
    pub ratio_per_layer: Vec<f64>,
}

/// Totals since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct MoveTotals {
    /// Rebalances whose every transaction was committed.
    pub rebalances: u64,
    /// Rebalances that were decided against, for lack of gain.
    pub skipped: u64,
    /// Transactions committed.
    pub committed: u64,
    /// Transactions aborted.
    pub aborted: u64,
    /// Pages received by ranks.
    pub experts_moved: u64,
    /// Bytes of those pages.
    pub bytes_moved: u64,
}

/// What the coordinator knows of one rank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RankState {
    /// Its number.
    pub rank: u32,
    /// Whether it is connected and part of the group.
    pub connected: bool,
    /// Host and port of its move path; empty while it is not connected.
    pub address: String,
}

/// `GET` [`path::STATE`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct State {
    /// [`VERSION`].
    pub version: String,
    /// The model that is served.
    pub model: ModelIdentity,
    /// Whether requests are served: every rank is part of the group.
    pub ready: bool,
    /// Number of the group: rises each time that ranks are lost and the group is formed again.
    pub generation: u64,
    /// Every rank, in order.
    pub ranks: Vec<RankState>,
    /// Epoch of the map in force.
    pub epoch: u64,
    /// Content hash of the map in force.
    pub map_hash: String,
    /// Whether the serving started from a given map.
    pub static_map: bool,
    /// Steps run.
    pub steps: u64,
    /// What the rebalancer does.
    pub phase: Phase,
    /// Steps of the current window so far.
    pub window_steps: u64,
    /// The last closed window.
    pub last_window: Option<WindowReport>,
    /// The first window of this serving, kept: it tells what a static map was worth.
    pub first_window: Option<WindowReport>,
    /// Transactions planned and not yet committed or aborted.
    pub pending_transactions: u64,
    /// Totals since the start.
    pub moves: MoveTotals,
    /// Content hash of the last recorded map, if there is one.
    pub recorded_map_hash: Option<String>,
    /// Why the rebalancer cannot do its work, if so.
    pub degraded: Option<String>,
}

impl State {
    /// Reads a document, its version first.
    ///
    /// # Errors
    /// As [`MapDocument::from_json`].
    pub fn from_json(json: &[u8]) -> Result<Self, WireError> {
        read(json)
    }
}

/// What every version of every document has.
#[derive(Deserialize)]
struct Version {
    version: Option<String>,
}

fn read<T: for<'de> Deserialize<'de>>(json: &[u8]) -> Result<T, WireError> {
    let head: Version = parse(json)?;
    check_version(head.version.as_deref())?;
    parse(json)
}

fn parse<T: for<'de> Deserialize<'de>>(json: &[u8]) -> Result<T, WireError> {
    serde_json::from_slice(json).map_err(|source| WireError::Json { reason: source.to_string() })
}

fn check_version(found: Option<&str>) -> Result<(), WireError> {
    match found {
        Some(VERSION) => Ok(()),
        other => Err(WireError::Version { found: other.unwrap_or("none").to_owned() }),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
        text
    })
}

/// Why a document was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// It is no JSON of the expected form.
    #[error("not a valid document: {reason}")]
    Json {
        /// What the parser says.
        reason: String,
    },
    /// It was written by another version.
    #[error("version {found:?} is not known here, only {VERSION:?}")]
    Version {
        /// The version it names.
        found: String,
    },
    /// It belongs to another model.
    #[error(
        "made for model {found_name} ({found_layers} MoE layers, {found_experts} experts, digest {found_digest}), not \
         for {expected_name} ({expected_layers}, {expected_experts}, {expected_digest})",
        found_name = found.name, found_layers = found.layers, found_experts = found.experts, found_digest = found.digest,
        expected_name = expected.name, expected_layers = expected.layers, expected_experts = expected.experts,
        expected_digest = expected.digest
    )]
    OtherModel {
        /// The model it was made for.
        found: Box<ModelIdentity>,
        /// The model that is served.
        expected: Box<ModelIdentity>,
    },
    /// It has another number of layers than its model.
    #[error("{found} layers instead of {expected}")]
    Layers {
        /// Layers found.
        found: usize,
        /// Layers of the model.
        expected: usize,
    },
    /// A layer has another number of ranks.
    #[error("layer {layer}: {found} ranks instead of {expected}")]
    Ranks {
        /// Where.
        layer: usize,
        /// Ranks found.
        found: usize,
        /// Ranks named.
        expected: usize,
    },
    /// A rank has another number of slots.
    #[error("layer {layer}, rank {rank}: {found} slots instead of {expected}")]
    Slots {
        /// Where.
        layer: usize,
        /// Where.
        rank: usize,
        /// Slots found.
        found: usize,
        /// Slots named.
        expected: usize,
    },
    /// A layer of a load has another number of experts.
    #[error("layer {layer}: {found} experts instead of {expected}")]
    Experts {
        /// Where.
        layer: usize,
        /// Experts found.
        found: usize,
        /// Experts of the model.
        expected: usize,
    },
    /// The placement breaks an invariant.
    #[error(transparent)]
    Map(#[from] MapError),
}

#[cfg(test)]
mod tests;
