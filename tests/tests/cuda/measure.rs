//! The script that measures a GPU, run as it is on the emulated one: every stage does its work, says that it is emulated, and what was
//! found is told even when it is ended. It is not a measurement.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use tempfile::TempDir;
use tests::emulator::Emulator;
use tests::{wait, workspace};

use crate::cases;
use crate::suite::{OnEmulator, trials_of};

/// For a stage's first figure on a machine that compiles beside this.
const PATIENCE: Duration = Duration::from_mins(3);

/// What every line begins with.
const MARK: &str = "emulated: ";

/// The tests of this file.
pub fn trials(emulator: &Emulator) -> Vec<Trial> {
    let tests: &[OnEmulator] = &[
        ("every_stage_measures_and_says_that_it_is_emulated", every_stage_measures_and_says_that_it_is_emulated),
        ("what_was_found_is_told_when_it_is_ended", what_was_found_is_told_when_it_is_ended),
        ("what_was_not_checked_to_its_end_is_not_clean", what_was_not_checked_to_its_end_is_not_clean),
        ("stages_fit_into_their_call_and_what_is_checked_is_there", stages_fit_into_their_call),
    ];
    trials_of("measure", emulator, tests)
}

/// What stands for programs that a machine with a GPU may have.
const OTHERS: [(&str, &str); 3] = [
    // Runs the test as it is.
    (
        "compute-sanitizer",
        r#"for last; do :; done
"$last" && echo '========= ERROR SUMMARY: 0 errors'"#,
    ),
    (
        "ncu",
        r#"echo '==PROF== Connected to process 7'
echo '"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"'
for kernel in 'gated_bf16(ProductParameters)' 'product_bf16(ProductParameters)'; do
  echo '"0","'"$kernel"'","gpu__time_duration.sum","ns","1,000"'
  echo '"0","'"$kernel"'","dram__throughput.avg.pct_of_peak_sustained_elapsed","%","81.5"'
done
exit 137"#,
    ),
    ("python3", r#"echo '{"stage": "torch", "what": "small", "tokens": 32, "products us": 1.5}'"#),
];

/// The script with the programs of this build, on the emulated driver.
struct Script {
    programs: TempDir,
    /// Where it finds others.
    others: TempDir,
    out: TempDir,
}

/// Writes a program.
fn program(path: &Path, lines: &str) -> Result<()> {
    std::fs::write(path, format!("#!/bin/bash\n{lines}\n"))?;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?)
}

impl Script {
    fn new() -> Result<Self> {
        let programs = tempfile::tempdir()?;
        symlink(env!("CARGO_BIN_EXE_gpu-bench"), programs.path().join("gpu-bench"))?;
        symlink(workspace::Binaries::build()?.runtime, programs.path().join("swiftbalancer-runtime"))?;
        symlink(std::env::current_exe()?, programs.path().join("gpu-tests"))?;
        let others = tempfile::tempdir()?;
        for (name, lines) in OTHERS {
            program(&others.path().join(name), lines)?;
        }
        Ok(Self { programs, others, out: tempfile::tempdir()? })
    }

    fn command(&self, emulator: &Emulator, call: &str) -> Command {
        let mut command = Command::new(workspace::root().join("tests/gpu/measure.sh"));
        command.arg(call).arg(self.programs.path()).envs(emulator.environment()).env("OUT", self.out.path());
        command.env("SMALL", "1").env("SLOWER", "10").env("SECONDS_ALL", "3000").env("LOAD_SECONDS", "1");
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.others.path().display()));
        command.env("CHECKED", "a_table_gives_its_rows what_is_drawn_on_the_gpu_is_the_hosts_to_the_bit");
        command.env("TESTS", "cuda::a_table_gives_its_rows cuda::what_is_drawn_on_the_gpu");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn figures(&self) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(self.out.path().join("figures.jsonl"))?;
        text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }
}

fn every_stage_measures_and_says_that_it_is_emulated(emulator: &Emulator) -> Result<()> {
    let script = Script::new()?;
    for (call, stages) in [
        ("right", &["probe", "suite", "sanitizer", "ceilings"][..]),
        ("fast", &["ceilings", "products", "steps", "serving", "ncu", "torch"]),
    ] {
        let output = script.command(emulator, call).output()?;
        let told = String::from_utf8_lossy(&output.stdout);
        let log = std::fs::read_to_string(script.out.path().join("log"))?;
        ensure!(output.status.success(), "{}\n{told}\n{log}", output.status);
        for line in told.lines() {
            ensure!(line.starts_with(MARK), "{call}: {line:?} passes for a GPU's");
        }
        let figures = script.figures()?;
        ensure!(figures.iter().all(|figure| figure["on"] == "emulated"), "{figures:?}");
        for stage in stages {
            ensure!(figures.iter().any(|figure| figure["stage"] == *stage), "{call}: {stage} found nothing:\n{log}");
            ensure!(told.contains(&format!("{MARK}{stage} | ")), "{call}: {stage} is not in the table:\n{told}");
        }
        let all = |wanted: &dyn Fn(&Value) -> bool| figures.iter().filter(|figure| wanted(figure)).count();
        if call == "right" {
            let clean = all(&|figure| figure["stage"] == "sanitizer" && figure["ended"] == "clean");
            ensure!(clean == 6, "two tests under three tools are clean: {figures:?}");
        } else {
            is_what_it_claims(&figures)?;
        }
    }
    Ok(())
}

/// What the figures of `fast` are to be of, whatever they are.
fn is_what_it_claims(figures: &[Value]) -> Result<()> {
    let of = |stage: &str, what: &str| -> Vec<&Value> {
        figures.iter().filter(|figure| figure["stage"] == stage && figure["what"] == what).collect()
    };
    let place = |what: &str, limit: Option<&str>| {
        figures
            .iter()
            .position(|figure| figure["what"] == what && limit.is_none_or(|limit| figure["of reads"] == limit))
    };
    let (budget, commit) = (place("beside copies", Some("1 %")), place("commit", None));
    ensure!(
        budget < commit && commit < place("beside copies", Some("all")) && budget.is_some(),
        "moves at 1 %, commits, then the rest: {figures:?}"
    );
    for copies in of("steps", "beside copies") {
        let [each, in_turn] = [&copies["KiB each"], &copies["MiB in turn"]].map(|value| value.as_f64().unwrap_or(0.0));
        ensure!(in_turn * 1024.0 >= 2.0 * each, "copies go through more than they carry at a time: {copies}");
    }
    let small = of("steps", "4 KiB from the host");
    ensure!(small.iter().any(|figure| !figure["behind copies of KiB"].is_null()), "alone and behind others: {small:?}");
    let products = of("products", "small");
    for figure in &products {
        ensure!(figure["spread"] != "uniform" || figure["table %"].is_f64(), "beside no table: {figure}");
    }
    let ways = |kind: &str| products.iter().any(|figure| figure["as"] == kind);
    ensure!(ways("graph") && ways("launches"), "decode is measured in a graph, and prompts are not: {products:?}");
    let exchanged = of("serving", "load");
    ensure!(
        !exchanged.is_empty() && exchanged.iter().all(|figure| figure["exchange"] == "peer"),
        "ranks of one process exchange rows on their GPU: {exchanged:?}"
    );
    let profiled = of("ncu", "gated_bf16");
    ensure!(profiled.iter().any(|figure| figure["memory %"] == 81.5 && figure["ns"] == 1000.0), "{profiled:?}");
    Ok(())
}

fn what_was_not_checked_to_its_end_is_not_clean(_: &Emulator) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let checker = folder.path().join("compute-sanitizer");
    let check = |lines: &str, cases: &[&str]| -> Result<(bool, Vec<Value>)> {
        program(&checker, lines)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_gpu-bench"));
        command.args(["sanitizer", "--tool", "racecheck", "--program", "/bin/true", "--checker"]).arg(&checker);
        let output = command.args(cases).env("STAGE_SECONDS", "5").env_remove("CUDA_MODEL_KERNELS").output()?;
        let told = String::from_utf8(output.stdout)?;
        let figures: Result<Vec<Value>, _> = told.lines().map(serde_json::from_str).collect();
        Ok((output.status.success(), figures?))
    };
    let clean = "echo '========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)'";
    let (is_well, figures) = check(clean, &["one", "two"])?;
    ensure!(is_well && figures.len() == 3 && figures[2]["clean"] == 2, "{figures:?}");
    // It says that nothing was found, and does not end.
    let (is_well, figures) = check(&format!("{clean}\nsleep 600 & wait"), &["one", "two"])?;
    ensure!(is_well, "no finding: {figures:?}");
    let ended: Vec<&str> = figures.iter().filter_map(|figure| figure["ended"].as_str()).collect();
    ensure!(ended == ["ended at its limit, not checked to its end", "not begun, no time was left"], "{figures:?}");
    ensure!(figures[2]["clean"] == 0 && figures[2]["of tests"] == 2, "{figures:?}");
    let (is_well, figures) = check("echo '========= RACECHECK SUMMARY: 2 hazards displayed'\nexit 9", &["one"])?;
    ensure!(!is_well && figures[0]["ended"] == "findings", "{figures:?}");
    let (is_well, figures) = check("exit 0", &["one"])?;
    ensure!(!is_well && figures[0]["ended"] == "failed", "{figures:?}");
    Ok(())
}

/// What the script itself says.
fn stages_fit_into_their_call(_: &Emulator) -> Result<()> {
    let script = std::fs::read_to_string(workspace::root().join("tests/gpu/measure.sh"))?;
    for (call, most) in [("right", 200), ("fast", 420)] {
        let begin = format!("\n{call}() {{\n");
        let (_, body) = script.split_once(&begin).with_context(|| format!("no {call} in the script"))?;
        let (body, _) = body.split_once("\n}\n").context("an end of it")?;
        let mut limits = Vec::new();
        for line in body.lines().map(str::trim_start) {
            let limit = line.strip_prefix("stage ").or_else(|| line.strip_prefix("check "));
            limits.extend(limit.and_then(|rest| rest.split(' ').next()).map(str::parse::<u64>).transpose()?);
        }
        let all: u64 = limits.iter().sum();
        ensure!(limits.len() > 4 && all <= most, "{call}: {limits:?} are {all} s, and there are {most}");
    }
    let (_, names) = script.split_once("checked=${CHECKED:-").context("what is checked")?;
    let (names, _) = names.split_once('}').context("an end of it")?;
    let missing: Vec<&str> = names.split_whitespace().filter(|name| !cases::is_one(name)).collect();
    ensure!(missing.is_empty() && names.split_whitespace().count() > 5, "no tests: {missing:?}");
    Ok(())
}

fn what_was_found_is_told_when_it_is_ended(emulator: &Emulator) -> Result<()> {
    let script = Script::new()?;
    let child = script.command(emulator, "fast").spawn()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let has_figures = wait::until("the first stage has figures", PATIENCE, async || {
        ensure!(!script.figures()?.is_empty(), "nothing yet");
        Ok(())
    });
    runtime.block_on(has_figures)?;
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id())?).context("a process")?;
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    let output = child.wait_with_output()?;
    let told = String::from_utf8_lossy(&output.stdout);
    ensure!(!output.status.success(), "it was ended: {told}");
    ensure!(told.contains(&format!("{MARK}ceilings | ")), "the table is told: {told}");
    let left = |path: &Path| path.exists();
    ensure!(!left(&script.out.path().join("part")), "nothing is left half done");
    Ok(())
}
