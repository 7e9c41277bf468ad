//! What every layer of a step needs, and what one with experts does.

use std::time::Instant;

use kernels::backend::{Backend, Write};
use kernels::queue::Queue;

use super::{ForwardError, ForwardTiming, Workspace};
use crate::fabric::exchange::Exchange;
use crate::model::config::Config;

/// What every layer of a forward pass needs.
pub(in crate::model) struct Pass<'a, B: Backend> {
    pub queue: &'a B::Queue,
    pub config: &'a Config,
    pub exchange: &'a mut dyn Exchange<B>,
    pub timing: ForwardTiming,
}

impl<B: Backend> Pass<'_, B> {
    /// Chooses the experts of every token, runs them where they are and adds their weighted outputs to `hidden`.
    pub fn experts(
        &mut self,
        router: &B::Matrix,
        layer: usize,
        workspace: &mut Workspace<B>,
    ) -> Result<(), ForwardError> {
        let Self { queue, config, exchange, timing, .. } = self;
        let Workspace { arena, batch, slots, routing, hidden, normed, router: logits, results, .. } = workspace;
        queue.matmul(normed, router, Write::Replace, logits);
        queue.route(logits, config.router_shape(), routing);
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
