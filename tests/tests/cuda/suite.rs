//! How a test runs: as a process with each of its seeds.

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The seeds of a test that asks for some: 1 to `count`, or the one that `CUDA_MODEL_SEED` says.
pub fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("CUDA_MODEL_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => (1..=count).collect(),
    }
}

/// Runs the program once a seed. It must end well and say the same each time: no order that a GPU leaves open may show.
pub fn run_with_seeds(seeds: Vec<u64>, start: impl Fn() -> Command) -> Result<()> {
    let mut said: Option<Vec<u8>> = None;
    for seed in seeds {
        let output =
            start().env("CUDA_MODEL_SEED", seed.to_string()).output().context("the test's program does not start")?;
        let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "with CUDA_MODEL_SEED={seed}: {}\n{told}", output.status);
        let before = said.get_or_insert_with(|| output.stdout.clone());
        ensure!(
            *before == output.stdout,
            "with CUDA_MODEL_SEED={seed} it says otherwise than with another seed:\n{told}"
        );
    }
    Ok(())
}
