//! Every place where kernels wait for each other, or the host for the device, is left out alone: some test has to fail then. The list is
//! made of the source, and the emulated driver leaves a place out when it runs, so nothing is built again. What no test misses stands in
//! `survivors.txt`, with the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use libtest_mimic::Trial;
use tests::emulator::Emulator;
use tests::emulator::ran::{self, Ran};
use tests::emulator::sources::{self, Place};
use tests::figures::Figures;

use crate::cases::{self, Case, Driver};

/// How often a place is left out at most, each time with another seed.
const SEEDS: u64 = 20;

/// Asks for this, which takes longer than all tests.
pub const ASKED: &str = "SWIFTBALANCER_REMOVALS";

/// What an odd seed has besides: a chip that runs one block of a kernel at a time, which then does all of its work and meets itself.
const SMALL_CHIP: [(&str, &str); 2] = [("CUDA_MODEL_MULTIPROCESSORS", "1"), ("CUDA_MODEL_RESIDENT", "1")];

/// A test that does not end by then hangs. What waits in the model for longer than `MODEL_PATIENCE` seconds says so itself before.
const PATIENCE: Duration = Duration::from_mins(2);
const MODEL_PATIENCE: &str = "10";

/// What has to be found of all places, in percent.
const LEAST: usize = 95;

const SURVIVORS: &str = include_str!("survivors.txt");

/// In the folder of what ran: of which program and driver that is, and how long each test took.
const MADE_OF: &str = "made-of";
const TOOK: &str = "took";

/// What the tests of this program ran, as they were run with nothing left out.
pub struct Runs {
    emulator: Emulator,
    folder: PathBuf,
    took: Mutex<BTreeMap<String, Duration>>,
    learned: OnceLock<Result<Learned, String>>,
    /// Whether a test is right with nothing left out, by its title and seed.
    right: Mutex<BTreeMap<(String, u64), bool>>,
    /// Of the places that were left out, whether that was found, and how long it took to say so.
    outcomes: Mutex<BTreeMap<Place, (bool, Duration)>>,
}

/// What leaves a place out, and which tests come there, in the order in which they are tried.
type Learned = BTreeMap<Place, (String, Vec<Case>)>;

impl Runs {
    /// Of tests that say in a folder what they ran.
    pub fn new(emulator: &Emulator, folder: &Path) -> Arc<Self> {
        Arc::new(Self {
            emulator: emulator.clone(),
            folder: folder.to_owned(),
            took: Mutex::default(),
            learned: OnceLock::new(),
            right: Mutex::default(),
            outcomes: Mutex::default(),
        })
    }

    fn ran(&self, case: &Case) -> PathBuf {
        self.folder.join(format!("{}.txt", case.title()))
    }

    /// Has a process of a test say what it runs, and who waits in it for the device.
    pub fn note(&self, command: &mut Command, case: &Case) {
        let ran = self.ran(case);
        command.env("CUDA_MODEL_CALLS", ran.with_extension("calls")).env("CUDA_MODEL_RAN", ran);
    }

    /// Notes how long a test takes with one seed.
    pub fn took(&self, case: &Case, duration: Duration) {
        held(&self.took).insert(case.title(), duration);
    }

    fn learned(&self) -> Result<&Learned> {
        let learned = self.learned.get_or_init(|| self.learn().map_err(|error| format!("{error:#}")));
        learned.as_ref().map_err(|error| anyhow!("{error}"))
    }

    /// What the same program with the same kernels and driver ran before, if that is there.
    fn recall(&self) -> Result<()> {
        let program = std::fs::metadata(std::env::current_exe()?)?;
        let made_of = format!("{:?} {} {}", program.modified()?, program.len(), self.emulator.made_of()?);
        std::fs::create_dir_all(&self.folder)?;
        let [note, took] = [MADE_OF, TOOK].map(|name| self.folder.join(name));
        if std::fs::read_to_string(&note).is_ok_and(|before| before == made_of) {
            for line in std::fs::read_to_string(took).unwrap_or_default().lines() {
                let (milliseconds, title) = line.split_once(' ').with_context(|| line.to_owned())?;
                let took = Duration::from_millis(milliseconds.parse()?);
                held(&self.took).entry(title.to_owned()).or_insert(took);
            }
            return Ok(());
        }
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            // What ran by now is of this program.
            let is_known = path.file_stem().is_some_and(|stem| held(&self.took).contains_key(&*stem.to_string_lossy()));
            if !is_known {
                std::fs::remove_file(path)?;
            }
        }
        std::fs::write(note, made_of)?;
        Ok(())
    }

    /// Runs what has not run yet, and reads what came where.
    fn learn(&self) -> Result<Learned> {
        self.recall()?;
        let took = held(&self.took).clone();
        let missing: Mutex<Vec<Case>> =
            Mutex::new(cases::cases().filter(|case| !took.contains_key(&case.title())).collect());
        std::thread::scope(|scope| {
            let run = || -> Result<()> {
                loop {
                    let next = held(&missing).pop();
                    let Some(case) = next else { return Ok(()) };
                    let (began, folder) = (Instant::now(), tempfile::tempdir()?);
                    let mut command = case.command(&Driver::Emulated(self.emulator.clone()), folder.path())?;
                    self.note(&mut command, &case);
                    let output = command.output()?;
                    ensure!(
                        output.status.success(),
                        "{} fails: {}",
                        case.title(),
                        String::from_utf8_lossy(&output.stderr)
                    );
                    self.took(&case, began.elapsed());
                    let mut all = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.join(TOOK))?;
                    writeln!(all, "{} {}", began.elapsed().as_millis(), case.title())?;
                }
            };
            let other = scope.spawn(run);
            run()?;
            other.join().map_err(|_| anyhow!("a thread panicked"))?
        })?;
        let took = held(&self.took).clone();
        let mut all: Vec<Case> = cases::cases().collect();
        // What is about kernels alone has them do more than what a model's step asks of them; the quickest first.
        all.sort_by_key(|case| (!case.is_about_kernels(), took.get(&case.title()).copied()));
        let mut ran = Vec::new();
        for case in all {
            let file = self.ran(&case);
            ran.push((case, Ran::read(&file)?, ran::calls(&file.with_extension("calls"))?));
        }
        let mut learned = Learned::new();
        for place in sources::waits()? {
            let at = format!("{}:{}", place.file, place.line);
            let cases = ran.iter().filter(|(_, ran, _)| ran.waits.contains(&at)).map(|(case, ..)| *case).collect();
            learned.insert(place, (at, cases));
        }
        let addresses: BTreeSet<u64> = ran.iter().flat_map(|(_, _, calls)| calls.iter().copied()).collect();
        let lines = ran::places(&std::env::current_exe()?, &addresses)?;
        for place in sources::host_waits()? {
            let at = format!("/kernels/src/{}:{}", place.file, place.line);
            let is_there =
                |address: &&u64| lines.get(*address).is_some_and(|lines| lines.iter().any(|line| line.ends_with(&at)));
            let here: BTreeSet<u64> = addresses.iter().filter(is_there).copied().collect();
            let cases = ran.iter().filter(|(_, _, calls)| !calls.is_disjoint(&here)).map(|(case, ..)| *case).collect();
            let without: Vec<String> = here.iter().map(|address| format!("+{address:x}")).collect();
            learned.insert(place, (without.join(","), cases));
        }
        Ok(learned)
    }

    /// How a test fails with a seed, if it does.
    fn failure(&self, case: &Case, seed: u64, left_out: Option<(&Place, &str)>) -> Result<Option<String>> {
        let folder = tempfile::tempdir()?;
        let mut command = case.command(&Driver::Emulated(self.emulator.clone()), folder.path())?;
        command.env("CUDA_MODEL_SEED", seed.to_string()).env("CUDA_MODEL_PATIENCE", MODEL_PATIENCE);
        command.env_remove("CUDA_MODEL_RAN").env_remove("CUDA_MODEL_TRACE").stdin(Stdio::null());
        if is_small(seed) {
            command.envs(SMALL_CHIP);
        }
        if let Some((place, without)) = left_out {
            command.env("CUDA_MODEL_WITHOUT", without);
            if place.is_host {
                // What nobody waits for is to be late.
                command.env("CUDA_MODEL_DELAY_US", "400");
            }
        }
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let Ok(output) = runtime.block_on(async { tokio::time::timeout(PATIENCE, command.output()).await }) else {
            return Ok(Some("it does not end".to_owned()));
        };
        let output = output?;
        let told = String::from_utf8_lossy(&output.stderr);
        Ok((!output.status.success()).then(|| told.lines().next().unwrap_or("it fails").to_owned()))
    }

    fn is_right(&self, case: &Case, seed: u64) -> Result<bool> {
        let which = (case.title(), seed);
        let known = held(&self.right).get(&which).copied();
        if let Some(known) = known {
            return Ok(known);
        }
        let is_right = self.failure(case, seed, None)?.is_none();
        held(&self.right).insert(which, is_right);
        Ok(is_right)
    }

    /// Leaves a place out until a test fails that does not otherwise.
    fn is_found(&self, place: &Place) -> Result<bool> {
        let (without, cases) = self.learned()?.get(place).context("a place of the source")?;
        ensure!(!cases.is_empty(), "{place}: no test comes there");
        // Each test with two seeds, one of them on the small chip.
        for (seed, case) in (1..=SEEDS).zip(cases.iter().flat_map(|case| [case; 2]).cycle()) {
            if let Some(how) = self.failure(case, seed, Some((place, without)))?
                && self.is_right(case, seed)?
            {
                println!("{place}: {} with seed {seed}: {how}", case.title());
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn try_place(&self, place: &Place, reason: Option<&str>) -> Result<()> {
        self.learned()?;
        let began = Instant::now();
        let is_found = self.is_found(place)?;
        held(&self.outcomes).insert(place.clone(), (is_found, began.elapsed()));
        match (is_found, reason) {
            (true, None) | (false, Some(_)) => Ok(()),
            (true, Some(_)) => bail!("{place} is missed by a test: {} is not a survivor any more", place.name()),
            (false, None) => bail!(
                "{place}: no test fails without it; if it is needed a test has to, else take it away ({})",
                place.name()
            ),
        }
    }

    /// Tells how many were found, and what each place took; of all places also in the figures.
    ///
    /// # Errors
    /// If they are too few, or the figures cannot be written.
    pub fn tell(&self) -> Result<()> {
        let (outcomes, all) = (held(&self.outcomes), places()?);
        for (place, (is_found, took)) in &*outcomes {
            println!("{} {:.1} s {place}", if *is_found { "found" } else { "not found" }, took.as_secs_f64());
        }
        let (tried, found) = (outcomes.len(), outcomes.values().filter(|(found, _)| *found).count());
        let seconds = outcomes.values().map(|(_, took)| took.as_secs_f64()).sum::<f64>() / tried.max(1) as f64;
        println!("of {} places {tried} were left out, and {found} found by a test; {seconds:.1} s a place", all.len());
        if tried < all.len() {
            return Ok(());
        }
        let figures = Figures::begin("removals")?;
        figures.record("emulated: waits left out one by one that a test misses", format!("{found} of {tried}"))?;
        figures.record("emulated: to leave one out and find it, on average", format!("{seconds:.1} s"))?;
        for (place, _) in outcomes.iter().filter(|(_, (found, _))| !found) {
            figures.record("emulated: a wait that no test misses", place)?;
        }
        ensure!(found * 100 >= tried * LEAST, "{found} of {tried} are found, which is less than {LEAST} %");
        Ok(())
    }
}

fn held<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_small(seed: u64) -> bool {
    !seed.is_multiple_of(2)
}

/// The places that no test misses, with the reason of each.
fn survivors() -> Result<BTreeMap<&'static str, &'static str>> {
    let lines = SURVIVORS.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| line.split_once(": ").with_context(|| format!("{line:?} of survivors.txt gives no reason")))
        .collect()
}

fn places() -> Result<Vec<Place>> {
    Ok(sources::waits()?.into_iter().chain(sources::host_waits()?).collect())
}

/// One for each place.
pub fn trials(runs: &Arc<Runs>) -> Result<Vec<Trial>> {
    let mut survivors = survivors()?;
    let trial = |place: Place| {
        let (runs, reason) = (Arc::clone(runs), survivors.remove(&*place.name()));
        let name = format!("removals::{}:{}_{}", place.file, place.line, place.does);
        Trial::test(name, move || runs.try_place(&place, reason).map_err(|error| format!("{error:#}").into()))
    };
    let trials = places()?.into_iter().map(trial).collect();
    ensure!(survivors.is_empty(), "survivors.txt names places that are not there: {survivors:?}");
    Ok(trials)
}
