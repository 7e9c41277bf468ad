//! Decides what each rank computes in each step: admission, batches, KV blocks. Pure: no I/O and no clock. Knows
//! nothing of text, of experts or of who waits for the tokens.
//!
//! Sequences are served in the order of their numbers. One that has to wait is never overtaken by a later one, and when
//! the blocks of a rank run out the latest sequence there goes back to its place in the queue and computes its tokens
//! again later.

mod blocks;
mod sequence;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use thiserror::Error;

use crate::protocol::{SequenceId, SequenceOutput, SequenceStep};

use blocks::BlockPool;
pub use blocks::CacheSize;
pub use sequence::{Finish, NewSequence, Output};
use sequence::{Running, Sequence};

/// Bounds of the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sequences that may wait.
    pub queued: usize,
    /// Sequences that one rank serves at a time; at least 1 and at most `step_tokens`, since each may need one token of
    /// a step.
    pub running_per_rank: usize,
    /// Tokens that one rank computes in one step.
    pub step_tokens: usize,
}

/// Why sequences were not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SubmitError {
    /// The queue has no room now; a retry helps.
    #[error("{waiting} of at most {limit} sequences are waiting")]
    QueueFull {
        /// Sequences waiting.
        waiting: usize,
        /// The bound.
        limit: usize,
    },
    /// More sequences at once than the queue can ever hold.
    #[error("{count} sequences in one request are more than the queue of {limit}")]
    TooMany {
        /// Sequences submitted.
        count: usize,
        /// The bound.
        limit: usize,
    },
    /// A sequence could outgrow the KV cache of a rank.
    #[error("a sequence of up to {tokens} tokens does not fit the {capacity} tokens of a rank's KV cache")]
    OutgrowsCache {
        /// Tokens it may grow to.
        tokens: usize,
        /// Tokens of the smallest cache.
        capacity: usize,
    },
}

/// Sequences that wait and that run. See the module's documentation for its order.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    waiting: BTreeMap<SequenceId, Sequence>,
    ranks: Vec<Rank>,
    next: u64,
}

#[derive(Debug)]
struct Rank {
    pool: BlockPool,
    running: BTreeMap<SequenceId, Running>,
}

impl Scheduler {
    /// A scheduler without ranks: sequences wait until [`Self::form`].
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self { limits, waiting: BTreeMap::new(), ranks: Vec::new(), next: 0 }
    }

    /// Queues sequences, all or none, and names them.
    ///
    /// # Errors
    /// If there is no room for them, or one could never be served.
    pub fn submit(&mut self, sequences: Vec<NewSequence>) -> Result<Vec<SequenceId>, SubmitError> {
        let (count, waiting, limit) = (sequences.len(), self.waiting.len(), self.limits.queued);
        if count > limit {
            return Err(SubmitError::TooMany { count, limit });
        }
        let tokens = sequences.iter().map(NewSequence::tokens_at_most).max().unwrap_or(0);
        let capacity = self.capacity();
        if tokens > capacity {
            return Err(SubmitError::OutgrowsCache { tokens, capacity });
        }
        if waiting + count > limit {
            return Err(SubmitError::QueueFull { waiting, limit });
        }
        Ok(sequences.into_iter().map(|sequence| self.enqueue(sequence)).collect())
    }

    fn enqueue(&mut self, sequence: NewSequence) -> SequenceId {
        let id = SequenceId(self.next);
        self.next += 1;
        self.waiting.insert(id, Sequence::new(sequence));
        id
    }

    /// Tokens of the longest sequence that every rank can hold; no bound while there are no ranks.
    fn capacity(&self) -> usize {
        self.ranks.iter().map(|rank| rank.pool.size().tokens()).min().unwrap_or(usize::MAX)
    }

    /// Forgets a sequence and frees its blocks; false if it has ended already. Not during a step.
    pub fn abort(&mut self, id: SequenceId) -> bool {
        self.waiting.remove(&id).is_some() || self.ranks.iter_mut().any(|rank| rank.running.remove(&id).is_some())
    }

    /// Puts every sequence back into the queue, its KV forgotten, and starts over with these ranks, empty. No ranks
    /// means that everything waits. Gives the sequences that are dropped because they would outgrow the new caches.
    pub fn form(&mut self, ranks: &[CacheSize]) -> Vec<SequenceId> {
        for rank in std::mem::take(&mut self.ranks) {
            self.waiting.extend(rank.running.into_iter().map(|(id, running)| (id, running.sequence)));
        }
        self.ranks = ranks.iter().map(|&size| Rank::new(size)).collect();
        let capacity = self.capacity();
        self.waiting.extract_if(.., |_, sequence| sequence.tokens_at_most() > capacity).map(|(id, _)| id).collect()
    }

    /// The work of the next step, one batch for each rank; `None` if there is none.
    #[must_use]
    pub fn next_batches(&mut self) -> Option<Vec<Vec<SequenceStep>>> {
        let mut budgets = vec![self.limits.step_tokens; self.ranks.len()];
        let mut batches = vec![Vec::new(); self.ranks.len()];
        for ((rank, budget), batch) in self.ranks.iter_mut().zip(&mut budgets).zip(&mut batches) {
            self.waiting.extend(rank.decode(budget, batch));
            rank.prefill(budget, batch);
        }
        self.admit(&mut budgets, &mut batches);
        batches.iter().any(|batch| !batch.is_empty()).then_some(batches)
    }

    /// Gives waiting sequences, the first ones first, to the ranks with the least work, as long as there is room.
    fn admit(&mut self, budgets: &mut [usize], batches: &mut [Vec<SequenceStep>]) {
        while let Some(first) = self.waiting.first_entry() {
            let tokens = first.get().tokens();
            let has_room = |rank: &Rank, budget: usize| {
                budget > 0 && rank.running.len() < self.limits.running_per_rank && rank.has_room(tokens)
            };
            let roomy = (0..self.ranks.len()).filter(|&rank| has_room(&self.ranks[rank], budgets[rank]));
            let Some(least) = roomy.min_by_key(|&rank| self.ranks[rank].work()) else { return };
            let rank = &mut self.ranks[least];
            let Some(blocks) = rank.pool.take(tokens) else { return };
            let (id, sequence) = first.remove_entry();
            let mut running = Running::new(sequence, blocks);
            let count = tokens.min(budgets[least]);
            budgets[least] -= count;
            batches[least].push(running.work(id, count));
            rank.running.insert(id, running);
        }
    }

    /// Takes in what the ranks gave for the last batches, each rank's in the order of its batch. Sequences that ended
    /// are gone afterwards and their blocks free.
    pub fn take(&mut self, outputs: Vec<Vec<SequenceOutput>>) -> Vec<Output> {
        let by_rank = self.ranks.iter_mut().zip(outputs);
        by_rank.flat_map(|(rank, outputs)| outputs.into_iter().filter_map(|output| rank.take(output))).collect()
    }

    /// Sequences that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Sequences that hold blocks.
    #[must_use]
    pub fn running(&self) -> usize {
        self.ranks.iter().map(|rank| rank.running.len()).sum()
    }

    /// KV blocks held, of each rank.
    pub fn blocks_used(&self) -> impl Iterator<Item = usize> {
        self.ranks.iter().map(|rank| rank.pool.used())
    }

    /// Whether there is nothing left to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running() == 0
    }
}

impl Rank {
    fn new(size: CacheSize) -> Self {
        Self { pool: BlockPool::new(size), running: BTreeMap::new() }
    }

    /// Whether a sequence of `tokens` tokens can start and leave a free block for each one that runs, so that it is not
    /// sent back a moment later by the growth of an earlier one.
    fn has_room(&self, tokens: usize) -> bool {
        self.pool.size().blocks_of(tokens) + self.running.len() <= self.pool.free()
    }

    /// How much there is to do: tokens that could be computed in the next step, then blocks held.
    fn work(&self) -> (usize, usize) {
        (self.running.values().map(Running::pending).sum(), self.pool.used())
    }

    /// One token for each sequence that generates, the earliest first. Gives back the latest ones if blocks run out.
    fn decode(&mut self, budget: &mut usize, batch: &mut Vec<SequenceStep>) -> Vec<(SequenceId, Sequence)> {
        let mut put_back = Vec::new();
        let decoding: Vec<SequenceId> =
            self.running.iter().filter(|(_, running)| running.pending() == 1).map(|(&id, _)| id).collect();
        for id in decoding {
            while let Some(running) = self.running.get_mut(&id) {
                if running.blocks.reach(running.sequence.tokens()) {
                    batch.push(running.work(id, 1));
                    *budget -= 1;
                    break;
                }
                // The latest is this one or comes after it, so it is not in the batch yet.
                let latest = self.running.pop_last().expect("at least this sequence runs");
                put_back.push((latest.0, latest.1.sequence));
            }
        }
        put_back
    }

    /// What is left of the budget for prompts that are under way, the earliest first.
    fn prefill(&mut self, budget: &mut usize, batch: &mut Vec<SequenceStep>) {
        for (&id, running) in self.running.iter_mut().filter(|(_, running)| running.pending() > 1) {
            let count = running.pending().min(*budget);
            if count == 0 {
                return;
            }
            *budget -= count;
            batch.push(running.work(id, count));
        }
    }

    fn take(&mut self, output: SequenceOutput) -> Option<Output> {
        let id = output.sequence;
        let output = self.running.get_mut(&id)?.take(output);
        if output.finish.is_some() {
            self.running.remove(&id);
        }
        Some(output)
    }
}
