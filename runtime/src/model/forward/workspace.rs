//! Device memory of a rank's steps in one group: as much as the largest step needs, made when the group forms.

use std::sync::Arc;

use kernels::batch::StepLimits;
use kernels::routing::{GroupShape, LayerRouting};
use kernels::{Arena, Backend, DeviceError, Queue, StepArea};

use super::{CacheSize, LOGIT_ROWS};
use crate::model::config::Config;
use crate::protocol::SequenceStep;

/// The batch of a step, its routing, and its activations.
pub struct Workspace<B: Backend> {
    pub(super) limits: StepLimits,
    /// The pages that slots point at.
    pub(super) arena: Arc<Arena<B>>,
    /// What goes to the device.
    pub(super) area: StepArea,
    pub(super) batch: B::Batch,
    pub(super) slots: B::Slots,
    pub(super) routing: B::Routing,
    pub(super) hidden: B::Buffer<f32>,
    pub(super) normed: B::Buffer<f32>,
    pub(super) projected: B::Buffer<f32>,
    pub(super) attended: B::Buffer<f32>,
    pub(super) router: B::Buffer<f32>,
    pub(super) results: B::Buffer<f32>,
    pub(super) rows: B::Buffer<f32>,
    pub(super) logits: B::Buffer<f32>,
}

impl<B: Backend> Workspace<B> {
    /// For steps of a model with a cache of this size, as part of a group with this routing of each MoE layer in order.
    ///
    /// # Errors
    /// If the device has no memory for it.
    pub fn new(
        arena: Arc<Arena<B>>,
        config: &Config,
        cache: CacheSize,
        (group, layers): (GroupShape, Vec<LayerRouting>),
    ) -> Result<Self, DeviceError> {
        let backend = Arc::clone(arena.backend());
        let limits = StepLimits { tokens: group.tokens, blocks: cache.blocks };
        let logit_rows = LOGIT_ROWS.min(group.tokens);
        let activations = |rows: usize, width: usize| backend.buffer(rows.saturating_mul(width));
        Ok(Self {
            limits,
            arena,
            area: StepArea::default(),
            batch: backend.batch(limits)?,
            slots: backend.slots(group, layers)?,
            routing: backend.routing(group)?,
            hidden: activations(group.tokens, config.hidden)?,
            normed: activations(group.rows(), config.hidden)?,
            projected: activations(group.tokens, config.heads.projected_width())?,
            attended: activations(group.tokens, config.heads.query_width())?,
            router: activations(group.tokens, config.experts)?,
            results: activations(group.results(), config.hidden)?,
            rows: activations(logit_rows, config.hidden)?,
            logits: activations(logit_rows, config.vocabulary)?,
        })
    }

    /// Puts a batch and changes of routing where the device gets them from, and asks nothing yet.
    pub(super) fn fill(&mut self, batch: &[SequenceStep], changes: Vec<LayerRouting>) {
        self.area.clear();
        self.area.changes = changes;
        for step in batch {
            self.area.push(step.sequence.0 as u32, step.position, &step.tokens, &step.blocks);
        }
    }

    /// The one upload of a step.
    pub(super) fn upload(&mut self, queue: &B::Queue) {
        queue.upload(&self.area, &mut self.batch, &mut self.slots);
    }
}
