#![forbid(unsafe_code)]
//! The MoEDeployment operator: custom resource types, reconcile, apply, status.

pub mod api;
