//! The functions of the device layer, and which of them a program's processes ran: `tests/emulator/trace` marks the lines that are met.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::ran::places;
use super::sources::rust_files;
use crate::workspace;

/// Where the device layer lies.
const LAYER: &str = "kernels/src/cuda";

/// What the trace says of a line: the program has it, and it ran.
const THERE: u8 = 1;
const MET: u8 = 2;

/// A function of the device layer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Function {
    /// Below the workspace.
    pub file: String,
    /// Its lines, from 1.
    pub first: usize,
    /// The last one is its own.
    pub last: usize,
    /// As it is called.
    pub name: String,
}

impl Display for Function {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{} {}", self.file, self.first, self.name)
    }
}

/// A line of the device layer: its file, below the workspace, and its number.
type Line = (String, usize);

/// The functions of the device layer, without those of its tests.
///
/// # Errors
/// If a source cannot be read.
pub fn device_functions() -> Result<Vec<Function>> {
    let root = workspace::root();
    let mut functions = Vec::new();
    for path in rust_files(&root.join(LAYER))?.into_iter().chain([root.join(LAYER).with_extension("rs")]) {
        let file = path.strip_prefix(root)?.to_str().context("a source without a name")?.to_owned();
        if !file.ends_with("tests.rs") {
            functions.extend(functions_of(&file, &fs::read_to_string(&path)?));
        }
    }
    Ok(functions)
}

/// The functions of a formatted source: a body ends with the first brace that is as far in as its function.
fn functions_of(file: &str, text: &str) -> Vec<Function> {
    let lines: Vec<&str> = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).collect();
    let mut functions = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some(name) = begun(line) else { continue };
        let Some(head) = lines[index..].iter().position(|line| line.ends_with(['{', '}', ';'])) else { continue };
        let head = index + head;
        let end = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
        let last = match lines[head].chars().last() {
            Some('{') => lines[head..].iter().position(|line| *line == end).map(|length| head + length),
            Some('}') => Some(head),
            // Without a body: of a trait, or of another language.
            _ => None,
        };
        if let Some(last) = last {
            functions.push(Function { file: file.to_owned(), first: index + 1, last: last + 1, name: name.to_owned() });
        }
    }
    functions
}

/// The function that begins on a line.
fn begun(line: &str) -> Option<&str> {
    let (before, after) = line.trim_start().split_once("fn ")?;
    let is_kind = |word: &str| word.starts_with("pub") || ["const", "unsafe", "extern", "\"C\""].contains(&word);
    let end = after.find(|c: char| !(c.is_alphanumeric() || c == '_'))?;
    before.split_whitespace().all(is_kind).then_some(&after[..end]).filter(|name| !name.is_empty())
}

/// Where lines of the device layer begin in a program, each with those that it was inlined into.
fn lines_of(program: &Path) -> Result<BTreeMap<u64, Vec<Line>>> {
    let mut lines = BTreeMap::new();
    for (address, places) in places(program, &addresses_of(program)?)? {
        let here: Vec<Line> = places.iter().filter_map(|place| line_of(place)).collect();
        if !here.is_empty() {
            lines.insert(address, here);
        }
    }
    Ok(lines)
}

/// A place that a program names, if it is of the device layer.
fn line_of(place: &str) -> Option<Line> {
    let (file, number) = place[place.find(LAYER)?..].rsplit_once(':')?;
    Some((file.to_owned(), number.parse().ok()?))
}

/// Where lines begin in the functions of a program in which there is something of the device layer.
fn addresses_of(program: &Path) -> Result<BTreeSet<u64>> {
    let mut child = Command::new("objdump")
        .arg("--dwarf=decodedline")
        .arg(program)
        .stdout(Stdio::piped())
        .spawn()
        .context("objdump of binutils does not start")?;
    let mut addresses = BTreeSet::new();
    // A function's lines end with one that has no number.
    let (mut function, mut is_of_layer, mut is_in_layer) = (Vec::new(), false, false);
    for line in BufReader::new(child.stdout.take().context("its output")?).lines() {
        let line = line?;
        if let Some(path) = line.strip_suffix(':') {
            is_in_layer = path.contains(LAYER);
            continue;
        }
        let mut fields = line.split_whitespace().skip(1);
        let (Some(number), Some(address)) = (fields.next(), fields.next()) else { continue };
        let Ok(address) = u64::from_str_radix(address.trim_start_matches("0x"), 16) else { continue };
        if number != "-" {
            function.push(address);
            is_of_layer |= is_in_layer;
            continue;
        }
        // What the linker left out begins nowhere.
        if is_of_layer && function.first() != Some(&0) {
            addresses.extend(&function);
        }
        function.clear();
        is_of_layer = false;
    }
    let status = child.wait()?;
    ensure!(status.success() && !addresses.is_empty(), "objdump of {}: {status}", program.display());
    Ok(addresses)
}

/// Programs of which it is told which lines of the device layer ran.
pub struct Traced(Vec<(PathBuf, BTreeMap<u64, Vec<Line>>)>);

/// What ran of the functions.
#[derive(Debug)]
pub struct Found {
    /// They ran.
    pub ran: BTreeSet<Function>,
    /// A program has them, and they did not run.
    pub missed: BTreeSet<Function>,
    /// No program has code of them.
    pub without_code: BTreeSet<Function>,
}

impl Traced {
    /// Has processes that are started from now on mark what they run in a folder.
    ///
    /// # Errors
    /// If a program tells nothing of its lines.
    pub fn begin(programs: &[PathBuf], folder: &Path) -> Result<Self> {
        let mut traced = Vec::new();
        for program in programs {
            let (lines, name) = (lines_of(program)?, program.file_name().context("a program without a name")?);
            let offsets: Vec<u8> = lines.keys().flat_map(|offset| offset.to_le_bytes()).collect();
            let (at, met) = (folder.join(name).into_os_string(), vec![0; lines.len()]);
            let [listed, marked] = [".lines", ".met"].map(|kind| {
                let mut path = at.clone();
                path.push(kind);
                PathBuf::from(path)
            });
            fs::write(listed, offsets)?;
            fs::write(&marked, met)?;
            traced.push((marked, lines));
        }
        Ok(Self(traced))
    }

    /// What ran until now.
    ///
    /// # Errors
    /// If a source or what was marked cannot be read.
    pub fn found(&self) -> Result<Found> {
        let (mut there, mut met) = (BTreeSet::new(), BTreeSet::new());
        for (marked, lines) in &self.0 {
            for (here, mark) in lines.values().zip(fs::read(marked)?) {
                if mark >= THERE {
                    there.extend(here);
                }
                if mark == MET {
                    met.extend(here);
                }
            }
        }
        let functions = device_functions()?;
        let owned = |lines: BTreeSet<&Line>| -> BTreeSet<Function> {
            lines.into_iter().filter_map(|line| owner(&functions, line)).cloned().collect()
        };
        let (there, ran) = (owned(there), owned(met));
        let missed = there.difference(&ran).cloned().collect();
        let without_code = functions.iter().filter(|function| !there.contains(*function)).cloned().collect();
        Ok(Found { ran, missed, without_code })
    }
}

/// The innermost function that a line is in.
fn owner<'functions>(functions: &'functions [Function], (file, line): &Line) -> Option<&'functions Function> {
    let has = |function: &&Function| function.file == *file && (function.first..=function.last).contains(line);
    functions.iter().filter(has).max_by_key(|function| function.first)
}

#[cfg(test)]
mod tests {
    use super::{device_functions, functions_of, owner};

    #[test]
    fn functions_are_found_with_their_lines() {
        let source = "\
trait Asked {
    fn declared(&self);
}
impl Asked for A {
    pub(crate) const unsafe fn one(&self) -> u8 { 1 }
    fn two(
        &self,
    ) -> String {
        fn inner() {
            let text = \"fn no() {\";
        }
        format!(\"}}\")
    }
}
#[cfg(test)]
mod tests {
    fn test() {}
}";
        let functions = functions_of("a.rs", source);
        let found: Vec<_> = functions.iter().map(|f| (f.name.as_str(), f.first, f.last)).collect();
        assert_eq!(found, [("one", 5, 5), ("two", 6, 13), ("inner", 9, 11)]);
        let of = |line| owner(&functions, &("a.rs".to_owned(), line)).map(|function| function.name.as_str());
        assert_eq!([of(2), of(5), of(10), of(12)], [None, Some("one"), Some("inner"), Some("two")]);
    }

    #[test]
    fn the_device_layer_has_functions() {
        let functions = device_functions().unwrap();
        let has = |file: &str, name: &str| functions.iter().any(|f| f.file.ends_with(file) && f.name == name);
        assert!(functions.len() > 200, "{}", functions.len());
        assert!(has("cuda/transfer.rs", "put") && has("cuda/link/peer.rs", "wait") && has("src/cuda.rs", "pull"));
    }
}
