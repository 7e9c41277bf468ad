//! The parts of a layer, on the activations of a step.

use std::sync::Arc;
use std::time::Instant;

use kernels::Backend;
use kernels::backend::{Choices, Groups, Rotation, RouterShape, Span, Write};
use plan::ids::LayerId;

use super::{ForwardError, ForwardTiming, Layer, Scratch};
use crate::experts::table::ExpertTable;
use crate::fabric::Fabric;
use crate::model::config::Config;
use crate::model::dispatch::Routed;

/// The group that a step's experts are spread over, as this rank sees it.
pub(super) struct Group<'a, B: Backend> {
    pub table: &'a mut ExpertTable<B::Page>,
    pub fabric: &'a mut dyn Fabric,
    pub timing: ForwardTiming,
}

/// What every layer of a forward pass needs.
pub(super) struct Pass<'a, B: Backend> {
    pub backend: &'a B,
    pub config: &'a Config,
    pub angles: &'a B::Buffer<f32>,
}

impl<B: Backend> Pass<'_, B> {
    /// Norm, projections, rotation, attention over the cache, output projection; added to `hidden`.
    pub fn attention(&self, layer: &Layer<B>, cache: &mut B::Cache, spans: &[Span<'_>], scratch: &mut Scratch<B>) {
        let Self { backend, config, angles } = *self;
        let Scratch { hidden, normed, projected, attended, positions, .. } = scratch;
        backend.rms_norm(hidden, &layer.input_norm, config.rms_epsilon, normed);
        backend.matmul(normed, &layer.projections, Write::Replace, projected);
        let rotation = Rotation {
            query_norm: &layer.query_norm,
            key_norm: &layer.key_norm,
            epsilon: config.rms_epsilon,
            angles,
            positions,
        };
        backend.rotate(projected, config.heads, &rotation);
        backend.store(cache, projected, spans);
        backend.attend(cache, projected, spans, attended);
        backend.matmul(attended, &layer.output, Write::Add, hidden);
    }

    /// One network for all tokens; added to `hidden`.
    pub fn dense(&self, page: &Arc<B::Page>, scratch: &mut Scratch<B>) {
        let Self { backend, config, .. } = *self;
        let Scratch { hidden, normed, results, ones, ids, identity, .. } = scratch;
        let rows = &identity[..ids.len()];
        backend.resize(ones, rows.len());
        backend.write(ones, 0, &vec![1.0; rows.len()]);
        backend.resize(results, rows.len() * config.hidden);
        let groups = Groups { starts: &[0, rows.len() as u32], rows };
        backend.feed_forward(std::slice::from_ref(page), groups, normed, results);
        backend.combine(results, Choices { rows, top_k: 1 }, ones, hidden);
    }

    /// Chooses the experts of every token.
    pub fn route(&self, router: &B::Matrix, scratch: &mut Scratch<B>) {
        let Config { experts, top_k, normalise_top_k, .. } = *self.config;
        let shape = RouterShape { experts, top_k, normalise: normalise_top_k };
        self.backend.matmul(&scratch.normed, router, Write::Replace, &mut scratch.router);
        self.backend.route(&scratch.router, shape, &mut scratch.experts, &mut scratch.weights);
    }

    /// Runs the chosen experts where they are and adds their weighted outputs to `hidden`.
    pub fn experts(
        &self,
        layer: LayerId,
        group: &mut Group<'_, B>,
        scratch: &mut Scratch<B>,
    ) -> Result<(), ForwardError> {
        let Self { backend, config, .. } = *self;
        let Group { table, fabric, timing } = group;
        let Scratch { hidden, normed, experts, weights, results, dispatch, tokens, .. } = scratch;
        let (ranks, slots, width) = (fabric.ranks(), table.shape().slots_per_rank, config.hidden);
        dispatch.begin(ranks, width);
        let routed = Routed { tokens, experts: &backend.read(experts), values: &backend.read(normed) };
        dispatch.choose(table, layer, routed);
        if ranks > 1 {
            let start = Instant::now();
            let mut len = tokens.len() * width;
            dispatch.exchange(*fabric, slots, |rows| append(backend, normed, &mut len, rows))?;
            timing.exchange += start.elapsed();
        }
        let start = Instant::now();
        let mut len = dispatch.pairs() * width;
        backend.resize(results, len);
        backend.feed_forward(table.pages(layer), dispatch.group(slots), normed, results);
        for slot in 0..slots {
            table.count(layer, slot.into(), dispatch.pairs_of(slot));
        }
        timing.experts += start.elapsed();
        if ranks > 1 {
            let start = Instant::now();
            dispatch.give_back(*fabric, &backend.read(results))?;
            dispatch.received(fabric.rank().index()).for_each(|rows| append(backend, results, &mut len, rows));
            timing.exchange += start.elapsed();
        }
        let rows = dispatch.results(fabric.rank().0);
        backend.combine(results, Choices { rows, top_k: config.top_k }, weights, hidden);
        Ok(())
    }
}

/// Puts rows behind the first `len` elements of a buffer.
fn append<B: Backend>(backend: &B, buffer: &mut B::Buffer<f32>, len: &mut usize, rows: &[f32]) {
    backend.resize(buffer, *len + rows.len());
    backend.write(buffer, *len, rows);
    *len += rows.len();
}
