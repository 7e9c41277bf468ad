//! What must hold for every shape, load and pair of maps. A failing case prints its seed and its shrunken input.
#![allow(clippy::unwrap_used, reason = "the rule about tests does not reach functions that tests share")]

mod cases;
mod decisions;
mod documents;
mod losses;
mod moves;
mod noise;
mod pages;
mod plans;
