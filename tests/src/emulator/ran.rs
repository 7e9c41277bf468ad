//! What processes say that ran in them: kernels, wrappers, waits of kernels, and who waited for the device in the program.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// What ran, by its names in the kernels' source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// Kernels that were launched.
    pub kernels: BTreeSet<String>,
    /// Wrappers of what the machine does.
    pub wrappers: BTreeSet<String>,
    /// Waits, as `file:line`.
    pub waits: BTreeSet<String>,
}

impl Ran {
    /// What is said in a file, to which processes append; nothing where none of them has ended.
    ///
    /// # Errors
    /// If there is a line that no driver writes.
    pub fn read(path: &Path) -> Result<Self> {
        let mut ran = Self::default();
        for line in lines(path)? {
            let (kind, name) = line.split_once(' ').with_context(|| format!("{line:?} says nothing that ran"))?;
            let names = match kind {
                "kernel" => &mut ran.kernels,
                "wrapper" => &mut ran.wrappers,
                "wait" => &mut ran.waits,
                other => anyhow::bail!("{other:?} is nothing that runs"),
            };
            names.insert(name.to_owned());
        }
        Ok(ran)
    }
}

/// The addresses in the program at which it was when it waited for the device: all callers of each wait.
///
/// # Errors
/// If there is a line that no driver writes.
pub fn calls(path: &Path) -> Result<BTreeSet<u64>> {
    let mut calls = BTreeSet::new();
    for line in lines(path)? {
        for address in line.split(' ').skip(1) {
            calls.insert(u64::from_str_radix(address, 16).with_context(|| line.clone())?);
        }
    }
    Ok(calls)
}

fn lines(path: &Path) -> Result<BTreeSet<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// The places in the source of addresses in a program, as `path:line`: where each is, and where what it is in was inlined.
///
/// # Errors
/// If `addr2line` of binutils does not run.
pub fn places(program: &Path, addresses: &BTreeSet<u64>) -> Result<BTreeMap<u64, Vec<String>>> {
    let mut child = Command::new("addr2line")
        .args(["--addresses", "--inlines", "--exe"])
        .arg(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("addr2line of binutils does not start")?;
    let mut input = child.stdin.take().context("its input")?;
    let asked = addresses.iter().fold(String::new(), |asked, address| asked + &format!("{address:x}\n"));
    let writer = std::thread::spawn(move || input.write_all(asked.as_bytes()));
    let output = child.wait_with_output()?;
    writer.join().map_err(|_| anyhow::anyhow!("what writes to addr2line panicked"))??;
    ensure!(output.status.success(), "addr2line: {}", output.status);
    let (mut found, mut at) = (BTreeMap::<u64, Vec<String>>::new(), 0);
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        if let Some(address) = line.strip_prefix("0x") {
            at = u64::from_str_radix(address, 16)?;
        } else {
            // What follows the line, such as a discriminator, is no part of the place.
            let place = line.split(' ').next().unwrap_or_default();
            found.entry(at).or_default().push(place.to_owned());
        }
    }
    Ok(found)
}
