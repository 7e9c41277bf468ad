//! What every layer of a step needs, and what one with experts does.

use kernels::backend::{Backend, Write};
use kernels::queue::Queue;
use kernels::times::Activity;

use super::{ForwardError, Workspace};
use crate::fabric::exchange::Exchange;
use crate::model::config::Config;

/// What every layer of a forward pass needs.
pub(in crate::model) struct Pass<'a, B: Backend> {
    pub queue: &'a B::Queue,
    pub config: &'a Config,
    pub exchange: &'a mut dyn Exchange<B>,
}

impl<B: Backend> Pass<'_, B> {
    /// Chooses the experts of every token, runs them where they are and adds their weighted outputs to `hidden`.
    pub fn experts(
        &mut self,
        router: &B::Matrix,
        layer: usize,
        workspace: &mut Workspace<B>,
    ) -> Result<(), ForwardError> {
        let Self { queue, config, exchange } = self;
        let Workspace { arena, batch, slots, routing, hidden, normed, router: logits, results, .. } = workspace;
        queue.matmul(normed, router, Write::Replace, logits);
        queue.route(logits, config.router_shape(), routing);
        queue.choose(batch, slots, layer, routing);
        let is_alone = exchange.ranks() == 1;
        if !is_alone {
            queue.turn_to(Activity::Exchange, batch);
            exchange.dispatch(queue, routing, normed)?;
        }
        queue.turn_to(Activity::Experts, batch);
        queue.sort(slots, layer, routing);
        queue.experts(arena.memory(), routing, normed, results);
        if !is_alone {
            queue.turn_to(Activity::Exchange, batch);
            exchange.combine(queue, routing, results)?;
        }
        queue.turn_to(Activity::Other, batch);
        queue.combine(results, routing, hidden);
        Ok(())
    }
}
