//! The ranks as the driver sees them. [`Fleet`] is the real thing; tests script their own.

use plan::ids::RankId;
use plan::wire::{MapDocument, RankState};

use super::fleet::{Fleet, FormError, Group, RankLost};
use crate::protocol::{Commit, SequenceStep, StepDone, ToRank};
use crate::scheduler::CacheSize;

/// All ranks of a coordinator, in a group or on the way to one. What happens to them arrives as
/// [`FleetEvent`](super::fleet::FleetEvent)s.
pub trait Ranks: Send + 'static {
    /// A group that runs steps.
    type Group: RankGroup;

    /// Orders every rank to form the next group under this map.
    ///
    /// # Errors
    /// If a rank is missing or there is a group.
    fn form(&self, map: &MapDocument, epoch: u64) -> Result<u64, FormError>;

    /// Sends an order of the move path; one for a rank that is gone is dropped.
    fn order(&self, rank: RankId, order: ToRank);

    /// Every rank, in order.
    fn states(&self) -> Vec<RankState>;

    /// The number of the last group; 0 before the first.
    fn generation(&self) -> u64;
}

/// A group of ranks.
pub trait RankGroup: Send + 'static {
    /// Its number.
    fn generation(&self) -> u64;

    /// Each rank's KV cache, `[ranks]`.
    fn caches(&self) -> Vec<CacheSize>;

    /// Runs one step, `batches[r]` on rank `r`, and waits for every answer, `[ranks]`.
    ///
    /// # Errors
    /// If a rank is lost, and with it the group.
    fn run_step(
        &mut self,
        number: u64,
        batches: Vec<Vec<SequenceStep>>,
        commits: &[Commit],
    ) -> Result<Vec<StepDone>, RankLost>;
}

impl Ranks for Fleet {
    type Group = Group;

    fn form(&self, map: &MapDocument, epoch: u64) -> Result<u64, FormError> {
        self.form(map, epoch)
    }

    fn order(&self, rank: RankId, order: ToRank) {
        self.order(rank, order);
    }

    fn states(&self) -> Vec<RankState> {
        self.ranks()
    }

    fn generation(&self) -> u64 {
        self.generation()
    }
}

impl RankGroup for Group {
    fn generation(&self) -> u64 {
        self.generation()
    }

    fn caches(&self) -> Vec<CacheSize> {
        let block_tokens = self.block_tokens();
        self.kv_blocks().iter().map(|&blocks| CacheSize { blocks, block_tokens }).collect()
    }

    fn run_step(
        &mut self,
        number: u64,
        batches: Vec<Vec<SequenceStep>>,
        commits: &[Commit],
    ) -> Result<Vec<StepDone>, RankLost> {
        self.run_step(number, batches, commits)
    }
}
