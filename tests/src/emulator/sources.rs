//! What the kernels' source has, by name: kernels, wrappers of what the machine does, and every place where threads wait for others
//! or let others go on. And of the device layer, every place where the host waits for the device.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, Result, ensure};

use super::{kernels_of, with_extension};
use crate::workspace;

/// Ends the wrappers of the header: what follows is said once for both devices.
const COMMON: &str = "// ==== what both devices compute alike";

/// What the device layer waits with, or marks what others wait for: functions of `kernels/src/cuda` that hand on to the driver.
const HOST_WAITS: [&str; 4] = ["wait", "finish", "record", "has_passed"];

/// A place where somebody waits, or lets others go on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Below its folder.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// What it does there.
    pub does: String,
    /// Whether it is the host that waits, not a kernel.
    pub is_host: bool,
    /// How often the file has done it up to here. Unlike the line it stays as it is where something else is changed.
    pub ordinal: usize,
}

impl Place {
    /// `file does ordinal`, by which it is known.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{} {} {}", self.file, self.does, self.ordinal)
    }
}

impl Display for Place {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{} {}", self.file, self.line, self.does)
    }
}

fn kernels_folder() -> PathBuf {
    workspace::root().join("kernels/cu")
}

/// The names of all kernels.
///
/// # Errors
/// If a source cannot be read.
pub fn kernels() -> Result<BTreeSet<String>> {
    let mut kernels = BTreeSet::new();
    for source in with_extension(&kernels_folder(), "cu")? {
        let text = fs::read_to_string(&source)?;
        kernels.extend(kernels_of(&text).into_iter().map(|(kernel, _)| kernel.to_owned()));
    }
    Ok(kernels)
}

/// The names of the wrappers in the header: functions of which a GPU and the emulated device each have a body.
///
/// # Errors
/// If the header cannot be read, or has no such part.
pub fn wrappers() -> Result<BTreeSet<String>> {
    let text = fs::read_to_string(kernels_folder().join("device.cuh"))?;
    let (wrappers, _) = text.split_once(COMMON).context("device.cuh has no part for both devices")?;
    // The address of shared memory is a number that the bodies of others need.
    Ok(wrappers.lines().filter_map(defined).filter(|&name| name != "shared_address").map(str::to_owned).collect())
}

/// The function that begins on a line.
fn defined(line: &str) -> Option<&str> {
    let line = if line.starts_with("template ") { line.split_once("> ")?.1 } else { line };
    let (before, _) = line.strip_prefix("DEVICE ")?.split_once('(')?;
    before.rsplit(' ').next()
}

/// The wrappers that wait for others or let others go on: on the emulated device they take the place at which they are used.
///
/// # Errors
/// If the model of the wrappers cannot be read.
pub fn ordering() -> Result<BTreeSet<String>> {
    let model = fs::read_to_string(workspace::root().join("tests/emulator/model.h"))?;
    Ok(model
        .lines()
        .filter(|line| line.ends_with("PLACE) {"))
        .filter_map(|line| line.split('(').next()?.rsplit(' ').next())
        .map(str::to_owned)
        .collect())
}

/// Every place of the kernels' source where one of those is used.
///
/// # Errors
/// If a source cannot be read, or two of them share a line.
pub fn waits() -> Result<Vec<Place>> {
    let ordering = ordering()?;
    let mut places = Vec::new();
    for extension in ["cu", "h", "cuh"] {
        for path in with_extension(&kernels_folder(), extension)? {
            let text = fs::read_to_string(&path)?;
            let skipped = if path.ends_with("device.cuh") {
                text.split(COMMON).next().map_or(0, |part| part.lines().count())
            } else {
                0
            };
            let file = path.file_name().and_then(|name| name.to_str()).context("a source without a name")?;
            let used = |code: &str| {
                words(code)
                    .filter(|&(word, rest)| ordering.contains(word) && rest.starts_with(['(', '<']))
                    .map(|(word, _)| word.to_owned())
                    .collect()
            };
            places.extend(found((file, false), &text, skipped, used)?);
        }
    }
    Ok(places)
}

/// Every place of the device layer where the host waits for the device, marks what is waited for, or asks whether it was passed; but for what
/// only measures.
///
/// # Errors
/// If a source cannot be read.
pub fn host_waits() -> Result<Vec<Place>> {
    let folder = workspace::root().join("kernels/src");
    let mut places = Vec::new();
    for path in [vec![folder.join("cuda.rs")], rust_files(&folder.join("cuda"))?].concat() {
        let file = path.strip_prefix(&folder)?.to_str().context("a source without a name")?;
        if ["cuda/measure", "cuda/bandwidth"].iter().any(|measures| file.starts_with(measures)) {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        let used = |code: &str| {
            let is_used = |word: &str, rest: &str, before: &str| {
                let is_called = before.ends_with('.') && rest.starts_with('(');
                let is_handed_on = before.ends_with("::") && rest.starts_with(')');
                HOST_WAITS.contains(&word) && (is_called || is_handed_on)
            };
            words(code)
                .filter(|&(word, rest)| is_used(word, rest, &code[..code.len() - rest.len() - word.len()]))
                .map(|(word, _)| word.to_owned())
                .collect()
        };
        places.extend(found((file, true), &text, 0, used)?);
    }
    Ok(places)
}

/// Where kernels meet the machine beside the header of wrappers: inline assembly, and what compilers give to GPUs alone.
///
/// # Errors
/// If a source cannot be read.
pub fn outside_of_the_header() -> Result<Vec<String>> {
    let mut outside = Vec::new();
    for folder in ["kernels/cu", "tests/emulator/cases"] {
        for extension in ["cu", "h", "cuh"] {
            for path in with_extension(&workspace::root().join(folder), extension)? {
                if path.ends_with("kernels/cu/device.cuh") || path.ends_with("cases/driver.h") {
                    continue;
                }
                for (number, line) in fs::read_to_string(&path)?.lines().enumerate() {
                    for (word, _) in words(line.split("//").next().unwrap_or_default()) {
                        // What a compiler says of itself, and of a macro's arguments, is no feature of the machine.
                        let is_of_compiler = word.starts_with("__CUDA_ARCH") || word == "__VA_ARGS__";
                        if !is_of_compiler && (word == "asm" || word.starts_with("__") || word.starts_with("atomic")) {
                            outside.push(format!("{}:{}: {word}", path.display(), number + 1));
                        }
                    }
                }
            }
        }
    }
    Ok(outside)
}

/// The Rust sources below a folder.
///
/// # Errors
/// If it cannot be read.
pub fn rust_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|has| has == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The words of a line of code, each with what follows it.
fn words(code: &str) -> impl Iterator<Item = (&str, &str)> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let mut rest = code;
    std::iter::from_fn(move || {
        let begin = rest.find(is_part)?;
        let length = rest[begin..].find(|c| !is_part(c)).unwrap_or(rest.len() - begin);
        let word = &rest[begin..begin + length];
        rest = &rest[begin + length..];
        Some((word, rest))
    })
}

/// What is used in a file, line by line, without comments and what its tests do. What one line does twice counts as one.
fn found(
    (file, is_host): (&str, bool),
    text: &str,
    skipped: usize,
    used: impl Fn(&str) -> Vec<String>,
) -> Result<Vec<Place>> {
    let mut ordinals = BTreeMap::<String, usize>::new();
    let mut places = Vec::new();
    for (index, line) in
        text.lines().enumerate().skip(skipped).take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
    {
        let mut does = used(line.split("//").next().unwrap_or_default());
        ensure!(
            does.len() <= 1 || is_host,
            "{file}:{}: one wait a line, so that each can be left out alone",
            index + 1
        );
        let Some(does) = does.pop() else { continue };
        let ordinal = ordinals.entry(does.clone()).or_default();
        *ordinal += 1;
        places.push(Place { file: file.to_owned(), line: index + 1, does, is_host, ordinal: *ordinal });
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{defined, found, host_waits, kernels, ordering, outside_of_the_header, waits, words, wrappers};
    use crate::workspace;

    #[test]
    fn functions_of_the_header_are_found() {
        assert_eq!(defined("DEVICE uint4 load16(const void* from) { return x(from); }"), Some("load16"));
        assert_eq!(defined("template <int LEFT> DEVICE void copy_wait() { }"), Some("copy_wait"));
        assert_eq!(defined("DEVICE float low(uint32_t packed);"), Some("low"));
        assert_eq!(defined("  return lane();"), None);
    }

    #[test]
    fn what_is_used_is_found_with_its_place() {
        let used =
            |code: &str| words(code).filter(|(word, _)| *word == "wait").map(|(word, _)| word.to_owned()).collect();
        let places = found(("a.cu", false), "wait();\n// wait();\nawait(wait);\n", 0, used).unwrap();
        let said: Vec<String> = places.iter().map(|place| format!("{place} {}", place.ordinal)).collect();
        assert_eq!(said, ["a.cu:1 wait 1", "a.cu:3 wait 2"]);
        assert_eq!(places[1].name(), "a.cu wait 2");
        assert!(found(("a.cu", false), "wait(wait());", 0, used).is_err(), "two on a line");
    }

    /// Each wrapper says that it runs under its own name, and each is known to order or not to: a new one has to be put in its place.
    #[test]
    fn wrappers_of_the_emulated_device_say_what_they_are() {
        const ORDER_NOTHING: [&str; 31] = [
            "add_count",
            "barrier_init",
            "bits_float",
            "compare_exchange",
            "copy16_async",
            "count_bits",
            "exponential_wide",
            "float_bits",
            "group_hold",
            "group_multiply",
            "group_operand",
            "lane",
            "load16",
            "load_matrices",
            "load_matrices_transposed",
            "load_relaxed",
            "multiply_add",
            "multiply_tile",
            "nanoseconds",
            "or_bits",
            "pack_bf16",
            "pause",
            "shuffle",
            "shuffle_up",
            "shuffle_xor",
            "square_root",
            "store16",
            "store_relaxed",
            "tile_3d",
            "vote",
            "warp",
        ];
        let model = fs::read_to_string(workspace::root().join("tests/emulator/model.h")).unwrap();
        let (wrappers, ordering) = (wrappers().unwrap(), ordering().unwrap());
        for wrapper in &wrappers {
            assert!(model.contains(&format!("RUNS({wrapper});")), "{wrapper} of model.h does not say that it runs");
            assert!(
                ordering.contains(wrapper) != ORDER_NOTHING.contains(&wrapper.as_str()),
                "{wrapper}: a wrapper that waits, or lets others go on, takes PLACE in model.h; any other is in this list"
            );
        }
        assert!(ordering.len() > 10, "{ordering:?}");
    }

    #[test]
    fn kernels_meet_the_machine_in_the_header_of_wrappers_alone() {
        assert_eq!(outside_of_the_header().unwrap(), [""; 0]);
        assert_eq!(
            words("  __syncthreads(); asm(x)").map(|(word, _)| word).collect::<Vec<_>>(),
            ["__syncthreads", "asm", "x"]
        );
    }

    #[test]
    fn sources_have_kernels_and_waits() {
        let (kernels, waits, host) = (kernels().unwrap(), waits().unwrap(), host_waits().unwrap());
        assert!(kernels.contains("product_bf16") && kernels.len() > 30, "{kernels:?}");
        assert!(waits.iter().any(|place| place.file == "device.cuh" && place.does == "block_barrier"), "{waits:?}");
        assert!(waits.len() > 50 && host.len() > 10, "{waits:?} {host:?}");
        assert!(host.iter().any(|place| place.file == "cuda/transfer.rs" && place.does == "wait"), "{host:?}");
    }
}
