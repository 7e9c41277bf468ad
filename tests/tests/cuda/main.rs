#![forbid(unsafe_code)]
//! Tests on the emulated CUDA driver, which is built first. Each runs in a process of its own, once a seed, since a driver's
//! state and what the model finds are a process's. Where there is no g++ every test is reported as ignored and the reason is
//! printed, unless `SWIFTBALANCER_EMULATOR=required` makes that a failure.
//!
//! With `SWIFTBALANCER_GPU` set those that are not about the emulated driver itself run on the machine's own GPU.

mod attention;
mod cases;
mod driver;
mod exchange;
mod experts;
mod graphs;
mod links;
mod logits;
mod measure;
mod model;
mod operations;
mod pages;
mod process;
mod steps;
mod suite;

use std::ffi::OsStr;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use tests::emulator::Emulator;

/// Has tests run on the machine's GPU; where it is `required` a machine without one fails them.
const ON_GPU: &str = "SWIFTBALANCER_GPU";

fn on_gpu(arguments: &Arguments, asked: &OsStr) -> ExitCode {
    let reason = match kernels::cuda::devices() {
        Ok(0) => "the driver shows no GPU".to_owned(),
        Ok(gpus) => {
            return libtest_mimic::run(arguments, cases::trials(&cases::Driver::OfTheMachine { gpus })).exit_code();
        }
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
    let arguments = Arguments::from_args();
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
    let mut trials: Vec<Trial> = match driver::trials(&emulator) {
        Ok(trials) => trials,
        Err(error) => {
            eprintln!("the driver's own tests cannot be listed: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    trials.extend(cases::trials(&cases::Driver::Emulated(emulator.clone())));
    trials.extend(measure::trials(&emulator));
    trials.extend(process::trials(&emulator));
    libtest_mimic::run(&arguments, trials).exit_code()
}
