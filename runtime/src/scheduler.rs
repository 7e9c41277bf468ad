//! Decides what each rank computes in each step: admission, batches, KV blocks. Pure: no I/O and no clock. Knows
//! nothing of text, of experts or of who waits for the tokens.
//!
//! Sequences are served in the order of their numbers. One that has to wait is never overtaken by a later one, and when
//! the blocks of a rank run out the latest sequence there goes back to its place in the queue and computes its tokens
//! again later.
//!
//! When a group is lost, every sequence that was in the step may be what its rank died of. Those that were in two such
//! steps without giving anything in between are computed alone, one after the other and before all others, until they
//! give something: so whoever is to blame is lost alone, and ends when it has been lost too often.

mod blocks;
mod sequence;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use thiserror::Error;

use crate::protocol::{Batch, SequenceId, SequenceOutput, SequenceWork};

pub use blocks::RankCache;
use blocks::{BlockPool, Blocks};
pub use sequence::{Finish, Length, NewSequence, Output};
use sequence::{Losses, Running, Sequence};

/// Lost groups in a row after which a sequence that was computed in each of them is computed alone.
const LOSSES_BEFORE_ALONE: u32 = 2;

/// Lost groups in a row, nothing given in between, after which a sequence that was computed in each of them ends.
pub const LOSSES_IN_A_ROW: u32 = 3;

/// Lost groups altogether after which a sequence that was computed in each of them ends, though it gave something in
/// between: what kills a rank every few tokens would otherwise do so until its answer is complete. As many as this come
/// together only where ranks are lost all the time.
pub const LOSSES_IN_ALL: u32 = 16;

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
    /// A sequence could outgrow the KV cache of a rank. Begins as clients know it from other servers.
    #[error(
        "This model's maximum context length is {capacity} tokens, as much as a rank's KV cache holds. However, prompt \
         and answer need room for {tokens}; shorten one of them"
    )]
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
    /// Steps that were made, and those of them whose outputs were taken in.
    made: u64,
    taken: u64,
    /// A sequence may have to be computed alone.
    suspected: bool,
}

#[derive(Debug)]
struct Rank {
    pool: BlockPool,
    running: BTreeMap<SequenceId, Running>,
    /// Sequences that the rank knows of and that run there no longer.
    ended: Vec<SequenceId>,
}

impl Scheduler {
    /// A scheduler without ranks: sequences wait until [`Self::form`].
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self { limits, waiting: BTreeMap::new(), ranks: Vec::new(), next: 0, made: 0, taken: 0, suspected: false }
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
        let tokens = sequences.iter().map(NewSequence::least_room).max().unwrap_or(0);
        let capacity = self.capacity();
        if tokens > capacity {
            return Err(SubmitError::OutgrowsCache { tokens, capacity });
        }
        if waiting + count > limit {
            return Err(SubmitError::QueueFull { waiting, limit });
        }
        Ok(sequences.into_iter().map(|sequence| self.enqueue(sequence, capacity)).collect())
    }

    fn enqueue(&mut self, sequence: NewSequence, capacity: usize) -> SequenceId {
        let id = SequenceId(self.next);
        self.next += 1;
        self.waiting.insert(id, Sequence::new(sequence, capacity));
        id
    }

    /// Tokens of the longest sequence that every rank can hold; no bound while there are no ranks.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.ranks.iter().map(|rank| rank.pool.size().tokens()).min().unwrap_or(usize::MAX)
    }

    /// Forgets a sequence and frees its blocks; false if it has ended already. What a step that is under way gives for it is
    /// passed over, and its blocks are written by nobody else before that step is done.
    pub fn abort(&mut self, id: SequenceId) -> bool {
        self.waiting.remove(&id).is_some() || self.ranks.iter_mut().any(|rank| rank.remove(id).is_some())
    }

    /// The ranks are lost: puts every sequence back into the queue, its KV forgotten, where it waits for [`Self::form`].
    /// Gives those that end because too many groups were lost while they were computed.
    pub fn lose(&mut self) -> Vec<SequenceId> {
        self.put_back();
        self.suspected = true;
        let too_many = |Losses { in_a_row, in_all }| in_a_row >= LOSSES_IN_A_ROW || in_all >= LOSSES_IN_ALL;
        self.waiting.extract_if(.., |_, sequence| too_many(sequence.losses)).map(|(id, _)| id).collect()
    }

    fn put_back(&mut self) {
        // Of the steps under way nothing comes any more.
        self.taken = self.made;
        for rank in std::mem::take(&mut self.ranks) {
            self.waiting.extend(rank.running.into_iter().map(|(id, running)| (id, running.put_back())));
        }
    }

    /// Starts over with these ranks, empty. Gives the sequences that are dropped because they would outgrow the caches.
    pub fn form(&mut self, ranks: &[RankCache]) -> Vec<SequenceId> {
        self.put_back();
        self.ranks = ranks.iter().map(|&size| Rank::new(size)).collect();
        let capacity = self.capacity();
        self.waiting.extract_if(.., |_, sequence| !sequence.fit(capacity)).map(|(id, _)| id).collect()
    }

    /// The work of the next step, one batch for each rank; `None` if there is none. Steps that were made before may be under
    /// way: ranks run one after the other.
    #[must_use]
    pub fn next_batches(&mut self) -> Option<Vec<Batch>> {
        if self.suspected && self.taken < self.made {
            // Who is computed alone is in no step that somebody else could be blamed for.
            return None;
        }
        let mut work = vec![Vec::new(); self.ranks.len()];
        match self.suspected.then(|| self.suspect()).flatten() {
            Some(id) => self.alone(id, &mut work),
            None => self.together(&mut work),
        }
        if work.iter().all(Vec::is_empty) {
            return None;
        }
        self.made += 1;
        let of_rank = |(rank, work): (&mut Rank, _)| Batch { ended: std::mem::take(&mut rank.ended), work };
        Some(self.ranks.iter_mut().zip(work).map(of_rank).collect())
    }

    fn together(&mut self, work: &mut [Vec<SequenceWork>]) {
        self.suspected = false;
        let mut budgets = vec![self.limits.step_tokens; self.ranks.len()];
        for ((rank, budget), work) in self.ranks.iter_mut().zip(&mut budgets).zip(&mut *work) {
            self.waiting.extend(rank.decode(budget, work));
            rank.prefill(budget, work);
        }
        self.admit(&mut budgets, work);
    }

    /// Gives waiting sequences, the first ones first, to the ranks with the least work, as long as there is room.
    fn admit(&mut self, budgets: &mut [usize], work: &mut [Vec<SequenceWork>]) {
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
            let mut running = Running::new(sequence, blocks, self.made + 1);
            let count = tokens.min(budgets[least]);
            budgets[least] -= count;
            work[least].push(running.work(id, count));
            rank.running.insert(id, running);
        }
    }

    /// The first sequence that has to be computed alone.
    fn suspect(&self) -> Option<SequenceId> {
        let is_suspect = |sequence: &Sequence| sequence.losses.in_a_row >= LOSSES_BEFORE_ALONE;
        let running = self.ranks.iter().flat_map(|rank| &rank.running).map(|(id, running)| (id, &running.sequence));
        let suspects = running.chain(&self.waiting).filter(|(_, sequence)| is_suspect(sequence));
        suspects.map(|(&id, _)| id).min()
    }

    /// Work for one sequence and nothing else; none while there are no ranks.
    fn alone(&mut self, id: SequenceId, work: &mut [Vec<SequenceWork>]) {
        if let Some(sequence) = self.waiting.remove(&id) {
            match self.make_room(sequence.tokens()) {
                Some((rank, blocks)) => {
                    drop(self.ranks[rank].running.insert(id, Running::new(sequence, blocks, self.made + 1)));
                }
                None => drop(self.waiting.insert(id, sequence)),
            }
        }
        for (rank, work) in self.ranks.iter_mut().zip(work) {
            if let Some(running) = rank.running.get_mut(&id)
                && running.pending() > 0
                && running.reach()
            {
                let count = running.pending().min(self.limits.step_tokens);
                work.push(running.work(id, count));
            }
        }
    }

    /// Blocks for a sequence of `tokens` tokens on the rank that has most of them free, which gives back its latest
    /// sequences if those are too few. `None` while there are no ranks.
    fn make_room(&mut self, tokens: usize) -> Option<(usize, Blocks)> {
        let most = (0..self.ranks.len()).max_by_key(|&rank| self.ranks[rank].pool.free())?;
        loop {
            let rank = &mut self.ranks[most];
            if let Some(blocks) = rank.pool.take(tokens) {
                return Some((most, blocks));
            }
            let (id, latest) = rank.remove_last()?;
            self.waiting.insert(id, latest);
        }
    }

    /// Takes in what the ranks gave for the oldest batches under way, each rank's in the order of its batch. Sequences that
    /// ended are gone afterwards and their blocks free.
    pub fn take(&mut self, outputs: Vec<Vec<SequenceOutput>>) -> Vec<Output> {
        self.taken += 1;
        let (step, by_rank) = (self.taken, self.ranks.iter_mut().zip(outputs));
        by_rank.flat_map(|(rank, outputs)| outputs.into_iter().filter_map(|output| rank.take(step, output))).collect()
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
    fn new(size: RankCache) -> Self {
        Self { pool: BlockPool::new(size), running: BTreeMap::new(), ended: Vec::new() }
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

    /// Takes a sequence out; its rank forgets it with the next step.
    fn remove(&mut self, id: SequenceId) -> Option<Sequence> {
        let running = self.running.remove(&id)?;
        if running.has_begun() {
            self.ended.push(id);
        }
        Some(running.sequence)
    }

    /// Takes the latest sequence out.
    fn remove_last(&mut self) -> Option<(SequenceId, Sequence)> {
        let id = *self.running.last_key_value()?.0;
        Some((id, self.remove(id)?))
    }

    /// One token for each sequence that generates, the earliest first. Gives back the latest ones if blocks run out.
    fn decode(&mut self, budget: &mut usize, work: &mut Vec<SequenceWork>) -> Vec<(SequenceId, Sequence)> {
        let mut put_back = Vec::new();
        let decoding: Vec<SequenceId> =
            self.running.iter().filter(|(_, running)| running.pending() == 1).map(|(&id, _)| id).collect();
        for id in decoding {
            while let Some(running) = self.running.get_mut(&id) {
                if running.reach() {
                    work.push(running.work(id, 1));
                    *budget -= 1;
                    break;
                }
                // The latest is this one or comes after it, so it is not in the batch yet.
                put_back.push(self.remove_last().expect("at least this sequence runs"));
            }
        }
        put_back
    }

    /// What is left of the budget for prompts that are under way, the earliest first.
    fn prefill(&mut self, budget: &mut usize, work: &mut Vec<SequenceWork>) {
        for (&id, running) in self.running.iter_mut().filter(|(_, running)| running.pending() > 1) {
            let count = running.pending().min(*budget);
            if count == 0 {
                return;
            }
            *budget -= count;
            work.push(running.work(id, count));
        }
    }

    fn take(&mut self, step: u64, output: SequenceOutput) -> Option<Output> {
        let id = output.sequence;
        let output = self.running.get_mut(&id)?.take(step, output)?;
        if output.finish.is_some() || output.no_numbers {
            self.remove(id);
        }
        Some(output)
    }
}
