//! How a group is made.

use std::path::Path;
use std::time::Duration;

use plan::balance::Policy;
use runtime::experts::mover::Faults;
use runtime::experts::rebalance::Settings;

use super::tiny_model;

/// Maps that are asked for, each a random transaction away from the one in force.
#[derive(Clone, Copy)]
pub struct Moves {
    /// Steps from one to the next.
    pub every: u64,
    /// What they are drawn from.
    pub seed: u64,
    /// Steps wait for what moves, so that a test of few steps has many moves. Nothing else ever does.
    pub patient: bool,
}

/// How a group is made.
#[derive(Clone, Copy)]
pub struct Setup {
    /// The folder of the checkpoint.
    pub model: &'static Path,
    pub ranks: usize,
    pub redundancy: usize,
    pub settings: Settings,
    pub faults: Faults,
    pub move_bytes_per_second: u64,
    pub sequences_per_rank: u32,
    /// Experts move all the time.
    pub moves: Option<Moves>,
    pub policy: Policy,
}

impl Default for Setup {
    fn default() -> Self {
        let settings = Settings {
            dynamic: false,
            window_steps: 400,
            wait_steps: 30,
            staging_pages: 4,
            deadline: Duration::from_secs(10),
        };
        Self {
            model: tiny_model(),
            ranks: 4,
            redundancy: 4,
            settings,
            faults: Faults::default(),
            move_bytes_per_second: 0,
            sequences_per_rank: 64,
            moves: None,
            policy: Policy::default(),
        }
    }
}
