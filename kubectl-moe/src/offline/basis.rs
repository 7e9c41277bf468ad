//! What a plan, a replay or a size is made from: every report begins with it.

use serde::Serialize;

use super::input::Input;
use crate::words::counted;

#[derive(Debug, Serialize)]
pub(super) struct Basis {
    /// The load in words.
    #[serde(skip)]
    pub title: String,
    pub windows: usize,
    pub windows_without_load: usize,
    pub layers: usize,
    pub experts: usize,
    pub ranks: usize,
    pub nodes: usize,
}

impl Basis {
    /// Of as many of the load's layers as are planned for.
    pub fn of(input: &Input, layers: usize) -> Self {
        Self {
            title: input.title(),
            windows: input.windows.len(),
            windows_without_load: input.windows_without_load,
            layers,
            experts: input.experts(),
            ranks: input.ranks(),
            nodes: input.nodes,
        }
    }

    /// The load and the ranks in words.
    pub fn with_ranks(&self) -> String {
        format!("{}, {}", self.title, counted(self.ranks, "rank"))
    }
}
