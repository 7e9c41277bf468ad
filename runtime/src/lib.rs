#![forbid(unsafe_code)]
//! Serves Mixture-of-Experts models over N ranks and moves experts while it serves.

pub mod coordinator;
pub mod experts;
pub mod fabric;
pub mod model;
pub mod protocol;
pub mod scheduler;
pub mod server;
