//! The kernels of the CUDA backend, as the crate embeds them: compiled where the variable below names the pinned compiler, else as
//! sources that NVRTC compiles at the start. So a build never needs CUDA, and one for an image has nothing to compile.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, thread};

/// Where nvcc is, as `kernels/cu/toolchain.sh` prints it.
const COMPILER: &str = "SWIFTBALANCER_NVCC";

/// The release whose output the drivers of these chips take: a later one writes instructions that they refuse.
const RELEASE: &str = "release 13.0";

/// Machine code for each chip that is served, and instructions that a driver compiles for any later one. Kernels of one chip are empty
/// for others, and those of compute capability 9.0 are in the code of `sm_90a` alone, which all chips of that capability run: a file
/// of such kernels has no code for `sm_90` that a driver might take instead.
const TARGETS: [&str; 4] = [
    "--generate-code=arch=compute_80,code=[sm_80,compute_80]",
    "--generate-code=arch=compute_90,code=sm_90",
    "--generate-code=arch=compute_90a,code=sm_90a",
    "--generate-code=arch=compute_100,code=sm_100",
];

/// Every fused multiply-add of the kernels is written as one, so that results do not follow the compiler's choice. A warning and a
/// register that is kept in memory are errors.
const OPTIONS: [&str; 6] = [
    "--std=c++17",
    "--fmad=false",
    "--Werror=all-warnings",
    "--ptxas-options=--warn-on-spills,--warning-as-error",
    "--threads=1",
    "--compiler-options=-Wall",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=cu");
    println!("cargo::rerun-if-env-changed={COMPILER}");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo says where to build"));
    let folder = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where the crate is")).join("cu");
    let files = files(&folder);
    let (sources, headers): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| has_extension(file, &["cu"]));
    let written = match env::var_os(COMPILER).filter(|compiler| !compiler.is_empty()) {
        Some(compiler) => compiled(Path::new(&compiler), &sources, &out),
        None => embedded(&sources, &headers),
    };
    match written {
        Ok(text) => fs::write(out.join("kernels.rs"), text).expect("the build folder can be written to"),
        Err(reason) => {
            for line in reason.lines() {
                println!("cargo::error={line}");
            }
        }
    }
}

/// The sources and headers of the kernels, by name.
fn files(folder: &Path) -> Vec<PathBuf> {
    let listed = fs::read_dir(folder).expect("the crate has its kernels");
    let mut files: Vec<PathBuf> = listed.map(|entry| entry.expect("a folder that can be read").path()).collect();
    files.retain(|file| has_extension(file, &["cu", "cuh", "h"]));
    files.sort();
    files
}

fn has_extension(file: &Path, extensions: &[&str]) -> bool {
    file.extension().is_some_and(|found| extensions.iter().any(|extension| found == *extension))
}

fn name(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Everything as text, for NVRTC.
fn embedded(sources: &[PathBuf], headers: &[PathBuf]) -> Result<String, String> {
    let mut text =
        "pub static IMAGES: &[(&str, &[u8])] = &[];\npub const ENTRIES: &[(&str, usize)] = &[];\n".to_owned();
    text += "pub const HEADERS: &[(&str, &str)] = &[\n";
    for header in headers {
        writeln!(text, "    ({:?}, include_str!({:?})),", name(header), header.display().to_string()).map_err(said)?;
    }
    text += "];\npub const SOURCES: &[crate::cuda::compile::Source] = &[\n";
    for source in sources {
        let (file, path) = (name(source), source.display().to_string());
        let fields = format!("file: {file:?}, text: include_str!({path:?}), headers: HEADERS");
        writeln!(text, "    crate::cuda::compile::Source {{ {fields} }},").map_err(said)?;
    }
    text += "];\n";
    Ok(text)
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Everything compiled, with the names of the kernels and the sizes of their parameters as the compiler has them.
fn compiled(compiler: &Path, sources: &[PathBuf], out: &Path) -> Result<String, String> {
    let version = run(Command::new(compiler).arg("--version"))?;
    if !version.contains(RELEASE) {
        let found = version.lines().find(|line| line.contains("release")).unwrap_or("of an unknown version").trim();
        return Err(format!(
            "{COMPILER} names nvcc {found}, and the kernels are built with {RELEASE}; see kernels/cu/toolchain.sh"
        ));
    }
    let jobs = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1).min(sources.len());
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some(source) = sources.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push(compile(compiler, source, out)?);
        }
        Ok::<_, String>(done)
    };
    let mut built = Vec::new();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            built.extend(thread.join().map_err(|_| "a thread of the build panicked".to_owned())??);
        }
        Ok::<_, String>(())
    })?;
    built.sort();
    let mut text = "pub const HEADERS: &[(&str, &str)] = &[];\n".to_owned();
    text += "pub const SOURCES: &[crate::cuda::compile::Source] = &[];\n";
    // The driver reads numbers of 8 bytes in them.
    text += "#[repr(C, align(64))]\nstruct Aligned<Bytes: ?Sized>(Bytes);\n";
    for (index, (_, image, _)) in built.iter().enumerate() {
        let path = image.display().to_string();
        writeln!(text, "static IMAGE_{index}: &Aligned<[u8]> = &Aligned(*include_bytes!({path:?}));").map_err(said)?;
    }
    text += "pub static IMAGES: &[(&str, &[u8])] = &[\n";
    for (index, (file, _, _)) in built.iter().enumerate() {
        writeln!(text, "    ({file:?}, &IMAGE_{index}.0),").map_err(said)?;
    }
    text += "];\npub const ENTRIES: &[(&str, usize)] = &[\n";
    for (entry, bytes) in built.iter().flat_map(|(_, _, entries)| entries) {
        writeln!(text, "    ({entry:?}, {bytes}),").map_err(said)?;
    }
    text += "];\n";
    Ok(text)
}

/// A file's name, where it was compiled to, and its kernels with the sizes of their parameters.
type Built = (String, PathBuf, Vec<(String, usize)>);

fn compile(compiler: &Path, source: &Path, out: &Path) -> Result<Built, String> {
    let (image, ptx) = (out.join(name(source) + ".fatbin"), out.join(name(source) + ".ptx"));
    let command = || {
        let mut command = Command::new(compiler);
        command.args(OPTIONS).arg(source);
        command
    };
    let targets =
        TARGETS.into_iter().filter(|target| !(name(source).ends_with("_90a.cu") && target.ends_with("=sm_90")));
    run(command().args(targets).arg("--fatbin").arg("--output-file").arg(&image))?;
    run(command().arg("--gpu-architecture=compute_80").arg("--ptx").arg("--output-file").arg(&ptx))?;
    let text = fs::read_to_string(&ptx).map_err(said)?;
    Ok((name(source), image, entries(&text)))
}

/// Runs a command; what it printed, or why it failed.
fn run(command: &mut Command) -> Result<String, String> {
    let output =
        command.output().map_err(|error| format!("{} cannot be run: {error}", command.get_program().display()))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(printed) } else { Err(printed) }
}

/// Kernels of a text of PTX, with the sizes of their one parameter.
fn entries(ptx: &str) -> Vec<(String, usize)> {
    let entry = |text: &str| {
        let name = text.split('(').next()?.trim().to_owned();
        let parameters = text.split(')').next()?;
        let bytes = parameters.split_once("_param_0[")?.1.split(']').next()?.parse().ok()?;
        Some((name, bytes))
    };
    ptx.split(".entry ").skip(1).filter_map(entry).collect()
}
