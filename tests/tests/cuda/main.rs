#![forbid(unsafe_code)]
//! Tests on the emulated CUDA driver, which is built first. Each runs in a process of its own, once a seed, since a driver's
//! state and what the model finds are a process's. Where there is no g++ every test is reported as ignored and the reason is
//! printed, unless `SWIFTBALANCER_EMULATOR=required` makes that a failure.
//!
//! With `SWIFTBALANCER_GPU` set those that are not about the emulated driver itself run on the machine's own GPU.

mod attention;
mod cases;
mod coverage;
mod driver;
mod exchange;
mod experts;
mod faults;
mod graphs;
mod links;
mod logits;
mod measure;
mod model;
mod moves;
mod operations;
mod order;
mod pages;
mod process;
mod refusals;
mod removals;
mod served;
mod steps;
mod suite;

use std::ffi::OsStr;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use libtest_mimic::{Arguments, Trial};
use tests::emulator::Emulator;
use tests::figures::Figures;
use tests::workspace;

use crate::removals::Runs;
use crate::suite::Told;

/// Has tests run on the machine's GPU; where it is `required` a machine without one fails them.
const ON_GPU: &str = "SWIFTBALANCER_GPU";

/// Runs what so many GPUs are enough for, and says what is left out and why.
fn on_gpus(arguments: &Arguments, gpus: usize) -> ExitCode {
    let (driver, told) = (cases::Driver::OfTheMachine { gpus }, Told::default());
    let is_asked = |name: &str| arguments.filter.as_ref().is_none_or(|filter| name.contains(filter));
    for (name, reason) in cases::left_out(&driver).iter().filter(|(name, _)| is_asked(name)) {
        println!("left out: {name}: {reason}");
    }
    let conclusion = libtest_mimic::run(arguments, cases::trials(&driver, &told, None));
    for (name, figure) in told.all() {
        println!("figure: {name}: {figure}");
    }
    conclusion.exit_code()
}

fn on_gpu(arguments: &Arguments, asked: &OsStr) -> ExitCode {
    let reason = match kernels::cuda::devices() {
        Ok(0) => "the driver shows no GPU".to_owned(),
        Ok(gpus) => return on_gpus(arguments, gpus),
        Err(error) => error.to_string(),
    };
    eprintln!("THE TESTS ON A GPU WERE NOT RUN. {reason}\n");
    if asked == "required" {
        return ExitCode::FAILURE;
    }
    let ignored = Trial::test("gpu", || Ok(())).with_ignored_flag(true);
    libtest_mimic::run(arguments, vec![ignored]).exit_code()
}

fn main() -> ExitCode {
    if let Some(ended) = cases::run_the_one_asked_for() {
        return ended;
    }
    let (arguments, began) = (Arguments::from_args(), Instant::now());
    if let Some(asked) = std::env::var_os(ON_GPU) {
        return on_gpu(&arguments, &asked);
    }
    let unavailable = Emulator::unavailable();
    if let Some(reason) = &unavailable {
        if std::env::var_os("SWIFTBALANCER_EMULATOR").is_some_and(|value| value == "required") {
            eprintln!("the tests on the emulated GPU are required and cannot run: {reason}");
            return ExitCode::FAILURE;
        }
        let ignored = Trial::test("emulated_gpu", || Ok(())).with_ignored_flag(true);
        eprintln!("THE TESTS ON THE EMULATED GPU WERE NOT RUN. {reason}\n");
        return libtest_mimic::run(&arguments, vec![ignored]).exit_code();
    }
    let emulator = match Emulator::build() {
        Ok(emulator) => emulator,
        Err(error) => {
            eprintln!("the emulated GPU does not build: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    match on_emulator(&emulator, &arguments, began) {
        Ok(ended) => ended,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn on_emulator(emulator: &Emulator, arguments: &Arguments, began: Instant) -> Result<ExitCode> {
    let Arguments { filter, skip, list, exact, ignored, .. } = arguments;
    let is_whole = filter.is_none() && skip.is_empty() && !list && !exact && !ignored;
    let (told, folder) = (Told::default(), tempfile::tempdir()?);
    let traced = is_whole.then(|| coverage::begin(folder.path())).transpose()?;
    let emulator = &emulator.telling(folder.path());
    let all = std::env::var_os(removals::ASKED).is_some();
    let kept = workspace::target().join("removals");
    let runs = Runs::new(emulator, if all && !is_whole { &kept } else { folder.path() });
    let mut trials = driver::trials(emulator).context("the driver's own tests cannot be listed")?;
    trials.extend(cases::trials(&cases::Driver::Emulated(emulator.clone()), &told, Some(&runs)));
    trials.extend(measure::trials(emulator));
    trials.extend(process::trials(emulator));
    trials.extend(served::trials(emulator));
    let conclusion = libtest_mimic::run(arguments, trials);
    if conclusion.has_failed() || !(is_whole || all) {
        return Ok(conclusion.exit_code());
    }
    if let Some(traced) = traced {
        let figures = Figures::begin("emulated-gpu")?;
        told.record(&figures, began)?;
        coverage::check(&traced, folder.path(), &figures)?;
    }
    // What each test runs is known by now.
    let removals = removals::trials(&runs)?;
    if !all {
        return Ok(conclusion.exit_code());
    }
    let conclusion = libtest_mimic::run(arguments, removals);
    runs.tell()?;
    Ok(conclusion.exit_code())
}
