//! The coordinator: what drives the ranks.

pub mod fleet;
