//! Judges the planner on the loads of `tests/bench/plan` beside the figures of other planners. Every plan is checked
//! here, and every figure is computed here, without the planner's own idea of it.
//!
//! `make bench-plan`, or `cargo bench -p plan --bench planner -- [--check] [--quick] [--loads DIR] [SECTION..]`; with `--tuning FILE`
//! it writes what the planner's numbers do, and nothing else.

mod assignment;
mod bound;
mod bursts;
mod clock;
mod figures;
mod groups;
mod loads;
mod loss;
mod memory;
mod nothing;
mod peers;
mod placement;
mod planners;
mod product;
mod quality;
mod report;
mod sequences;
mod shapes;
mod time;
mod tuning;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use loads::Loads;
use report::Report;
use shapes::{SHAPES, Shape};

/// What to measure, and how thoroughly.
struct Options {
    /// Fail if a target is missed.
    check: bool,
    /// Fewer shapes, families and repetitions: a sanity check in seconds.
    quick: bool,
    loads: Loads,
    sections: Vec<String>,
    /// Where to write what the planner's numbers do.
    tuning: Option<PathBuf>,
}

type Section = fn(&Options, &mut Report) -> Result<()>;

const SECTIONS: [(&str, Section); 9] = [
    ("quality", quality::quality),
    ("time", time::time),
    ("scaling", time::scaling),
    ("sequences", sequences::sequences),
    ("bursts", bursts::bursts),
    ("loss", loss::loss),
    ("groups", groups::groups),
    ("nothing", nothing::nothing),
    ("product", product::product),
];

/// Shapes of a quick run.
const QUICK: [&str; 3] = ["dsv3-32", "dsv3-72", "qwen235-16"];

fn main() -> Result<ExitCode> {
    let options = Options::parse(std::env::args().skip(1))?;
    if let Some(path) = &options.tuning {
        tuning::write(&options.loads, path)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut report = Report::default();
    if !options.loads.has_recorded() {
        report::warn(
            "no recorded loads (make bench-plan RECORDED=DIR): every row and target on recorded loads is left out",
        );
    }
    for (name, section) in SECTIONS.iter().filter(|(name, _)| options.wants(name)) {
        // What one section cannot do must not hide what the others find.
        if let Err(error) = section(&options, &mut report) {
            report.broken(name, &error);
        }
    }
    let met = report.conclude();
    Ok(if options.check && !met { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let (mut check, mut quick, mut sections, mut tuning) = (false, false, Vec::new(), None);
        let mut folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/plan-loads").to_owned();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--check" => check = true,
                "--quick" => quick = true,
                // Cargo passes it to every benchmark.
                "--bench" => {}
                "--tuning" => tuning = arguments.next().map(PathBuf::from),
                "--loads" => folder = arguments.next().unwrap_or(folder),
                section if SECTIONS.iter().any(|(name, _)| *name == section) => sections.push(argument),
                unknown => bail!("{unknown} is no option and no section; the sections are {:?}", SECTIONS.map(|s| s.0)),
            }
        }
        Ok(Self { check, quick, loads: Loads::new(folder.into()), sections, tuning })
    }

    fn shapes(&self) -> impl Iterator<Item = &'static Shape> {
        let quick = self.quick;
        SHAPES.iter().filter(move |shape| !quick || QUICK.contains(&shape.name))
    }

    fn wants(&self, section: &str) -> bool {
        self.sections.is_empty() || self.sections.iter().any(|wanted| wanted == section)
    }
}
