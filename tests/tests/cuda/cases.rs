//! Tests that are functions of this program: each runs in a process of its own, started again with a driver and the name of its
//! test, once a seed.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use libtest_mimic::Trial;
use tests::emulator::Emulator;

use crate::model::Test;
use crate::removals::Runs;
use crate::suite::{self, Told, run_with_seeds};
use crate::{attention, exchange, experts, graphs, links, logits, model, moves, operations, order, pages};

/// Names the test that a process is to run.
const CASE: &str = "SWIFTBALANCER_CUDA_CASE";

/// GPUs that each of them has.
pub const GPUS: usize = 4;

/// Seeds of a test of kernels, whose orders are a part of what they are.
const OF_KERNELS: u64 = 2;

/// What tests meet.
#[derive(Clone, Debug)]
pub enum Driver {
    /// The one that this project emulates.
    Emulated(Emulator),
    /// The one that the machine has, for so many GPUs.
    OfTheMachine { gpus: usize },
}

/// Variables of a process's environment.
pub type Settings = &'static [(&'static str, &'static str)];

/// A test whose process is told something, as it is about what the emulated driver does then.
pub type ToldCase = (&'static str, Settings, fn() -> Result<()>);

/// A test: its name, and with how many seeds it runs; a driver that has none is to say the same as often.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    name: &'static str,
    seeds: u64,
    /// What its process is told besides, such as what fails in the driver.
    settings: Settings,
    /// How many GPUs it needs.
    gpus: usize,
    /// The capability of the emulated chip, where it is not the usual one.
    chip: Option<&'static str>,
    run: fn() -> Result<()>,
}

impl Case {
    /// By which it is known.
    pub fn title(&self) -> String {
        self.chip.map(|chip| format!("sm_{chip}::")).unwrap_or_default() + self.name
    }

    /// Whether it is of kernels, one by one; else of a model's steps.
    pub fn is_about_kernels(&self) -> bool {
        self.seeds == OF_KERNELS
    }

    /// A process of it: this program with a driver, which counts in a folder what is asked of it.
    pub fn command(&self, driver: &Driver, folder: &Path) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        // Ranks that share a GPU wait for each other on it: none of that is to stand before another's work.
        command.env(CASE, self.name).env("CUDA_DEVICE_MAX_CONNECTIONS", "32");
        if let Driver::Emulated(emulator) = driver {
            command.envs(emulator.environment()).envs(self.settings.iter().copied());
            command.envs(self.chip.map(|chip| ("CUDA_MODEL_CAPABILITY", chip)));
            // Beside all else, what NCCL takes.
            command.envs([("CUDA_MODEL_DEVICES", &*GPUS.to_string()), ("CUDA_MODEL_MEMORY_MB", "2048")]);
            command.env("CUDA_MODEL_COUNTERS", folder.join("counters"));
        }
        Ok(command)
    }
}

/// All of them.
pub fn cases() -> impl Iterator<Item = Case> {
    let parts = [
        operations::CASES,
        attention::CASES,
        experts::CASES,
        exchange::CASES,
        logits::CASES,
        pages::CASES,
        order::CASES,
    ];
    let of = |seeds, gpus| move |&(name, run): &Test| Case { name, seeds, settings: &[], gpus, chip: None, run };
    let operations = parts.into_iter().flatten().map(of(OF_KERNELS, 1));
    let models = model::CASES.iter().chain(graphs::CASES).chain(links::ON_ONE_GPU).map(of(1, 1));
    let linked =
        links::ON_TWO_GPUS.iter().chain(moves::CASES).map(of(1, 2)).chain(links::ON_ALL_GPUS.iter().map(of(1, GPUS)));
    let told = |&(name, settings, run): &ToldCase| Case { name, seeds: 1, settings, gpus: 1, chip: None, run };
    let told = std::iter::once(&graphs::REFUSED).chain(order::TOLD).map(told);
    let (name, seeds, run) = links::WITH_MANY_SEEDS;
    // What takes longest begins first.
    let first = Case { name, seeds, settings: &[], gpus: 2, chip: None, run };
    let usual: Vec<Case> = std::iter::once(first).chain(operations).chain(models).chain(linked).chain(told).collect();
    let is_old = |case: &&Case| ON_THE_OLDEST.contains(&case.name);
    let old: Vec<Case> = usual.iter().filter(is_old).map(|case| Case { chip: Some(OLDEST), ..*case }).collect();
    usual.into_iter().chain(old)
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
    if graphs::is_counted(case.name) || !case.settings.is_empty() {
        return Some("it is about what is asked of the emulated driver, which counts that or refuses it".to_owned());
    }
    if case.chip.is_some() {
        return Some("it is about another chip".to_owned());
    }
    (case.gpus > *gpus).then(|| format!("it needs {} GPUs, and this machine has {gpus}", case.gpus))
}

/// One for each, under its own name; what does not run is ignored.
pub fn trials(driver: &Driver, told: &Told, runs: Option<&Arc<Runs>>) -> Vec<Trial> {
    let one = |case: Case| {
        let is_left_out = missing(&case, driver).is_some();
        trial(driver.clone(), case, (told.clone(), runs.cloned())).with_ignored_flag(is_left_out)
    };
    cases().map(one).collect()
}

/// The tests that do not run with a driver, and why.
pub fn left_out(driver: &Driver) -> Vec<(String, String)> {
    cases().filter_map(|case| Some((format!("cuda::{}", case.title()), missing(&case, driver)?))).collect()
}

fn trial(driver: Driver, case: Case, (told, runs): (Told, Option<Arc<Runs>>)) -> Trial {
    Trial::test(format!("cuda::{}", case.title()), move || {
        let run = || -> Result<()> {
            let (seeds, began, folder) = (suite::seeds(case.seeds), Instant::now(), tempfile::tempdir()?);
            let count = u32::try_from(seeds.len())?;
            let start = || {
                let mut command = case.command(&driver, folder.path())?;
                if let Some(runs) = &runs {
                    runs.note(&mut command, &case);
                }
                Ok(command)
            };
            told.keep(&case.title(), &run_with_seeds(seeds, start)?);
            if let Some(runs) = &runs {
                runs.took(&case, began.elapsed() / count);
            }
            Ok(())
        };
        run().map_err(|error| format!("{error:#}").into())
    })
}
