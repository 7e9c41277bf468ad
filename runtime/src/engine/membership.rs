//! What a rank's engine has while it is part of a group.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use kernels::routing::LayerRouting;
use kernels::{Backend, Page, PageId};
use plan::ids::SlotIndex;

use super::EngineError;
use crate::experts::mover::{HandOver, NewPages};
use crate::experts::pages::{RankPages, Swap};
use crate::experts::routing::RankMap;
use crate::fabric::exchange::Exchange;
use crate::fabric::framing::Connection;
use crate::model::forward::Workspace;
use crate::protocol::{Commit, SequenceStep, Sequences, Step, StepDone, StepExtent, TransactionId};

/// How long a rank that has said why it leaves waits for the coordinator to hear it.
const LET_GO_WITHIN: Duration = Duration::from_secs(1);

/// A rank's part in one group.
pub struct Membership<B: Backend> {
    /// What was captured of the exchange goes with it, which is before that.
    pub(super) workspace: Workspace<B>,
    routing: RankMap,
    /// The last step that was put on the queue.
    pub(super) mark: Option<B::Mark>,
    pub(super) exchange: Box<dyn Exchange<B>>,
    generation: u64,
    steps: Connection,
    pages: Arc<RankPages<B>>,
    incoming: Receiver<HandOver<B>>,
    staged: BTreeMap<TransactionId, NewPages<B>>,
    sequences: Sequences,
}

/// A step as this rank computes it.
pub(super) struct Work {
    pub number: u64,
    pub commits: Vec<Commit>,
    pub batch: Vec<SequenceStep>,
    pub extent: StepExtent,
}

/// What steps go over.
pub struct StepPath<B: Backend> {
    /// To the other ranks.
    pub exchange: Box<dyn Exchange<B>>,
    /// To the coordinator.
    pub steps: Connection,
}

impl<B: Backend> Membership<B> {
    /// A part in the group of this generation. `incoming` is where the mover of `pages` hands over.
    #[must_use]
    pub fn new(
        generation: u64,
        (workspace, routing): (Workspace<B>, RankMap),
        StepPath { exchange, steps }: StepPath<B>,
        pages: Arc<RankPages<B>>,
        incoming: Receiver<HandOver<B>>,
    ) -> Self {
        let (staged, sequences) = (BTreeMap::new(), Sequences::default());
        Self { workspace, routing, mark: None, exchange, generation, steps, pages, incoming, staged, sequences }
    }

    pub(super) fn next_step(&mut self) -> Result<Work, EngineError> {
        let Step { generation, number, commits, extent, batch } = self.steps.receive()?;
        if generation != self.generation {
            return Err(EngineError::Generation { found: generation, expected: self.generation });
        }
        Ok(Work { number, commits: commits.into_owned(), batch: self.sequences.next(batch)?, extent })
    }

    pub(super) fn answer(&mut self, batch: Vec<SequenceStep>, done: &StepDone) -> Result<(), EngineError> {
        self.steps.send(done)?;
        self.sequences.computed(batch, &done.outputs);
        Ok(())
    }

    /// Waits until the coordinator has ended the group, for a moment at most. Steps that it sent ahead are not run.
    pub(super) fn wait_until_let_go(&mut self) {
        let started = Instant::now();
        if self.steps.set_timeout(Some(LET_GO_WITHIN)).is_ok() {
            while started.elapsed() < LET_GO_WITHIN && self.steps.receive::<Step<'_>>().is_ok() {}
        }
    }

    /// The group's number.
    pub(super) const fn generation(&self) -> u64 {
        self.generation
    }

    /// Swaps the pages of what is committed; gives what the device has to be told of it.
    pub(super) fn apply(&mut self, commits: Vec<Commit>) -> Result<Vec<LayerRouting>, EngineError> {
        self.take_staged();
        commits.into_iter().map(|commit| self.commit(commit)).collect()
    }

    /// What the mover has handed over since the last step; never waits.
    fn take_staged(&mut self) {
        for handed in self.incoming.try_iter() {
            match handed {
                HandOver::Staged(transaction, pages) => drop(self.staged.insert(transaction, pages)),
                HandOver::Aborted(transaction) => drop(self.staged.remove(&transaction)),
            }
        }
    }

    fn commit(&mut self, commit: Commit) -> Result<LayerRouting, EngineError> {
        let (transaction, rank) = (commit.transaction, self.routing.rank());
        let touched = commit.work.changes.iter().any(|change| change.rank == rank);
        let staged = match self.staged.remove(&transaction) {
            Some(staged) => staged,
            None if touched => return Err(EngineError::NotStaged { transaction }),
            None => Vec::new(),
        };
        let new: Vec<(SlotIndex, Arc<Page<B>>)> =
            staged.into_iter().map(|(slot, page)| (slot, page.commit())).collect();
        let numbers: Vec<(SlotIndex, PageId)> = new.iter().map(|(slot, page)| (*slot, page.id())).collect();
        let changed = self.routing.commit(&commit, &numbers)?;
        let swap = |(slot, page): (SlotIndex, Arc<Page<B>>)| {
            let change = commit.work.changes.iter().find(|change| (change.rank, change.slot) == (rank, slot))?;
            Some(Swap { from: change.from, to: change.to, page })
        };
        let swaps = new.into_iter().filter_map(swap).collect();
        self.pages.swapped(commit, swaps, self.mark.clone());
        Ok(changed)
    }
}
