//! The parts of a layer, on the activations of a step.

use std::time::Instant;

use kernels::backend::{Backend, RouterShape, Write};
use kernels::queue::{Queue, Rotation};

use super::{ForwardError, ForwardTiming, Layer, Workspace};
use crate::fabric::exchange::Exchange;
use crate::model::config::Config;

/// What every layer of a forward pass needs.
pub(super) struct Pass<'a, B: Backend> {
    pub queue: &'a B::Queue,
    pub config: &'a Config,
    pub angles: &'a B::Buffer<f32>,
    pub exchange: &'a mut dyn Exchange<B>,
    pub timing: ForwardTiming,
}

impl<B: Backend> Pass<'_, B> {
    /// Norm, projections, rotation, attention over the cache, output projection; added to `hidden`.
    pub fn attention(&self, layer: &Layer<B>, cache: &mut B::Cache, workspace: &mut Workspace<B>) {
        let Self { queue, config, angles, .. } = *self;
        let Workspace { batch, hidden, normed, projected, attended, .. } = workspace;
        queue.rms_norm(hidden, &layer.input_norm, config.rms_epsilon, normed);
        queue.matmul(normed, &layer.projections, Write::Replace, projected);
        let rotation = Rotation {
            heads: config.heads,
            query_norm: &layer.query_norm,
            key_norm: &layer.key_norm,
            epsilon: config.rms_epsilon,
            angles,
        };
        queue.rotate(projected, batch, &rotation);
        queue.store(cache, projected, batch);
        queue.attend(cache, projected, batch, attended);
        queue.matmul(attended, &layer.output, Write::Add, hidden);
    }

    /// Chooses the experts of every token, runs them where they are and adds their weighted outputs to `hidden`.
    pub fn experts(
        &mut self,
        router: &B::Matrix,
        layer: usize,
        workspace: &mut Workspace<B>,
    ) -> Result<(), ForwardError> {
        let Self { queue, config, exchange, timing, .. } = self;
        let Workspace { arena, batch, slots, routing, hidden, normed, router: logits, results, .. } = workspace;
        let shape = RouterShape { experts: config.experts, top_k: config.top_k, normalise: config.normalise_top_k };
        queue.matmul(normed, router, Write::Replace, logits);
        queue.route(logits, shape, routing);
        queue.choose(batch, slots, layer, routing);
        let (alone, start) = (exchange.ranks() == 1, Instant::now());
        let mut dispatched = start;
        if !alone {
            exchange.dispatch(queue, routing, normed)?;
            dispatched = Instant::now();
        }
        queue.group(slots, layer, routing);
        queue.experts(arena.memory(), routing, normed, results);
        let computed = Instant::now();
        if !alone {
            exchange.combine(queue, routing, results)?;
            timing.exchange += (dispatched - start) + computed.elapsed();
        }
        timing.experts += computed - dispatched;
        queue.combine(results, routing, hidden);
        Ok(())
    }
}
