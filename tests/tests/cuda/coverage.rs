//! What the suite as a whole has run on the emulated GPU: every kernel, every wrapper of what the machine does, and every function of the
//! device layer.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use tests::emulator::functions::Traced;
use tests::emulator::ran::Ran;
use tests::emulator::sources;
use tests::figures::Figures;
use tests::workspace::Binaries;

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
    let (ran, nowhere) = (found.ran.len(), found.without_code.len());
    figures.record(
        "emulated: functions of the device layer that ran",
        format!("{ran} of {}; of {nowhere} more there is no code", ran + found.missed.len()),
    )?;
    let missed: Vec<String> = found.missed.iter().map(ToString::to_string).collect();
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
