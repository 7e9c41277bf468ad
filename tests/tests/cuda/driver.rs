//! The driver's own tests, `tests/emulator/cases`: what a right program gets from it, and that each mistake is found.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use tests::emulator::Emulator;
use tests::emulator::counters::Counters;

use crate::suite::{self, run_with_seeds};

/// One for each case, under its own name.
pub fn trials(emulator: &Emulator) -> Result<Vec<Trial>> {
    let listed = Command::new(emulator.cases()).output().context("the program of the cases does not start")?;
    let names = String::from_utf8(listed.stdout)?;
    let mut trials: Vec<Trial> = names.lines().map(|name| trial(emulator, name.to_owned())).collect();
    let emulator = emulator.clone();
    trials.push(Trial::test("driver::what_was_asked_of_it_is_counted_in_a_file", move || {
        counts_in_a_file(&emulator).map_err(|error| format!("{error:#}").into())
    }));
    Ok(trials)
}

/// Two streams captured into a graph of three operations, which is launched three times and then looked at.
fn counts_in_a_file(emulator: &Emulator) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("counters");
    let status = Command::new(emulator.cases())
        .arg("a_graph_replays_what_was_captured_on_two_streams")
        .envs(emulator.environment_of_cases())
        .env("CUDA_MODEL_COUNTERS", &file)
        .status()?;
    ensure!(status.success(), "the case fails: {status}");
    let counters = Counters::read(&file)?;
    let expected = Counters {
        synchronisations: 3,
        launches: 3,
        kernels: 6,
        allocations: 2,
        frees: 0,
        copies: 5,
        copied_bytes: 5 * 400,
        captures: 1,
        graph_launches: 3,
        tensor_maps: 0,
        findings: 0,
    };
    ensure!(counters == expected, "counted {counters:?}, not {expected:?}");
    Ok(())
}

fn trial(emulator: &Emulator, name: String) -> Trial {
    let emulator = emulator.clone();
    Trial::test(format!("driver::{name}"), move || {
        let start = || {
            let mut command = Command::new(emulator.cases());
            command.arg(&name).envs(emulator.environment_of_cases());
            Ok(command)
        };
        run_with_seeds(suite::seeds(3), start).map(drop).map_err(|error| format!("{error:#}").into())
    })
}
