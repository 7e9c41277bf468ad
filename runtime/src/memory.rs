//! How much memory a process of this machine can have at most, so that what never fits is refused before any of it is taken.

use std::fs;
use std::path::Path;

use kernels::backend::CacheShape;
use rustix::process::{Resource, getrlimit};
use thiserror::Error;

use crate::model::checkpoint::Checkpoint;
use crate::model::config::Config;
use crate::model::qwen3_moe::{CacheSize, expert_shape};

/// The most memory that a process can have, and what says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    bytes: u128,
    of: &'static str,
}

/// An option asks for more memory than there is. Nothing but another value helps.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{option} {value} takes {} on {ranks} rank(s), and {} has {}; lower it", gibibytes(*needed), memory.of, gibibytes(memory.bytes))]
pub struct TooLarge {
    option: &'static str,
    value: u64,
    needed: u128,
    ranks: usize,
    memory: Memory,
}

fn gibibytes(bytes: u128) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

impl Memory {
    /// The least of what the machine has, what this process's control groups leave it, and its own limit.
    #[must_use]
    pub fn of_this_process() -> Self {
        let read = |path: &Path| fs::read_to_string(path).ok();
        let machine = read(Path::new("/proc/meminfo")).and_then(|text| total(&text));
        let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
        let limits = limit_files(&groups).into_iter().filter_map(|file| read(Path::new(&file))?.trim().parse().ok());
        let own = getrlimit(Resource::As).current;
        let least = [(machine, "this machine"), (limits.min(), "this container"), (own, "this process (ulimit -v)")];
        let least = least.into_iter().filter_map(|(bytes, of)| Some(Self { bytes: bytes?.into(), of }));
        // A system that says nothing of its memory refuses nothing here.
        least.min_by_key(|memory| memory.bytes).unwrap_or(Self { bytes: u128::MAX, of: "this machine" })
    }

    /// Whether what an option asks of each of `ranks` ranks can be had.
    ///
    /// # Errors
    /// If it cannot.
    pub const fn check(self, option: &'static str, value: u64, each: u128, ranks: usize) -> Result<(), TooLarge> {
        let needed = each.saturating_mul(ranks as u128);
        if needed > self.bytes {
            return Err(TooLarge { option, value, needed, ranks, memory: self });
        }
        Ok(())
    }
}

/// Bytes that a KV cache takes, over all layers.
#[must_use]
pub fn cache_bytes(checkpoint: &Checkpoint, cache: CacheSize) -> u128 {
    let Config { heads, layers, .. } = checkpoint.config();
    let shape = CacheShape { heads: *heads, blocks: cache.blocks, block_tokens: cache.block_tokens };
    kernels::cpu::cache_bytes(shape).saturating_mul(layers.len() as u128)
}

/// Bytes that staging pages take.
#[must_use]
pub fn staging_bytes(checkpoint: &Checkpoint, pages: u32) -> u128 {
    kernels::cpu::page_bytes(expert_shape(checkpoint)) as u128 * u128::from(pages)
}

/// Bytes of memory in `/proc/meminfo`.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The files that may hold limits of the control groups in `/proc/self/cgroup`, of either version, with those above them.
/// In a container its own group is the root of what it sees.
fn limit_files(groups: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let above = Path::new(path).ancestors().map(|group| group.to_string_lossy().trim_matches('/').to_owned());
        files.extend(above.map(|group| match group.as_str() {
            "" => format!("{root}/{file}"),
            group => format!("{root}/{group}/{file}"),
        }));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_taken_and_what_does_not_is_refused_with_what_there_is() {
        let memory = Memory { bytes: 8 << 30, of: "this container" };
        assert_eq!(memory.check("kv-blocks", 2048, 4 << 30, 2), Ok(()));
        let error = memory.check("kv-blocks", 2049, (4 << 30) + 1, 2).unwrap_err().to_string();
        assert_eq!(error, "kv-blocks 2049 takes 8.0 GiB on 2 rank(s), and this container has 8.0 GiB; lower it");
        assert!(memory.check("kv-blocks", 1, u128::MAX, usize::MAX).is_err());
    }

    #[test]
    fn the_machine_and_its_control_groups_say_what_there_is() {
        assert_eq!(total("MemFree: 1 kB\nMemTotal:       16384 kB\n"), Some(16384 * 1024));
        assert_eq!(total("MemTotal: much\n"), None);
        assert_eq!(
            limit_files("0::/pods/one\n"),
            ["pods/one/", "pods/", ""].map(|group| format!("/sys/fs/cgroup/{group}memory.max"))
        );
        assert_eq!(
            limit_files("5:cpu,memory:/one\n4:pids:/one\nodd\n"),
            ["one/", ""].map(|group| format!("/sys/fs/cgroup/memory/{group}memory.limit_in_bytes"))
        );
        assert!(Memory::of_this_process().bytes > 1 << 20);
    }
}
