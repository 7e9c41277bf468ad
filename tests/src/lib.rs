#![forbid(unsafe_code)]
//! The harness that gives a test a namespace on a real cluster, and what the cross-crate tests share.
