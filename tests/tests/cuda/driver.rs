//! The driver's own tests, `tests/emulator/cases`: what a right program gets from it, and that each mistake is found.

use std::process::Command;

use anyhow::{Context, Result};
use libtest_mimic::Trial;
use tests::emulator::Emulator;

use crate::suite::{self, run_with_seeds};

/// One for each case, under its own name.
pub fn trials(emulator: &Emulator) -> Result<Vec<Trial>> {
    let listed = Command::new(emulator.cases()).output().context("the program of the cases does not start")?;
    let names = String::from_utf8(listed.stdout)?;
    Ok(names.lines().map(|name| trial(emulator, name.to_owned())).collect())
}

fn trial(emulator: &Emulator, name: String) -> Trial {
    let emulator = emulator.clone();
    Trial::test(format!("driver::{name}"), move || {
        let start = || {
            let mut command = Command::new(emulator.cases());
            command.arg(&name).envs(emulator.environment_of_cases());
            command
        };
        run_with_seeds(suite::seeds(3), start).map_err(|error| format!("{error:#}").into())
    })
}
