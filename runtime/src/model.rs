//! The model: its checkpoint, its forward pass and what is done with its logits.
//!
//! [`checkpoint::Checkpoint::open`] checks everything about a checkpoint that can be checked without its weights;
//! [`qwen3_moe::Model`] runs steps.

pub mod checkpoint;
pub mod config;
pub mod folder;
pub mod json;
pub mod qwen3_moe;
pub mod sampling;
pub mod sizes;
mod weights;
