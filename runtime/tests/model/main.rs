//! The model against transformers' own outputs, and against itself: on any number of ranks, under any placement, in any
//! batch and chunking its logits are the same bits.

mod checkpoints;
mod fixtures;
mod group;
mod invariance;
mod parity;
