#![forbid(unsafe_code)]
//! Downloads a checkpoint into a folder that is there when it is whole, and not before. What was downloaded is not asked for again,
//! whatever interrupts; what arrives is held to what the source says of it.

pub mod args;
pub mod backoff;
pub(crate) mod digest;
pub mod error;
mod fetch;
pub mod files;
pub mod folder;
pub mod http;
pub mod hub;
pub mod last_word;
pub mod progress;
pub mod run;
pub mod s3;
pub mod source;
