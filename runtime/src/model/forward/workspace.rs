//! Device memory of a rank's steps in one group: as much as the largest step needs, made when the group forms.

use std::sync::Arc;

use kernels::backend::PageShape;
use kernels::batch::StepLimits;
use kernels::routing::{GroupShape, LayerRouting};
use kernels::{Arena, Backend, DeviceError, Queue, StepArea};

use super::{CacheSize, KvCache, LOGIT_ROWS};
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
    /// Tokens that no rank has more of in the step.
    pub(super) padded: usize,
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

/// Elements of each of a workspace's buffers.
struct Elements {
    hidden: usize,
    normed: usize,
    projected: usize,
    attended: usize,
    router: usize,
    results: usize,
    rows: usize,
    logits: usize,
}

impl Elements {
    fn of(config: &Config, group: GroupShape) -> Self {
        let (heads, logit_rows) = (attention::heads(config), LOGIT_ROWS.min(group.tokens));
        Self {
            hidden: group.tokens.saturating_mul(config.hidden),
            normed: group.rows().saturating_mul(config.hidden),
            projected: group.tokens.saturating_mul(heads.projected_width()),
            attended: group.tokens.saturating_mul(heads.query_width()),
            router: group.tokens.saturating_mul(config.experts.count),
            results: group.results().saturating_mul(config.hidden),
            rows: logit_rows.saturating_mul(config.hidden),
            logits: logit_rows.saturating_mul(config.vocabulary),
        }
    }
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
        group: GroupShape,
        layers: Vec<LayerRouting>,
    ) -> Result<Self, DeviceError> {
        let backend = Arc::clone(arena.backend());
        let (limits, elements) = (limits(config, group, cache.size), Elements::of(config, group));
        let slots = backend.slots(group, layers)?;
        Ok(Self {
            limits,
            cache,
            area: StepArea::with_room(&limits)?,
            padded: 0,
            batch: backend.batch(limits, &slots)?,
            slots,
            routing: backend.routing(group, arena.shape())?,
            arena,
            hidden: backend.buffer(elements.hidden)?,
            normed: backend.buffer(elements.normed)?,
            projected: backend.buffer(elements.projected)?,
            attended: backend.buffer(elements.attended)?,
            router: backend.buffer(elements.router)?,
            results: backend.buffer(elements.results)?,
            rows: backend.buffer(elements.rows)?,
            logits: backend.buffer(elements.logits)?,
        })
    }

    /// Whether such a device serves a model of this configuration in a group of this shape, with experts in pages of this shape.
    ///
    /// # Errors
    /// If it never does.
    pub fn check(config: &Config, group: GroupShape, page: PageShape) -> Result<(), DeviceError> {
        B::check_shape(limits(config, group, CacheSize { blocks: 0, block_tokens: 0 }), group, page)
    }

    /// Bytes that one takes of the device's memory, with experts in pages of this shape.
    #[must_use]
    pub fn bytes(config: &Config, cache: CacheSize, group: GroupShape, page: PageShape) -> u64 {
        let Elements { hidden, normed, projected, attended, router, results, rows, logits } =
            Elements::of(config, group);
        let buffers = [hidden, normed, projected, attended, router, results, rows, logits].into_iter();
        let elements = buffers.fold(0, |sum: u64, elements| sum.saturating_add(elements as u64));
        let of_step = B::step_bytes(limits(config, group, cache), group, config.experts.count, page);
        elements.saturating_mul(size_of::<f32>() as u64).saturating_add(of_step)
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

    /// The first operation of a step.
    pub(super) fn begin(&mut self, queue: &B::Queue) {
        queue.begin(&mut self.batch, &mut self.slots);
    }

    /// The last.
    pub(super) fn finish(&mut self, queue: &B::Queue) {
        queue.finish(&mut self.batch, &mut self.slots);
    }
}

/// The largest step of a group.
fn limits(config: &Config, group: GroupShape, cache: CacheSize) -> StepLimits {
    let dense = config.layers.iter().map(|layer| match layer {
        FeedForward::Dense { intermediate, .. } => *intermediate,
        FeedForward::Sparse => 0,
    });
    StepLimits {
        tokens: group.tokens,
        blocks: cache.blocks,
        block_tokens: cache.block_tokens,
        logit_rows: LOGIT_ROWS.min(group.tokens),
        vocabulary: config.vocabulary,
        hidden: config.hidden,
        intermediate: dense.max().unwrap_or(0),
        heads: attention::heads(config),
    }
}
