//! How much memory a process of this machine can have at most, so that what never fits is refused before any of it is taken.

use std::fs;
use std::path::Path;

use kernels::backend::CacheShape;
use rustix::process::{Resource, getrlimit};
use thiserror::Error;

use crate::model::checkpoint::Checkpoint;
use crate::model::config::Config;
use crate::model::qwen3_moe::{CacheSize, expert_shape};

/// The most memory that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// For all processes here together.
    shared: Limit,
    /// For each of them.
    own: Limit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit {
    bytes: u64,
    /// Whose it is.
    of: &'static str,
}

/// What an option asks of each rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its name.
    pub option: &'static str,
    /// What it is set to.
    pub value: u64,
    /// Bytes that this takes.
    pub bytes: u64,
    /// Bytes that another option takes already, with which this one has to fit.
    pub beside: u64,
}

/// An option asks for more memory than there is. Nothing but another value helps.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{} {} takes {} on {ranks} rank(s){}, and {} has {}; lower it",
    asked.option, asked.value, gibibytes(asked.bytes, *ranks), beside(*asked, *ranks), limit.of, gibibytes(limit.bytes, 1)
)]
pub struct TooLarge {
    asked: Asked,
    ranks: usize,
    limit: Limit,
}

fn beside(asked: Asked, ranks: usize) -> String {
    match asked.beside {
        0 => String::new(),
        bytes => format!(", beside {} of KV cache", gibibytes(bytes, ranks)),
    }
}

fn gibibytes(bytes: u64, times: usize) -> String {
    format!("{:.1} GiB", bytes as f64 * times as f64 / f64::from(1 << 30))
}

impl Memory {
    /// What the machine has or, where that is less, the control groups of this process; and what one process may take.
    #[must_use]
    pub fn of_this_process() -> Self {
        let read = |path: &Path| fs::read_to_string(path).ok();
        let machine = read(Path::new("/proc/meminfo")).and_then(|text| total(&text));
        let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
        let limits = limit_files(&groups).into_iter().filter_map(|file| read(Path::new(&file))?.trim().parse().ok());
        let limit = |bytes: Option<u64>, of| Limit { bytes: bytes.unwrap_or(u64::MAX), of };
        let (machine, container) = (limit(machine, "this machine"), limit(limits.min(), "this container"));
        // A system that says nothing of its memory refuses nothing here.
        let shared = if container.bytes < machine.bytes { container } else { machine };
        Self { shared, own: limit(getrlimit(Resource::As).current, "a process (ulimit -v)") }
    }

    /// Whether what an option asks of each of `ranks` ranks, which are processes of their own, can be had.
    ///
    /// # Errors
    /// If it cannot.
    pub fn check(self, asked: Asked, ranks: usize) -> Result<(), TooLarge> {
        let each = u128::from(asked.bytes) + u128::from(asked.beside);
        for (ranks, limit) in [(ranks, self.shared), (1, self.own)] {
            if each.saturating_mul(ranks as u128) > limit.bytes.into() {
                return Err(TooLarge { asked, ranks, limit });
            }
        }
        Ok(())
    }
}

/// What the KV cache asks for, over all layers.
#[must_use]
pub fn of_cache(checkpoint: &Checkpoint, cache: CacheSize) -> Asked {
    let Config { heads, layers, .. } = checkpoint.config();
    let shape = CacheShape { heads: *heads, blocks: cache.blocks, block_tokens: cache.block_tokens };
    let bytes = kernels::cpu::cache_bytes(shape).saturating_mul(layers.len() as u64);
    Asked { option: "kv-blocks", value: cache.blocks as u64, bytes, beside: 0 }
}

/// What staging pages ask for, beside the KV cache.
#[must_use]
pub fn of_staging(checkpoint: &Checkpoint, pages: u32, cache: CacheSize) -> Asked {
    let bytes = (kernels::cpu::page_bytes(expert_shape(checkpoint)) as u64).saturating_mul(pages.into());
    Asked { option: "staging-pages", value: pages.into(), bytes, beside: of_cache(checkpoint, cache).bytes }
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
        let (container, process) = ("this container", "a process (ulimit -v)");
        let memory =
            Memory { shared: Limit { bytes: 8 << 30, of: container }, own: Limit { bytes: 5 << 30, of: process } };
        let cache = |value, bytes| Asked { option: "kv-blocks", value, bytes, beside: 0 };
        assert_eq!(memory.check(cache(2048, 4 << 30), 2), Ok(()));
        let staging = Asked { option: "staging-pages", value: 9, bytes: 1 << 30, beside: 3 << 30 };
        assert_eq!(memory.check(staging, 2), Ok(()));
        for (asked, ranks, said) in [
            (
                cache(2049, (4 << 30) + 1),
                2,
                "kv-blocks 2049 takes 8.0 GiB on 2 rank(s), and this container has 8.0 GiB",
            ),
            (
                cache(4000, 6 << 30),
                1,
                "kv-blocks 4000 takes 6.0 GiB on 1 rank(s), and a process (ulimit -v) has 5.0 GiB",
            ),
            (
                Asked { bytes: 2 << 30, ..staging },
                2,
                "staging-pages 9 takes 4.0 GiB on 2 rank(s), beside 6.0 GiB of KV cache, and this container has 8.0 GiB",
            ),
        ] {
            assert_eq!(memory.check(asked, ranks).unwrap_err().to_string(), format!("{said}; lower it"));
        }
        let most = Asked { value: u64::MAX, bytes: u64::MAX, beside: u64::MAX, ..staging };
        let said = memory.check(most, usize::MAX).unwrap_err().to_string();
        assert!(said.len() <= 300, "{said}");
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
        assert!(Memory::of_this_process().shared.bytes > 1 << 20);
    }
}
