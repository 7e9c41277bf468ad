#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
//! Downloads from servers of this process that speak the protocols of a hub and of a store, and that fail on demand.

mod fake_hub;
mod fake_store;
mod hub;
mod process;
mod s3;
mod server;

use std::path::Path;
use std::time::Duration;

use download::backoff::Backoff;
use download::error::DownloadError;
use download::folder::Record;
use download::http::Timeouts;
use download::progress::Progress;
use download::run::{Settings, run};
use download::source::Source;

/// Settings under which failures are soon tried again.
fn settings(source: Source, folder: &Path) -> Settings {
    let backoff = Backoff {
        first: Duration::from_millis(1),
        longest: Duration::from_millis(5),
        attempts: 4,
        ..Backoff::default()
    };
    let timeouts = Timeouts { connect: Duration::from_secs(5), silence: Duration::from_secs(5) };
    let lock_poll = Duration::from_millis(5);
    Settings { source, commit: None, folder: folder.to_owned(), backoff, timeouts, lock_poll }
}

/// One download from its beginning to its end.
fn download(settings: &Settings) -> Result<Record, DownloadError> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(run(settings, &Progress::default()))
}

/// Bytes that differ from file to file, and from place to place.
fn bytes(count: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..count).map(|_| next()).collect()
}
