#![forbid(unsafe_code)]
//! The MoEDeployment operator. One pass of [`reconcile::reconcile`] goes observe, validate, decide, build, apply, report,
//! write status: one module each, of which only the first and the two that write talk to the API server.

pub mod admin_tokens;
pub mod api;
pub mod apply;
mod attempt;
mod backoff;
pub mod build;
pub mod context;
pub mod controller;
pub mod decide;
mod drift;
pub mod error;
pub mod gpus;
pub mod health;
pub mod host_paths;
pub mod keys;
mod lean;
pub mod metrics;
pub mod names;
pub mod nodes;
pub mod observe;
pub mod observed;
pub mod pods;
mod quantity;
pub mod ratio;
pub mod reach;
pub mod reconcile;
pub mod report;
pub mod revision;
pub mod runtime_client;
pub mod runtime_watch;
pub mod template;
pub mod validate;
pub mod words;
pub mod write_status;
