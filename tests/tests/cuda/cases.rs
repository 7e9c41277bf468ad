//! Tests that are functions of this program: each runs in a process of its own, started again with a driver and the name of its
//! test, once a seed.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use libtest_mimic::Trial;
use tests::emulator::Emulator;

use crate::model::Test;
use crate::suite::{self, Told, run_with_seeds};
use crate::{attention, exchange, experts, graphs, links, logits, model, moves, operations, pages};

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
    /// How many GPUs it needs.
    gpus: usize,
    run: fn() -> Result<()>,
}

fn cases() -> impl Iterator<Item = Case> {
    let parts = [operations::CASES, attention::CASES, experts::CASES, exchange::CASES, logits::CASES, pages::CASES];
    let of = |seeds, gpus| move |&(name, run): &Test| Case { name, seeds, faults: "", gpus, run };
    let operations = parts.into_iter().flatten().map(of(2, 1));
    let models = model::CASES.iter().chain(graphs::CASES).chain(links::ON_ONE_GPU).map(of(1, 1));
    let linked =
        links::ON_TWO_GPUS.iter().chain(moves::CASES).map(of(1, 2)).chain(links::ON_ALL_GPUS.iter().map(of(1, GPUS)));
    let (name, faults, run) = graphs::REFUSED;
    let refused = Case { name, seeds: 1, faults, gpus: 1, run };
    let (name, seeds, run) = links::WITH_MANY_SEEDS;
    // What takes longest begins first.
    let first = Case { name, seeds, faults: "", gpus: 2, run };
    std::iter::once(first).chain(operations).chain(models).chain(linked).chain([refused])
}

/// Whether there is a test of this name.
pub fn is_one(name: &str) -> bool {
    cases().any(|case| case.name == name)
}

/// What goes through every product, and runs on the oldest chip that is served too: the emulated one is usually of those that have
/// products of their own.
const ON_THE_OLDEST: [&str; 2] = [
    "experts_are_right_in_groups_of_any_size_and_a_move_changes_no_bit",
    "the_trained_model_has_the_references_logits",
];
const OLDEST: &str = "80";

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

/// Why a test does not run with a driver.
fn missing(case: &Case, driver: &Driver) -> Option<String> {
    let Driver::OfTheMachine { gpus } = driver else { return None };
    if graphs::is_counted(case.name) {
        return Some("it is about what is asked of the emulated driver, which counts that or refuses it".to_owned());
    }
    (case.gpus > *gpus).then(|| format!("it needs {} GPUs, and this machine has {gpus}", case.gpus))
}

/// One for each, under its own name; what does not run is ignored.
pub fn trials(driver: &Driver, told: &Told) -> Vec<Trial> {
    let one = |case: Case| {
        let is_left_out = missing(&case, driver).is_some();
        trial(driver.clone(), (case, None), told.clone()).with_ignored_flag(is_left_out)
    };
    let is_old = |case: &Case| matches!(driver, Driver::Emulated(_)) && ON_THE_OLDEST.contains(&case.name);
    let old = cases().filter(is_old).map(|case| trial(driver.clone(), (case, Some(OLDEST)), told.clone()));
    cases().map(one).chain(old).collect()
}

/// The tests that do not run with a driver, and why.
pub fn left_out(driver: &Driver) -> Vec<(String, String)> {
    cases().filter_map(|case| Some((format!("cuda::{}", case.name), missing(&case, driver)?))).collect()
}

/// A test on the chip that the driver shows, or on an emulated one of this capability.
fn trial(driver: Driver, (Case { name, seeds, faults, .. }, chip): (Case, Option<&'static str>), told: Told) -> Trial {
    let of_chip = chip.map(|chip| format!("sm_{chip}::")).unwrap_or_default();
    let full_name = format!("cuda::{of_chip}{name}");
    Trial::test(full_name, move || {
        let run = || -> Result<()> {
            let (program, folder) = (std::env::current_exe()?, tempfile::tempdir()?);
            let start = || {
                let mut command = Command::new(&program);
                // Ranks that share a GPU wait for each other on it: none of that is to stand before another's work.
                command.env(CASE, name).env("CUDA_DEVICE_MAX_CONNECTIONS", "32");
                if let Driver::Emulated(emulator) = &driver {
                    command.envs(emulator.environment()).env("CUDA_MODEL_FAULTS", faults);
                    command.envs(chip.map(|chip| ("CUDA_MODEL_CAPABILITY", chip)));
                    // Beside all else, what NCCL takes.
                    command.envs([("CUDA_MODEL_DEVICES", &*GPUS.to_string()), ("CUDA_MODEL_MEMORY_MB", "2048")]);
                    command.env("CUDA_MODEL_COUNTERS", folder.path().join("counters"));
                }
                command
            };
            told.keep(&format!("{of_chip}{name}"), &run_with_seeds(suite::seeds(seeds), start)?);
            Ok(())
        };
        run().map_err(|error| format!("{error:#}").into())
    })
}
