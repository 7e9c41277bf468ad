//! How a test runs: as a process with each of its seeds; and what the tests found, together.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use tests::emulator::Emulator;
use tests::figures::Figures;

/// With what a line of a test begins that is a figure.
const FIGURE: &str = "figure: ";

/// A test of a module that starts processes of its own, and what it is called.
pub type OnEmulator = (&'static str, fn(&Emulator) -> Result<()>);

/// The tests of a module, under its name.
pub fn trials_of(module: &str, emulator: &Emulator, tests: &[OnEmulator]) -> Vec<Trial> {
    let trial = |&(name, run): &OnEmulator| {
        let emulator = emulator.clone();
        Trial::test(format!("{module}::{name}"), move || run(&emulator).map_err(|error| format!("{error:#}").into()))
    };
    tests.iter().map(trial).collect()
}

/// How long all tests on the emulated GPU may take two processors.
const MOST: Duration = Duration::from_mins(10);
const PROCESSORS: u32 = 2;
/// Of a second, in what Linux says of a process.
const TICKS: u64 = 100;

/// What tests found, by their names.
#[derive(Clone, Debug, Default)]
pub struct Told(Arc<Mutex<BTreeMap<String, Vec<String>>>>);

impl Told {
    /// Keeps the figures of what a test said.
    pub fn keep(&self, name: &str, said: &str) {
        let figures = said.lines().filter_map(|line| line.strip_prefix(FIGURE)).map(str::to_owned).collect();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), figures);
    }

    /// Every figure, with its test's name.
    pub fn all(&self) -> Vec<(String, String)> {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.iter().flat_map(|(name, lines)| lines.iter().map(|line| (name.clone(), line.clone()))).collect()
    }

    /// Records what all tests on the emulated GPU found, and how long they took.
    ///
    /// # Errors
    /// If that is more than it may be: their processors' time, since the machine may have other work.
    pub fn record(&self, figures: &Figures, began: Instant) -> Result<()> {
        for (name, line) in self.all() {
            figures.record(&format!("emulated: {name}"), line)?;
        }
        let (took, busy) = (began.elapsed().as_secs(), processor_seconds()?);
        let most = MOST * PROCESSORS;
        figures
            .record("emulated: all tests", format!("{took} s, {busy} s of processors, at most {} s", most.as_secs()))?;
        ensure!(
            busy <= most.as_secs(),
            "the tests on the emulated GPU took {busy} s of processors: more than {most:?}"
        );
        Ok(())
    }
}

/// Seconds of processors that this process took, with all that it started and has waited for.
fn processor_seconds() -> Result<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // Its own time and that of others, of users and of the kernel, in ticks; the program's name stands before, in parentheses.
    let (_, fields) = stat.rsplit_once(')').context("a line about a process")?;
    let ticks = fields.split_whitespace().skip(11).take(4).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(ticks / TICKS)
}

/// The seeds of a test that asks for some: 1 to `count`, or the one that `CUDA_MODEL_SEED` says.
pub fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("CUDA_MODEL_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => (1..=count).collect(),
    }
}

/// Runs the program once a seed, and gives what it says. It must end well and say the same each time: no order that a GPU leaves open
/// may show.
pub fn run_with_seeds(seeds: Vec<u64>, start: impl Fn() -> Result<Command>) -> Result<String> {
    let mut said: Option<Vec<u8>> = None;
    for seed in seeds {
        let output =
            start()?.env("CUDA_MODEL_SEED", seed.to_string()).output().context("the test's program does not start")?;
        let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "with CUDA_MODEL_SEED={seed}: {}\n{told}", output.status);
        let before = said.get_or_insert_with(|| output.stdout.clone());
        ensure!(
            *before == output.stdout,
            "with CUDA_MODEL_SEED={seed} it says otherwise than with another seed:\n{told}"
        );
    }
    Ok(String::from_utf8_lossy(&said.unwrap_or_default()).into_owned())
}
