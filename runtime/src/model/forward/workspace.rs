//! Device memory of a rank's steps in one group: as much as the largest step needs, made when the group forms.

use std::sync::Arc;

use kernels::batch::StepLimits;
use kernels::routing::{GroupShape, LayerRouting};
use kernels::{Arena, Backend, DeviceError, Queue, StepArea};

use super::{KvCache, LOGIT_ROWS};
use crate::model::attention;
use crate::model::config::{Config, FeedForward};
use crate::protocol::SequenceStep;

/// The batch of a step, its routing and activations, and what is kept from step to step.
pub struct Workspace<B: Backend> {
    pub(in crate::model) limits: StepLimits,
    /// The pages that slots point at.
    pub(in crate::model) arena: Arc<Arena<B>>,
    pub(in crate::model) cache: KvCache<B>,
    /// What goes to the device.
    pub(in crate::model) area: StepArea,
    pub(in crate::model) batch: B::Batch,
    pub(in crate::model) slots: B::Slots,
    pub(in crate::model) routing: B::Routing,
    pub(in crate::model) hidden: B::Buffer<f32>,
    pub(in crate::model) normed: B::Buffer<f32>,
    pub(in crate::model) projected: B::Buffer<f32>,
    pub(in crate::model) attended: B::Buffer<f32>,
    pub(in crate::model) router: B::Buffer<f32>,
    pub(in crate::model) results: B::Buffer<f32>,
    pub(in crate::model) rows: B::Buffer<f32>,
    pub(in crate::model) logits: B::Buffer<f32>,
}

impl<B: Backend> Workspace<B> {
    /// For steps of a model with this cache, as part of a group with this routing of each MoE layer in order.
    ///
    /// # Errors
    /// If the device has no memory for it.
    pub fn new(
        arena: Arc<Arena<B>>,
        config: &Config,
        cache: KvCache<B>,
        (group, layers): (GroupShape, Vec<LayerRouting>),
    ) -> Result<Self, DeviceError> {
        let backend = Arc::clone(arena.backend());
        let heads = attention::heads(config);
        let logit_rows = LOGIT_ROWS.min(group.tokens);
        let dense = config.layers.iter().map(|layer| match layer {
            FeedForward::Dense { intermediate, .. } => *intermediate,
            FeedForward::Sparse => 0,
        });
        let limits = StepLimits {
            tokens: group.tokens,
            blocks: cache.size.blocks,
            logit_rows,
            vocabulary: config.vocabulary,
            hidden: config.hidden,
            intermediate: dense.max().unwrap_or(0),
            heads,
        };
        let slots = backend.slots(group, layers)?;
        let activations = |rows: usize, width: usize| backend.buffer(rows.saturating_mul(width));
        Ok(Self {
            limits,
            cache,
            area: StepArea::default(),
            batch: backend.batch(limits, &slots)?,
            slots,
            routing: backend.routing(group, arena.shape())?,
            arena,
            hidden: activations(group.tokens, config.hidden)?,
            normed: activations(group.rows(), config.hidden)?,
            projected: activations(group.tokens, heads.projected_width())?,
            attended: activations(group.tokens, heads.query_width())?,
            router: activations(group.tokens, config.experts.count)?,
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
