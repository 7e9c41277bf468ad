#![forbid(unsafe_code)]
#![allow(
    clippy::missing_panics_doc,
    reason = "an `expect` states an invariant; where a caller could break it, it is documented"
)]
//! What an expert placement is and how to change it. Pure: no I/O, no clock, no randomness; equal inputs give equal
//! bytes.

pub mod balance;
pub mod bound;
pub mod coverage;
pub mod expected;
pub mod formats;
mod holders;
pub mod ids;
pub mod load;
pub mod map;
pub mod membership;
pub mod moves;
pub mod nearest;
pub mod policy;
pub mod proposal;
pub mod replay;
pub mod shares;
pub mod sizing;
pub mod slots;
pub mod topology;
mod transcendental;
pub mod tuning;
pub mod wire;
pub mod words;
