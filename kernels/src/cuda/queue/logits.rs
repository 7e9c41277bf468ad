//! What is asked of logits.

use std::ops::Range;

use super::super::batch::Batch;
use super::super::buffer::Buffer;
use super::super::parameters::{
    GATHER, GatherParameters, PART_TOKENS, SAMPLE_PARTS, SAMPLE_PICK, SAMPLE_WEIGH, SampleParameters,
};
use super::CudaQueue;

impl CudaQueue {
    pub(super) fn gather_rows(&self, x: &Buffer<f32>, batch: &Batch, asked: Range<usize>, out: &mut Buffer<f32>) {
        let width = x.len() / batch.tokens().max(1);
        out.set(batch.asked_rows(asked.start, asked.len()), width);
        self.changed(out);
        let parameters = GatherParameters {
            rows: out.rows(),
            x: x.address(),
            asked: batch.list(batch.layout().asked),
            out: out.address(),
            width: width as u32,
            unused: 0,
        };
        self.launch(&GATHER, asked.len(), &parameters);
    }

    pub(super) fn sample_rows(&self, logits: &Buffer<f32>, asked: Range<usize>, batch: &Batch) {
        let rows = asked.len();
        let vocabulary = logits.len() / rows.max(1);
        let (limits, scratch) = (batch.limits(), batch.scratch());
        assert!(rows <= limits.logit_rows && vocabulary <= limits.vocabulary, "logits within the limits of a step");
        let parameters = SampleParameters {
            rows: batch.asked_rows(asked.start, rows),
            logits: logits.address(),
            asked: batch.list(batch.layout().asked),
            parts: scratch.parts.address(),
            weights: scratch.weights.address(),
            bins: scratch.bins.address(),
            sampled: batch.sampled(),
            best: batch.best(),
            vocabulary: vocabulary as u32,
            unused: 0,
        };
        let parts = rows * vocabulary.div_ceil(PART_TOKENS);
        self.launch(&SAMPLE_PARTS, parts, &parameters);
        self.launch(&SAMPLE_WEIGH, parts, &parameters);
        self.launch(&SAMPLE_PICK, rows, &parameters);
    }
}
