//! The CUDA backend.

pub mod parameters;
