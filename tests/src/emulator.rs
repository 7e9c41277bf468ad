//! Builds the emulated CUDA driver of `tests/emulator` and the product's kernels for it, with g++, into `target/emulator`. What
//! is there already under the hash of its sources is used again. Knows nothing of what is tested with it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};
use plan::words::hexadecimal;
use sha2::{Digest, Sha256};

use crate::image::shared_libraries;
use crate::workspace;

pub mod counters;
pub mod functions;
pub mod ran;
pub mod sources;

const WARNINGS: &[&str] = &["-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers"];
const ALWAYS: &[&str] = &["-std=c++20", "-O2", "-g1", "-fPIC", "-pthread", "-fvisibility=hidden"];
/// Of kernels: each access calls the driver, which checks it, and no product and sum become one operation unless the source says so.
const KERNEL: &[&str] = &[
    "-DSWIFTBALANCER_MODEL",
    "-Wno-unknown-pragmas",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fsanitize=thread",
    "--param",
    "tsan-instrument-func-entry-exit=0",
];

/// The emulated driver, built.
#[derive(Clone, Debug)]
pub struct Emulator {
    folder: PathBuf,
    /// Where processes say what ran in them, if that is asked.
    ran: Option<PathBuf>,
}

impl Emulator {
    /// Why it cannot be built here, if it cannot.
    #[must_use]
    pub fn unavailable() -> Option<String> {
        let found = Command::new("g++").arg("--version").output();
        match found {
            Ok(output) if output.status.success() && cfg!(target_arch = "x86_64") => None,
            Ok(_) => Some("the emulated GPU runs on x86-64 alone".to_owned()),
            Err(error) => Some(format!("g++, which builds the emulated GPU, does not start: {error}")),
        }
    }

    /// Brings it up to date; others that want to at the same time wait.
    ///
    /// # Errors
    /// If a source does not compile; with what the compiler said.
    pub fn build() -> Result<Self> {
        let folder = workspace::target().join("emulator");
        let objects = folder.join("objects");
        fs::create_dir_all(&objects)?;
        let lock = File::create(folder.join("lock"))?;
        lock.lock()?;
        let build = Build { sources: workspace::root().join("tests/emulator"), folder, objects };
        build.driver()?;
        build.library("libnvrtc.so", &["nvrtc"], &["-ldl"])?;
        build.library("libnvidia-ml.so.1", &["nvml"], &[])?;
        build.library("libtrace.so", &["trace"], &[])?;
        let driver = format!("-L{}", build.folder.display());
        for (library, folder) in [("libnccl.so.2", "nccl"), ("libcublas.so", "cublas")] {
            build.library(library, &[folder], &[&driver, "-l:libcuda.so.1", "-Wl,--no-undefined"])?;
        }
        build.kernels("product.so", &workspace::root().join("kernels/cu"))?;
        build.kernels("cases.so", &build.sources.join("cases"))?;
        build.cases()?;
        Ok(Self { folder: build.folder.clone(), ran: None })
    }

    /// The same, whose processes say in a folder what ran in them.
    #[must_use]
    pub fn telling(&self, ran: &Path) -> Self {
        Self { ran: Some(ran.to_owned()), ..self.clone() }
    }

    /// Where its libraries are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What a process must be started with to meet the emulated driver with the product's kernels.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        let mut environment = self.environment_with("product.so");
        if let Some(ran) = &self.ran {
            environment.push(("CUDA_MODEL_RAN", ran.join("product.txt").into_os_string()));
            environment.push(("CUDA_MODEL_TRACE", ran.clone().into_os_string()));
            environment.push(("LD_PRELOAD", self.folder.join("libtrace.so").into_os_string()));
        }
        environment
    }

    /// The same with the kernels of the driver's own tests.
    #[must_use]
    pub fn environment_of_cases(&self) -> Vec<(&'static str, OsString)> {
        self.environment_with("cases.so")
    }

    fn environment_with(&self, kernels: &str) -> Vec<(&'static str, OsString)> {
        let mut path = self.folder.clone().into_os_string();
        if let Some(before) = std::env::var_os("LD_LIBRARY_PATH").filter(|before| !before.is_empty()) {
            path.push(":");
            path.push(before);
        }
        vec![("LD_LIBRARY_PATH", path), ("CUDA_MODEL_KERNELS", self.folder.join(kernels).into_os_string())]
    }

    /// Copies it into a folder with the product's kernels and the libraries that it names itself, for processes that find
    /// nothing of this machine but that folder. NCCL is no part of a driver.
    ///
    /// # Errors
    /// If a file cannot be copied, or a library is missing here.
    pub fn install(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        let own = ["libcuda.so.1", "libnvrtc.so", "libnvidia-ml.so.1", "product.so"];
        let own = own.map(|name| self.folder.join(name));
        // The C library is the process's own, which is this machine's too.
        let named = shared_libraries(&own[0])?.into_iter().filter(|library| {
            let name = library.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
            !["ld-linux", "libc.so"].iter().any(|start| name.starts_with(start))
        });
        for file in own.iter().cloned().chain(named) {
            let name = file.file_name().context("a library has a name")?;
            fs::copy(&file, folder.join(name)).with_context(|| format!("copying {}", file.display()))?;
        }
        Ok(())
    }

    /// What the driver and the product's kernels were made of.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn made_of(&self) -> Result<String> {
        let parts = ["libcuda.so.1", "libnccl.so.2", "product.so"];
        let parts = parts.map(|name| fs::read_to_string(self.folder.join(format!("{name}.made-of"))));
        Ok(parts.into_iter().collect::<Result<Vec<_>, _>>()?.join(" "))
    }

    /// The program of the driver's own tests: it lists its cases, or runs the one that is named.
    #[must_use]
    pub fn cases(&self) -> PathBuf {
        self.folder.join("cases")
    }
}

struct Build {
    sources: PathBuf,
    folder: PathBuf,
    objects: PathBuf,
}

/// One call of the compiler.
struct Unit {
    source: PathBuf,
    flags: Vec<String>,
    /// Text of the unit where it is more than the file.
    text: Option<String>,
}

impl Build {
    fn driver(&self) -> Result<()> {
        self.library("libcuda.so.1", &["driver"], &["-ldl", "-Wl,--no-undefined"])?;
        let link = self.folder.join("libcuda.so");
        if !link.exists() {
            std::os::unix::fs::symlink("libcuda.so.1", link)?;
        }
        Ok(())
    }

    fn include(&self) -> Vec<String> {
        let kernels = workspace::root().join("kernels/cu");
        [&self.sources, &self.sources.join("driver"), &kernels].map(|folder| format!("-I{}", folder.display())).to_vec()
    }

    fn library(&self, name: &str, folders: &[&str], libraries: &[&str]) -> Result<()> {
        let mut units = Vec::new();
        for folder in folders {
            for source in with_extension(&self.sources.join(folder), "cpp")? {
                units.push(Unit { source, flags: self.include(), text: None });
            }
        }
        let mut flags = vec!["-shared".to_owned(), format!("-Wl,-soname,{name}")];
        flags.extend(libraries.iter().map(|&flag| flag.to_owned()));
        self.link(name, &units, &flags)
    }

    /// A library of every kernel in the `.cu` files of a folder, with the table by which the driver finds them.
    fn kernels(&self, name: &str, folder: &Path) -> Result<()> {
        let mut units = Vec::new();
        for source in with_extension(folder, "cu")? {
            let text = fs::read_to_string(&source)?;
            let table =
                kernels_of(&text).into_iter().map(|(kernel, threads)| format!("MODEL_KERNEL({kernel}, {threads})\n"));
            let unit = std::iter::once(format!("#include \"{}\"\n", source.display())).chain(table).collect();
            let flags = KERNEL.iter().map(|&flag| flag.to_owned()).chain(self.include()).collect();
            units.push(Unit { source, flags, text: Some(unit) });
        }
        // Not the sanitizer's own library: its functions are the driver's.
        let driver = format!("-L{}", self.folder.display());
        let flags = ["-shared", &driver, "-l:libcuda.so.1", "-Wl,--no-undefined"].map(str::to_owned);
        self.link(name, &units, &flags)
    }

    fn cases(&self) -> Result<()> {
        let folder = self.sources.join("cases");
        let units: Vec<Unit> = with_extension(&folder, "cpp")?
            .into_iter()
            .map(|source| Unit { source, flags: vec![format!("-I{}", folder.display())], text: None })
            .collect();
        self.link("cases", &units, &["-ldl".to_owned()])
    }

    /// Compiles what is new, two at a time, and links it if anything is.
    fn link(&self, name: &str, units: &[Unit], flags: &[String]) -> Result<()> {
        let objects = self.objects_of(units)?;
        let waiting: Mutex<Vec<(&PathBuf, &&Unit)>> =
            Mutex::new(objects.iter().filter(|(object, _)| !object.exists()).collect());
        std::thread::scope(|scope| {
            let compile_all = || -> Result<()> {
                loop {
                    let next = waiting.lock().expect("no compiler panics").pop();
                    let Some((object, unit)) = next else { return Ok(()) };
                    compile(object, unit)?;
                }
            };
            let other = scope.spawn(compile_all);
            compile_all()?;
            other.join().expect("no compiler panics")
        })?;
        // Whoever edits a source while it compiles must not find the result under the name of what it was.
        let after = self.objects_of(units)?;
        if !after.keys().eq(objects.keys()) {
            for object in objects.keys().filter(|object| !after.contains_key(*object)) {
                fs::remove_file(object)?;
            }
            bail!("sources of {name} changed while they were compiled: run it again");
        }
        let made_of = format!("{:?} {flags:?}", objects.keys());
        let out = self.folder.join(name);
        let note = self.folder.join(format!("{name}.made-of"));
        if out.exists() && fs::read_to_string(&note).is_ok_and(|before| before == made_of) {
            return Ok(());
        }
        let fresh = self.folder.join(format!("{name}.new"));
        let mut command = Command::new("g++");
        command.arg("-pthread").arg("-o").arg(&fresh).args(objects.keys()).args(flags);
        run(&mut command)?;
        // At once for those that run with the one before.
        fs::rename(&fresh, &out)?;
        fs::write(note, made_of)?;
        Ok(())
    }

    /// Where each unit's object lies, by the hash of all that it is made from.
    fn objects_of<'units>(&self, units: &'units [Unit]) -> Result<BTreeMap<PathBuf, &'units Unit>> {
        let headers = self.headers()?;
        let mut objects = BTreeMap::new();
        for unit in units {
            let mut hash = Sha256::new();
            hash.update(&headers);
            hash.update(fs::read(&unit.source)?);
            hash.update(format!("{:?} {ALWAYS:?} {WARNINGS:?} {:?}", unit.flags, unit.text));
            let stem = unit.source.file_stem().and_then(|stem| stem.to_str()).context("a source without a name")?;
            objects.insert(self.objects.join(format!("{stem}-{}.o", hexadecimal(&hash.finalize()[..8]))), unit);
        }
        Ok(objects)
    }

    /// Everything that a source may include.
    fn headers(&self) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        let kernels = workspace::root().join("kernels/cu");
        let folders = ["driver", "nccl", "cases"].map(|folder| self.sources.join(folder));
        for folder in folders.iter().chain([&self.sources, &kernels]) {
            for extension in ["h", "cuh"] {
                for header in with_extension(folder, extension)? {
                    all.extend(fs::read(header)?);
                }
            }
        }
        Ok(all)
    }
}

fn compile(object: &Path, unit: &Unit) -> Result<()> {
    let mut source = unit.source.clone();
    if let Some(text) = &unit.text {
        source = object.with_extension("cpp");
        fs::write(&source, text)?;
    }
    let fresh = object.with_extension("new");
    let mut command = Command::new("g++");
    command.args(ALWAYS).args(WARNINGS).args(&unit.flags).arg("-c").arg(&source).arg("-o").arg(&fresh);
    run(&mut command)?;
    fs::rename(&fresh, object)?;
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().context("g++ does not start")?;
    ensure!(output.status.success(), "{command:?} fails:\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Names of the kernels of a source and how many threads each is made for, as the source says it.
pub(crate) fn kernels_of(source: &str) -> Vec<(&str, &str)> {
    source
        .lines()
        .filter_map(|line| {
            let (bounds, rest) = line.strip_prefix("extern \"C\" KERNEL(")?.split_once(')')?;
            Some((rest.split('(').next()?.trim(), bounds.split(',').next()?))
        })
        .collect()
}

pub(crate) fn with_extension(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|has| has == extension) {
            found.push(path);
        }
    }
    found.sort();
    if found.is_empty() && extension != "h" && extension != "cuh" && extension != "cu" {
        bail!("no .{extension} file in {}", folder.display());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::kernels_of;

    #[test]
    fn kernels_are_found_with_their_threads() {
        let source = "struct A {};\nextern \"C\" KERNEL(256) first(GRID_CONSTANT const A p) {}\nDEVICE int no(A a);\nextern \"C\" KERNEL(THREADS, 2) second(\n    GRID_CONSTANT const A p) {\n}\n";
        assert_eq!(kernels_of(source), [("first", "256"), ("second", "THREADS")]);
    }
}
