#![forbid(unsafe_code)]
//! What the CUDA engine does on a machine's GPU, as lines of JSON, one a figure, which `table` puts together. `tests/gpu/measure.sh`
//! calls it stage by stage, each within its own time.
//!
//! On the emulated driver it does the same and says so in every line: that proves this program and nothing of a GPU.

mod ceilings;
mod figures;
mod products;
mod profile;
mod rank;
mod sanitizer;
mod serving;
mod steps;
mod suite;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use self::figures::Figures;

#[derive(Debug, Parser)]
struct Arguments {
    /// Sizes that take seconds on an emulated device
    #[arg(long, global = true)]
    small: bool,
    /// What is measured
    #[command(subcommand)]
    stage: Stage,
}

#[derive(Debug, Subcommand)]
enum Stage {
    /// What GPU and driver there are
    Probe,
    /// What the GPU can do at most: reads, copies, launches, dense products of cuBLAS
    Ceilings,
    /// The networks of a layer's experts, through pages in order and in disorder, beside cuBLAS
    Products {
        /// One shape alone
        #[arg(long, value_name = "NAME")]
        shape: Option<String>,
        /// One number of tokens alone
        #[arg(long, value_name = "N")]
        tokens: Option<usize>,
    },
    /// Decode steps of a whole model with drawn weights, with commits of slots and with copies beside them
    Steps {
        /// Folder with its config.json
        #[arg(long, value_name = "DIR")]
        model: PathBuf,
    },
    /// Two ranks on the GPU, with and without experts that move
    Serving {
        /// Folder with the model's config.json
        #[arg(long, value_name = "DIR")]
        model: PathBuf,
        /// The runtime's program
        #[arg(long, value_name = "FILE")]
        runtime: PathBuf,
        /// Seconds with, and as many without moves
        #[arg(long, value_name = "S", default_value_t = 20)]
        seconds: u64,
    },
    /// The tests of the CUDA engine on this machine's driver
    Suite {
        /// The tests' program
        #[arg(long, value_name = "FILE")]
        program: PathBuf,
        /// Those whose names contain one of these; all if there is none
        tests: Vec<String>,
    },
    /// The products under NVIDIA's profiler
    Profile {
        /// The profiler's program
        #[arg(long, value_name = "FILE")]
        profiler: PathBuf,
    },
    /// Tests of the CUDA engine under NVIDIA's checker, for as many seconds as `STAGE_SECONDS` says, or 60
    Sanitizer {
        /// The checker's program
        #[arg(long, value_name = "FILE")]
        checker: PathBuf,
        /// The part of it that checks
        #[arg(long, value_name = "NAME")]
        tool: String,
        /// The tests' program
        #[arg(long, value_name = "FILE")]
        program: PathBuf,
        /// The tests
        #[arg(required = true)]
        cases: Vec<String>,
    },
    /// Lines of all stages, from a file, as a table
    Table {
        /// The file
        #[arg(value_name = "FILE")]
        lines: PathBuf,
    },
}

fn main() -> ExitCode {
    let Arguments { small, stage } = Arguments::parse();
    let done = match stage {
        Stage::Probe => ceilings::probe(&Figures::of("probe")),
        Stage::Ceilings => ceilings::run(small, &Figures::of("ceilings")),
        Stage::Products { shape, tokens } => {
            products::run(small, &products::Chosen { shape, tokens }, &Figures::of("products"))
        }
        Stage::Steps { model } => steps::run(small, &model, &Figures::of("steps")),
        Stage::Serving { model, runtime, seconds } => {
            serving::run(&serving::Setup { small, model, runtime, seconds }, &Figures::of("serving"))
        }
        Stage::Suite { program, tests } => suite::run(&program, &tests, &Figures::of("suite")),
        Stage::Profile { profiler } => profile::run(small, &profiler, &Figures::of("ncu")),
        Stage::Sanitizer { checker, tool, program, cases } => sanitizer::seconds().and_then(|seconds| {
            sanitizer::run(&sanitizer::Setup { checker, tool, program, cases, seconds }, &Figures::of("sanitizer"))
        }),
        Stage::Table { lines } => table::print(&lines),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The least that some repetitions of a measurement gave: what disturbed it only ever made it longer.
fn least(repetitions: u32, measure: impl Fn() -> Result<f64>) -> Result<f64> {
    (0..repetitions).try_fold(f64::INFINITY, |least, _| Ok(least.min(measure()?)))
}
