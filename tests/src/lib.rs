#![forbid(unsafe_code)]
//! The harness that gives a test a namespace on a real cluster, the images that run there, and what the cross-crate tests
//! and the demo share.

pub mod admin;
#[cfg(feature = "cluster")]
pub mod chart;
#[cfg(feature = "cluster")]
pub mod cluster;
#[cfg(feature = "cluster")]
pub mod demo;
pub mod emulator;
pub mod figures;
pub mod image;
#[cfg(feature = "cluster")]
pub mod namespace;
#[cfg(feature = "cluster")]
pub mod traffic;
pub mod wait;
pub mod workspace;
