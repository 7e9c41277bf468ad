//! Documents of expert maps: as they are stored, and as they are recorded with where they come from.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{ModelIdentity, VERSION, Version, WireError, check_version, parse, read};
use crate::ids::ExpertId;
use crate::map::{ExpertMap, MapShape};

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

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
        text
    })
}
