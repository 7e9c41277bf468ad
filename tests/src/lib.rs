#![forbid(unsafe_code)]
//! The harness that gives a test a namespace on a real cluster, the images that run there, and what the cross-crate tests
//! and the demo share.

pub mod admin;
pub mod chart;
pub mod cluster;
pub mod demo;
pub mod emulator;
pub mod figures;
pub mod image;
pub mod namespace;
pub mod traffic;
pub mod wait;
pub mod workspace;
