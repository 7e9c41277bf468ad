#![forbid(unsafe_code)]
//! Serves Mixture-of-Experts models over N ranks and moves experts while it serves.

pub mod address;
pub mod args;
pub mod bounds;
pub mod cancel;
pub mod coordinator;
pub mod descriptors;
pub mod device;
pub mod draws;
pub mod engine;
pub mod experts;
pub mod fabric;
pub mod http;
pub mod inspect;
pub mod local;
pub mod memory;
pub mod model;
pub mod process_metrics;
pub mod protocol;
pub mod quoted;
pub mod room;
pub mod scheduler;
pub mod seldom;
pub mod server;
pub mod threads;
#[cfg(test)]
mod waiting;
pub mod worker;
