//! Tests that are functions of this program: each runs in a process of its own, started again with a driver and the name of its
//! test, once a seed.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use libtest_mimic::Trial;
use tests::emulator::Emulator;

use crate::suite::{self, run_with_seeds};
use crate::{attention, exchange, experts, graphs, links, logits, model, operations, pages};

/// Names the test that a process is to run.
const CASE: &str = "SWIFTBALANCER_CUDA_CASE";

/// GPUs that each of them has.
pub const GPUS: usize = 4;

/// What tests meet.
#[derive(Clone, Debug)]
pub enum Driver {
    /// The one that this project emulates.
    Emulated(Emulator),
    /// The one that the machine has, for so many GPUs.
    OfTheMachine { gpus: usize },
}

/// A test: its name, and with how many seeds it runs; a driver that has none is to say the same as often.
struct Case {
    name: &'static str,
    seeds: u64,
    /// What fails in the driver, as its `CUDA_MODEL_FAULTS` says it.
    faults: &'static str,
    run: fn() -> Result<()>,
}

fn cases() -> impl Iterator<Item = Case> {
    let parts = [operations::CASES, attention::CASES, experts::CASES, exchange::CASES, logits::CASES, pages::CASES];
    let operations = parts.into_iter().flatten().map(|&(name, run)| Case { name, seeds: 2, faults: "", run });
    let models = model::CASES.iter().chain(links::CASES).chain(graphs::CASES);
    let models = models.map(|&(name, run)| Case { name, seeds: 1, faults: "", run });
    let (name, faults, run) = graphs::REFUSED;
    operations.chain(models).chain([Case { name, seeds: 1, faults, run }])
}

/// Runs the test for which this process was started, if it was.
pub fn run_the_one_asked_for() -> Option<ExitCode> {
    let name = std::env::var(CASE).ok()?;
    let done = cases()
        .find(|case| case.name == name)
        .with_context(|| format!("there is no test {name}"))
        .and_then(|case| (case.run)());
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    })
}

/// One for each, under its own name.
pub fn trials(driver: &Driver) -> Vec<Trial> {
    let is_linked = |name: &str| links::CASES.iter().any(|(linked, _)| *linked == name);
    let is_for = |case: &Case| match driver {
        Driver::Emulated(_) => true,
        Driver::OfTheMachine { gpus } => !graphs::is_counted(case.name) && (*gpus >= GPUS || !is_linked(case.name)),
    };
    cases().filter(is_for).map(|case| trial(driver.clone(), case)).collect()
}

fn trial(driver: Driver, Case { name, seeds, faults, .. }: Case) -> Trial {
    Trial::test(format!("cuda::{name}"), move || {
        let run = || -> Result<()> {
            let (program, folder) = (std::env::current_exe()?, tempfile::tempdir()?);
            let start = || {
                let mut command = Command::new(&program);
                command.env(CASE, name);
                if let Driver::Emulated(emulator) = &driver {
                    command.envs(emulator.environment()).env("CUDA_MODEL_FAULTS", faults);
                    command.env("CUDA_MODEL_DEVICES", GPUS.to_string());
                    command.env("CUDA_MODEL_COUNTERS", folder.path().join("counters"));
                }
                command
            };
            run_with_seeds(suite::seeds(seeds), start)
        };
        run().map_err(|error| format!("{error:#}").into())
    })
}
