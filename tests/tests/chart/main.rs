#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
//! The chart, rendered by Helm over a matrix of values, without a cluster.

mod dashboards;
mod helm;
mod names;
mod reference;
mod rules;
mod values;
