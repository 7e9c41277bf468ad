//! The model against transformers' own outputs, and against itself: on any number of ranks, under any placement, in any
//! batch and chunking its logits are the same bits.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod checkpoints;
#[path = "../../../kernels/tests/counting/mod.rs"]
mod counting;
#[path = "../device/mod.rs"]
mod device;
mod fixtures;
mod group;
mod invariance;
mod memory;
mod parity;
mod stops;
