//! A group of ranks that runs steps.

use std::sync::Arc;
use std::time::Instant;

use plan::ids::RankId;
use thiserror::Error;

use super::answer::Expected;
use super::members::Members;
use crate::fabric::framing::{Connection, ConnectionError};
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
    expected: Expected,
    connections: Vec<Connection>,
    members: Arc<Members>,
}

/// What a group is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub generation: u64,
    pub kv_blocks: Vec<u32>,
    pub block_tokens: u32,
    pub expected: Expected,
    /// To each rank.
    pub connections: Vec<Connection>,
}

impl Group {
    pub(super) fn new(parts: Parts, members: Arc<Members>) -> Self {
        let Parts { generation, kv_blocks, block_tokens, expected, connections } = parts;
        Self { generation, kv_blocks, block_tokens, expected, connections, members }
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
    /// If a rank is lost, or has not answered within the settings' step deadline; the group is lost with it, and whether ranks
    /// ran the step is unknown.
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
        let (generation, expected, sent) = (self.generation, self.expected, Instant::now());
        let lost = |rank: usize, reason: String| RankLost { rank: rank.into(), number, reason };
        let (limit, deadline) = (self.members.settings.step_deadline, sent + self.members.settings.step_deadline);
        let failed = |rank: usize, error: ConnectionError| {
            let (late, seconds) = (Instant::now() >= deadline, limit.as_secs_f32());
            let reason = || {
                format!("no answer within {seconds} s (step-deadline-seconds); it hangs, or waits for a rank that does")
            };
            lost(rank, if late { reason() } else { error.to_string() })
        };
        let mut steps = Vec::with_capacity(batches.len());
        for (rank, (connection, batch)) in self.connections.iter_mut().zip(batches).enumerate() {
            let step = Step { generation, number, commits: commits.to_vec(), batch };
            connection.send_by(&step, deadline).map_err(|error| failed(rank, error))?;
            steps.push(step);
        }
        let tokens = steps.iter().flat_map(|step| &step.batch).map(|sequence| sequence.tokens.len()).sum();
        let mut answers = Vec::with_capacity(self.connections.len());
        for (rank, (connection, Step { batch, .. })) in self.connections.iter_mut().zip(&steps).enumerate() {
            let done = connection.receive_by(expected.most_bytes(batch), deadline);
            let done: StepDone = done.map_err(|error| failed(rank, error))?;
            if (done.generation, done.number) != (generation, number) {
                let reason = format!("it answered step {} of generation {} instead", done.number, done.generation);
                return Err(lost(rank, reason));
            }
            if let Some(reason) = expected.wrong(&done, batch, tokens, sent.elapsed()) {
                return Err(lost(rank, format!("it answered wrongly: {reason}")));
            }
            answers.push(done);
        }
        match expected.wrong_sum(&answers, tokens) {
            // Nobody can tell whose count is wrong; whoever it is, none of them is believed.
            Some(reason) => Err(lost(0, format!("it or another rank answered wrongly: {reason}"))),
            None => Ok(answers),
        }
    }
}

impl Drop for Group {
    /// A group that is given up ends on every rank, and ranks that register again are heard as lost.
    fn drop(&mut self) {
        self.connections.iter().for_each(Connection::close);
    }
}
