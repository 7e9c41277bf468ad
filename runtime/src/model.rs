//! The model: its checkpoint, its forward pass and what is done with its logits.
//!
//! [`checkpoint::Checkpoint::open`] checks everything about a checkpoint that can be checked without its weights;
//! [`forward::Model`] runs steps.

pub(crate) mod attention;
pub mod checkpoint;
pub mod config;
pub mod folder;
pub mod forward;
pub mod json;
mod rotary;
pub mod sampling;
pub mod sizes;
mod weights;
