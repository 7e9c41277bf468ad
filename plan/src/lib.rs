#![forbid(unsafe_code)]
//! What an expert placement is and how to change it. Pure: no I/O, no clock, no randomness; equal inputs give equal
//! bytes.

pub mod ids;
pub mod load;
pub mod map;
pub mod moves;
pub mod wire;
