//! A group of ranks that runs steps.

use std::sync::Arc;

use plan::ids::RankId;
use thiserror::Error;

use super::members::Members;
use crate::fabric::framing::Connection;
use crate::protocol::{Commit, SequenceStep, Step, StepDone};

/// A step was not finished: a rank is gone, and with it the group.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{rank} was lost in step {number}: {reason}")]
pub struct RankLost {
    /// Which.
    pub rank: RankId,
    /// In which step.
    pub number: u64,
    /// Why.
    pub reason: String,
}

/// Every rank's step connection, and what is known of its KV cache.
#[derive(Debug)]
pub struct Group {
    generation: u64,
    kv_blocks: Vec<u32>,
    block_tokens: u32,
    connections: Vec<Connection>,
    members: Arc<Members>,
}

impl Group {
    pub(super) fn new(
        generation: u64,
        (kv_blocks, block_tokens): (Vec<u32>, u32),
        connections: Vec<Connection>,
        members: Arc<Members>,
    ) -> Self {
        Self { generation, kv_blocks, block_tokens, connections, members }
    }

    /// Its generation.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// KV blocks of each rank, `[ranks]`; all are free when the group is new.
    #[must_use]
    pub fn kv_blocks(&self) -> &[u32] {
        &self.kv_blocks
    }

    /// Tokens of a KV block, the same on every rank.
    #[must_use]
    pub const fn block_tokens(&self) -> u32 {
        self.block_tokens
    }

    /// Runs one step on every rank, `batches[r]` on rank `r`, and waits for all answers, `[ranks]`.
    ///
    /// # Errors
    /// If a rank is lost; the group is lost with it, and whether ranks ran the step is unknown.
    ///
    /// # Panics
    /// If there is not one batch for each rank.
    pub fn run_step(
        &mut self,
        number: u64,
        batches: Vec<Vec<SequenceStep>>,
        commits: &[Commit],
    ) -> Result<Vec<StepDone>, RankLost> {
        assert_eq!(batches.len(), self.connections.len(), "one batch for each rank");
        let result = self.try_step(number, batches, commits);
        if let Err(RankLost { rank, reason, .. }) = &result {
            self.members.lose_group(self.generation, *rank, reason);
        }
        result
    }

    fn try_step(
        &mut self,
        number: u64,
        batches: Vec<Vec<SequenceStep>>,
        commits: &[Commit],
    ) -> Result<Vec<StepDone>, RankLost> {
        let generation = self.generation;
        let lost = |rank: usize, reason: String| RankLost { rank: rank.into(), number, reason };
        for (rank, (connection, batch)) in self.connections.iter_mut().zip(batches).enumerate() {
            let step = Step { generation, number, commits: commits.to_vec(), batch };
            connection.send(&step).map_err(|error| lost(rank, error.to_string()))?;
        }
        let mut answers = Vec::with_capacity(self.connections.len());
        for (rank, connection) in self.connections.iter_mut().enumerate() {
            let done: StepDone = connection.receive().map_err(|error| lost(rank, error.to_string()))?;
            if (done.generation, done.number) != (generation, number) {
                let reason = format!("it answered step {} of generation {} instead", done.number, done.generation);
                return Err(lost(rank, reason));
            }
            answers.push(done);
        }
        Ok(answers)
    }
}

impl Drop for Group {
    /// A group that is given up ends on every rank, and ranks that register again are heard as lost.
    fn drop(&mut self) {
        self.connections.iter().for_each(Connection::close);
    }
}
