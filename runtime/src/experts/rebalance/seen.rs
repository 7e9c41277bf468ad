//! What others may see of the rebalancer. What is asked for often is made into documents by whoever asks, from what [`Seen`]
//! shares: the thread that runs steps only gives it.

use std::sync::Arc;

use plan::map::ExpertMap;
use plan::policy::Decision;
use plan::wire::{self, MapDocument, ModelIdentity, MoveTotals, RecordedMap, WindowReport};

use super::in_force::Hashed;
use super::{ClosedWindow, Phase, Rebalancer, documents};

/// How the coordinator serves, beside what the rebalancer does, as [`wire::State`] tells it.
#[derive(Clone, Debug)]
pub struct Service {
    /// [`wire::State::ready`].
    pub ready: bool,
    /// [`wire::State::generation`].
    pub generation: u64,
    /// [`wire::State::static_map`].
    pub static_map: bool,
    /// [`wire::State::failure`].
    pub failure: Option<String>,
    /// What keeps maps from being recorded.
    pub trouble: Option<String>,
}

/// The rebalancer at one moment.
#[derive(Clone, Debug)]
pub struct Seen {
    model: ModelIdentity,
    map: Hashed<ExpertMap>,
    epoch: u64,
    steps: u64,
    phase: wire::Phase,
    window_steps: u64,
    last_window: Option<Arc<ClosedWindow>>,
    first_window: Option<Arc<WindowReport>>,
    pending: u64,
    totals: MoveTotals,
    last_decision: Option<Decision>,
    recorded: Option<Hashed<RecordedMap>>,
    degraded: Option<String>,
}

impl Rebalancer {
    /// The map in force.
    #[must_use]
    pub fn map(&self) -> &ExpertMap {
        self.in_force.map()
    }

    /// The map in force, as a document.
    #[must_use]
    pub fn map_document(&self) -> MapDocument {
        MapDocument::new(self.model.clone(), self.map())
    }

    /// Epoch of the map in force.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.in_force.epoch()
    }

    /// The last map that was recorded.
    #[must_use]
    pub fn recorded(&self) -> Option<&RecordedMap> {
        self.recorded.as_deref()
    }

    /// What it is doing.
    #[must_use]
    pub const fn phase(&self) -> wire::Phase {
        match self.phase {
            Phase::Collecting if self.settings.dynamic => wire::Phase::Collecting,
            Phase::Collecting => wire::Phase::Off,
            Phase::Planning { .. } | Phase::Waiting { .. } => wire::Phase::Planning,
            Phase::Moving { .. } => wire::Phase::Moving,
        }
    }

    /// Totals since the start.
    #[must_use]
    pub const fn totals(&self) -> &MoveTotals {
        &self.totals
    }

    /// Transactions planned and not yet committed or given up.
    #[must_use]
    pub fn pending_transactions(&self) -> usize {
        match &self.phase {
            Phase::Collecting | Phase::Planning { .. } => 0,
            Phase::Waiting { transactions, .. } => transactions.len(),
            Phase::Moving { moves, .. } => moves.pending(),
        }
    }

    /// Staging pages that transactions under way need, `[ranks]`.
    #[must_use]
    pub fn staging_pages(&self) -> Vec<u32> {
        let mut pages = vec![0; self.map().shape().ranks];
        if let Phase::Moving { moves, .. } = &self.phase {
            moves.staging().into_iter().for_each(|(rank, count)| pages[rank.index()] = count);
        }
        pages
    }

    /// All of it, for whoever makes documents of it.
    #[must_use]
    pub fn seen(&self) -> Seen {
        Seen {
            model: self.model.clone(),
            map: self.in_force.shared(),
            epoch: self.epoch(),
            steps: self.moment.steps,
            phase: self.phase(),
            window_steps: self.windows.steps(),
            last_window: self.windows.shared_last(),
            first_window: self.windows.first(),
            pending: self.pending_transactions() as u64,
            totals: self.totals.clone(),
            last_decision: self.last_decision,
            recorded: self.recorded.clone(),
            degraded: self.degraded.clone(),
        }
    }
}

impl Seen {
    /// The map in force.
    #[must_use]
    pub fn map_document(&self) -> MapDocument {
        MapDocument::new(self.model.clone(), &self.map)
    }

    /// The last map that was recorded.
    #[must_use]
    pub fn recorded(&self) -> Option<&RecordedMap> {
        self.recorded.as_deref()
    }

    /// Load of the last window that closed.
    #[must_use]
    pub fn last_load(&self) -> Option<wire::LoadDocument> {
        let closed = self.last_window.as_ref()?;
        let WindowReport { number, steps, .. } = closed.report;
        Some(wire::LoadDocument::new(self.model.clone(), number, steps, &closed.load))
    }

    /// Everything, as the admin API tells it.
    #[must_use]
    pub fn state(&self, service: Service, ranks: Vec<wire::RankState>) -> wire::State {
        let Service { ready, generation, static_map, failure, trouble } = service;
        let degraded = [self.degraded.as_deref(), trouble.as_deref()].into_iter().flatten().collect::<Vec<_>>();
        let recorded_hash = |recorded: &Hashed<RecordedMap>| recorded.hash(|recorded| recorded.map.content_hash());
        wire::State {
            version: wire::VERSION.to_owned(),
            model: self.model.clone(),
            ready,
            generation,
            ranks,
            epoch: self.epoch,
            map_hash: self.map.hash(|map| MapDocument::new(self.model.clone(), map).content_hash()),
            static_map,
            steps: self.steps,
            phase: self.phase.into(),
            window_steps: self.window_steps,
            last_window: self.last_window.as_ref().map(|closed| closed.report.clone()),
            first_window: self.first_window.as_deref().cloned(),
            pending_transactions: self.pending,
            moves: self.totals.clone(),
            last_decision: self.last_decision.as_ref().map(documents::decision),
            recorded_map_hash: self.recorded.as_ref().map(recorded_hash),
            degraded: (!degraded.is_empty()).then(|| degraded.join("; ")),
            failure,
        }
    }
}
