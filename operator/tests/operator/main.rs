#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
//! Tests of the operator: what the definition refuses, what follows from a specification, and the whole controller
//! against an API server in memory.

mod calls;
mod cluster;
mod controller;
mod desired;
mod documentation;
mod fake_api;
mod fake_runtime;
mod specification;
mod status;
mod templates;
