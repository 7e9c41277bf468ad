//! A group of ranks in this process, on real sockets, with the smallest driver that can run it.

#![allow(dead_code, unused_imports, reason = "each test and benchmark uses its own part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "what goes wrong ends the test")]

mod deployment;
mod sequences;
mod setup;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use runtime::fabric::secret::Secret;

pub use self::deployment::Deployment;
pub use self::sequences::{Sequence, advance, advance_ahead, prefill};
pub use self::setup::{Moves, Setup};
pub use self::worker::{Worker, settings};

pub const PATIENCE: Duration = Duration::from_mins(1);
pub const BLOCK_TOKENS: u32 = 16;
/// Blocks of each sequence: 256 tokens.
pub const BLOCKS: u32 = 16;

pub fn checkpoint() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/models/tiny-moe")
}

fn tiny_model() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(checkpoint);
    &FOLDER
}

/// What the members of this process' groups share.
pub fn secret() -> Secret {
    static SECRET: LazyLock<Secret> = LazyLock::new(|| Secret::draw().unwrap());
    SECRET.clone()
}
