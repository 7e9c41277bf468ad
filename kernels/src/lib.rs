//! Tensor operations. The CPU backend is the specification that every other backend is compared with.
//!
//! Every result is a fixed sequence of roundings that depends on the inputs of its own row alone: not on the other rows,
//! on how work is split over threads, or on the instruction set. So a token's activations are the same bits in any
//! batch, on any rank and under any expert placement.
#![forbid(unsafe_code)]

pub mod backend;
pub mod cpu;
pub mod tensor;

pub use backend::Backend;
