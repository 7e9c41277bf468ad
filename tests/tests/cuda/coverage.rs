//! What the suite as a whole has run on the emulated GPU: every kernel, every wrapper of what the machine does, and every function of the
//! device layer.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use tests::emulator::functions::{Function, Traced};
use tests::emulator::ran::Ran;
use tests::emulator::sources;
use tests::figures::Figures;
use tests::workspace::Binaries;

/// Functions of the device layer that nothing here runs: a new one has to be run.
const NOT_RUN: [&str; 11] = [
    // cuBLAS is compared with on a GPU alone, and is not emulated.
    "measure/dense.rs check",
    "measure/dense.rs products",
    "measure/dense.rs product",
    "measure/dense.rs drop",
    // No emulated driver fails as a process starts or is out of memory then, and its NCCL is there.
    "error.rs refused",
    "error.rs not_given",
    "failure.rs is_of_memory",
    "nccl/library.rs unusable",
    // Nobody has launches wait for their end: its own unit test says when that is.
    "link.rs has_launches_wait",
    // The host refuses first what a kernel could meet.
    "parameters.rs error_text",
    // Between layers of a model that has more than any here, on GPUs that ranks share, operation by operation.
    "queue.rs catch_up",
];

/// Has every program of the suite mark in a folder what it runs of the device layer.
pub fn begin(folder: &Path) -> Result<Traced> {
    let programs = [std::env::current_exe()?, env!("CARGO_BIN_EXE_gpu-bench").into(), Binaries::build()?.runtime];
    Traced::begin(&programs.map(|program: PathBuf| program.canonicalize().unwrap_or(program)), folder)
}

/// Compares what ran with what the sources have; both are told.
///
/// # Errors
/// If something did not run, or kernels meet the machine beside the header of wrappers.
pub fn check(traced: &Traced, folder: &Path, figures: &Figures) -> Result<()> {
    let (mut kernels, mut wrappers) = (BTreeSet::new(), BTreeSet::new());
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let ran = Ran::read(&path)?;
            kernels.extend(ran.kernels);
            wrappers.extend(ran.wrappers);
        }
    }
    let all = sources::kernels()?;
    figures.record("emulated: kernels that ran", of(&all, &kernels))?;
    let not_run: Vec<_> = all.difference(&kernels).collect();
    let all = sources::wrappers()?;
    figures.record("emulated: wrappers that ran", of(&all, &wrappers))?;
    let idle: Vec<_> = all.difference(&wrappers).collect();
    let found = traced.found()?;
    let is_known = |function: &&Function| {
        let name = format!("{} {}", function.file.trim_start_matches("kernels/src/cuda/"), function.name);
        NOT_RUN.contains(&name.as_str())
    };
    let (known, missed): (Vec<_>, Vec<_>) = found.missed.iter().partition(is_known);
    let (ran, nowhere) = (found.ran.len(), found.without_code.len());
    figures.record(
        "emulated: functions of the device layer that ran",
        format!("{ran} of {}; of {nowhere} more there is no code", ran + found.missed.len()),
    )?;
    for function in known {
        figures.record("emulated: function that did not run", function)?;
    }
    let missed: Vec<String> = missed.into_iter().map(ToString::to_string).collect();
    let outside = sources::outside_of_the_header()?;
    figures.record("emulated: places outside of the header of wrappers that meet the machine", outside.len())?;
    ensure!(outside.is_empty(), "these belong in device.cuh: {outside:?}");
    ensure!(
        not_run.is_empty() && idle.is_empty() && missed.is_empty(),
        "no test runs these kernels: {not_run:?}, these wrappers: {idle:?}, these functions: {missed:#?}"
    );
    Ok(())
}

fn of(all: &BTreeSet<String>, ran: &BTreeSet<String>) -> String {
    format!("{} of {}", all.intersection(ran).count(), all.len())
}
