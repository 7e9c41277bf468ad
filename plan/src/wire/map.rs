//! Documents of expert maps: as they are stored, and as they are recorded with where they come from.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{ModelIdentity, VERSION, Version, WireError, check_version, parse, read};
use crate::ids::ExpertId;
use crate::map::{ExpertMap, MapShape};
use crate::slots::RankSlots;
use crate::words::hexadecimal;

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
    /// Slots of each rank and layer; the most of any rank where [`Self::slots_of_ranks`] is given.
    pub slots_per_rank: usize,
    /// Slots of each rank, `[ranks]`, where ranks have unequally many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots_of_ranks: Option<Vec<usize>>,
    /// `[layers][ranks][slots of the rank]` logical experts.
    pub placement: Vec<Vec<Vec<u32>>>,
    /// Parts of [`WHOLE`](crate::map::WHOLE) of its expert's tokens that each slot takes, in the order of
    /// [`Self::placement`]; absent where every expert's copies share evenly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<Vec<Vec<Vec<u32>>>>,
}

impl MapDocument {
    /// The document of a map.
    #[must_use]
    pub fn new(model: ModelIdentity, map: &ExpertMap) -> Self {
        let shape = map.shape();
        let by_rank = |all: Vec<u32>| -> Vec<Vec<u32>> {
            (0..shape.ranks).map(|rank| all[map.slots_of_ranks().of(rank.into())].to_vec()).collect()
        };
        let experts = |layer| map.layer(layer).iter().map(|expert| expert.0).collect();
        let even = map.layers().all(|layer| map.shares(layer).is_none());
        let unequal = map.slots_of_ranks().per_rank().is_none();
        Self {
            version: VERSION.to_owned(),
            model,
            ranks: shape.ranks,
            slots_per_rank: shape.slots_per_rank,
            slots_of_ranks: unequal.then(|| map.slots_of_ranks().counts().collect()),
            placement: map.layers().map(|layer| by_rank(experts(layer))).collect(),
            shares: (!even).then(|| map.layers().map(|layer| by_rank(map.parts(layer))).collect()),
        }
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
        let of_ranks = self.of_ranks()?;
        let experts = self.flat(&self.placement, &of_ranks)?.into_iter().map(ExpertId).collect();
        let map = ExpertMap::with_slots_of_ranks(shape.layers, shape.experts, of_ranks.clone(), experts)?;
        match &self.shares {
            Some(shares) => Ok(map.with_shares(&self.flat(shares, &of_ranks)?)?),
            None => Ok(map),
        }
    }

    fn of_ranks(&self) -> Result<RankSlots, WireError> {
        let Some(counts) = &self.slots_of_ranks else { return Ok(RankSlots::even(self.ranks, self.slots_per_rank)) };
        if counts.len() != self.ranks {
            return Err(WireError::SlotsOfRanks { found: counts.len(), expected: self.ranks });
        }
        if let Some(rank) = counts.iter().position(|&count| count > self.slots_per_rank) {
            return Err(WireError::MoreSlots { rank, found: counts[rank], most: self.slots_per_rank });
        }
        Ok(RankSlots::new(counts.iter().copied()))
    }

    /// The numbers of every slot, `[layers, slots of all ranks]`.
    fn flat(&self, nested: &[Vec<Vec<u32>>], of_ranks: &RankSlots) -> Result<Vec<u32>, WireError> {
        if nested.len() != self.model.layers {
            return Err(WireError::Layers { found: nested.len(), expected: self.model.layers });
        }
        for (layer, ranks) in nested.iter().enumerate() {
            if ranks.len() != self.ranks {
                return Err(WireError::Ranks { layer, found: ranks.len(), expected: self.ranks });
            }
            for (rank, (slots, expected)) in ranks.iter().zip(of_ranks.counts()).enumerate() {
                if slots.len() != expected {
                    return Err(WireError::Slots { layer, rank, found: slots.len(), expected });
                }
            }
        }
        Ok(nested.iter().flatten().flatten().copied().collect())
    }

    /// Hex SHA-256 of the canonical JSON: the name under which a map is stored. Equal placements of one model have
    /// equal hashes.
    #[must_use]
    pub fn content_hash(&self) -> String {
        let canonical = serde_json::to_vec(self).expect("a map document is plain data");
        hexadecimal(&Sha256::digest(canonical))
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
