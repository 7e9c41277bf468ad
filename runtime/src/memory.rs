//! How much memory a process of this machine can have at most, so that what never fits is refused before any of it is taken.

use std::fmt::{self, Display, Formatter};
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

/// What takes memory for as long as a rank serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryUser {
    /// The weights of the model.
    Weights,
    /// The KV cache, of so many blocks.
    KvBlocks(u64),
    /// The pages that moves are received into, so many.
    StagingPages(u64),
}

impl Display for MemoryUser {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Weights => formatter.write_str("the weights of the model"),
            Self::KvBlocks(blocks) => write!(formatter, "kv-blocks {blocks}"),
            Self::StagingPages(pages) => write!(formatter, "staging-pages {pages}"),
        }
    }
}

/// What of its memory a rank needs for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// For what.
    pub user: MemoryUser,
    /// Bytes of it.
    pub bytes: u64,
}

/// More memory is asked for than there is. Nothing but another setting or another machine helps.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct TooLarge {
    need: Need,
    /// Bytes of each rank that are asked for already, with which this has to fit.
    beside: u64,
    ranks: usize,
    limit: Limit,
}

impl Display for TooLarge {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let &Self { need: Need { user, bytes }, beside, ranks, limit: Limit { bytes: most, of } } = self;
        let (what, advice) = match user {
            MemoryUser::Weights => ("", "serve a smaller model, or give it more memory"),
            MemoryUser::KvBlocks(_) => ("of weights", "lower it"),
            MemoryUser::StagingPages(_) => ("of weights and KV cache", "lower it, or kv-blocks"),
        };
        let verb = if user == MemoryUser::Weights { "take" } else { "takes" };
        write!(formatter, "{user} {verb} {} on {ranks} rank(s)", amount(bytes, ranks))?;
        if beside > 0 {
            write!(formatter, ", beside {} {what}", amount(beside, ranks))?;
        }
        write!(formatter, ", and {of} has {}; {advice}", amount(most, 1))
    }
}

fn amount(bytes: u64, times: usize) -> String {
    let bytes = bytes as f64 * times as f64;
    let (unit, name) = if bytes < f64::from(1 << 30) { (1 << 20, "MiB") } else { (1 << 30, "GiB") };
    format!("{:.1} {name}", bytes / f64::from(unit))
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

    /// Whether all that each of `ranks` ranks, which are processes of their own, needs can be had together. What is refused is the
    /// first that does not fit beside those before it.
    ///
    /// # Errors
    /// If they cannot.
    pub fn check(self, needs: &[Need], ranks: usize) -> Result<(), TooLarge> {
        let mut beside = 0_u64;
        for &need in needs {
            let each = beside.saturating_add(need.bytes);
            for (ranks, limit) in [(ranks, self.shared), (1, self.own)] {
                if u128::from(each).saturating_mul(ranks as u128) > limit.bytes.into() {
                    return Err(TooLarge { need, beside, ranks, limit });
                }
            }
            beside = each;
        }
        Ok(())
    }
}

/// What a rank takes for weights that has so many experts of each MoE layer.
#[must_use]
pub fn of_weights(checkpoint: &Checkpoint, experts: usize) -> Need {
    let pages = (checkpoint.config().sparse_layers() * experts) as u64;
    let bytes = checkpoint.shared_memory().saturating_add(page_bytes(checkpoint).saturating_mul(pages));
    Need { user: MemoryUser::Weights, bytes }
}

/// What it takes for its KV cache, over all layers.
#[must_use]
pub fn of_cache(checkpoint: &Checkpoint, cache: CacheSize) -> Need {
    let Config { heads, layers, .. } = checkpoint.config();
    let shape = CacheShape { heads: *heads, blocks: cache.blocks, block_tokens: cache.block_tokens };
    let bytes = kernels::cpu::cache_bytes(shape).saturating_mul(layers.len() as u64);
    Need { user: MemoryUser::KvBlocks(cache.blocks as u64), bytes }
}

/// What it takes for staging pages.
#[must_use]
pub fn of_staging(checkpoint: &Checkpoint, pages: u32) -> Need {
    Need { user: MemoryUser::StagingPages(pages.into()), bytes: page_bytes(checkpoint).saturating_mul(pages.into()) }
}

fn page_bytes(checkpoint: &Checkpoint) -> u64 {
    kernels::cpu::page_bytes(expert_shape(checkpoint)) as u64
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
        let weights = |bytes| Need { user: MemoryUser::Weights, bytes };
        let cache = |blocks, bytes| Need { user: MemoryUser::KvBlocks(blocks), bytes };
        let staging = |pages, bytes| Need { user: MemoryUser::StagingPages(pages), bytes };
        let (gib, mib) = (1 << 30, 1 << 20);
        assert_eq!(memory.check(&[], 2), Ok(()));
        assert_eq!(memory.check(&[weights(gib), cache(2048, 3 * gib)], 2), Ok(()));
        assert_eq!(memory.check(&[weights(gib), cache(9, 2 * gib), staging(9, gib)], 2), Ok(()));
        for (needs, ranks, said) in [
            (
                &[weights(4 * gib + 1)][..],
                2,
                "the weights of the model take 8.0 GiB on 2 rank(s), and this container has 8.0 GiB; serve a smaller \
                 model, or give it more memory",
            ),
            (
                &[cache(2049, 4 * gib + 1)],
                2,
                "kv-blocks 2049 takes 8.0 GiB on 2 rank(s), and this container has 8.0 GiB; lower it",
            ),
            (
                &[weights(100 * mib), cache(4000, 5 * gib)],
                1,
                "kv-blocks 4000 takes 5.0 GiB on 1 rank(s), beside 100.0 MiB of weights, and a process (ulimit -v) has \
                 5.0 GiB; lower it",
            ),
            (
                &[weights(gib), cache(9, 2 * gib), staging(9, 2 * gib)],
                2,
                "staging-pages 9 takes 4.0 GiB on 2 rank(s), beside 6.0 GiB of weights and KV cache, and this container \
                 has 8.0 GiB; lower it, or kv-blocks",
            ),
        ] {
            assert_eq!(memory.check(needs, ranks).unwrap_err().to_string(), said);
        }
        let most = [weights(1), cache(1, 1), staging(u64::MAX, u64::MAX)];
        let said = memory.check(&most, usize::MAX).unwrap_err().to_string();
        assert!(said.len() <= 300, "{said}");
    }

    #[test]
    fn what_a_rank_takes_is_what_its_process_then_has() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/models/tiny-moe");
        let checkpoint = Checkpoint::open(Path::new(folder)).unwrap();
        let page = kernels::cpu::page_bytes(expert_shape(&checkpoint)) as u64;
        let layers = checkpoint.config().sparse_layers() as u64;
        let [none, all] = [0, checkpoint.config().experts].map(|experts| of_weights(&checkpoint, experts).bytes);
        assert_eq!(all - none, page * layers * checkpoint.config().experts as u64);
        // All of its tensors are bfloat16, and as bytes of a file they are as many as in memory, but for norms, which are
        // twice as wide, and the ends of rows.
        let (least, most) = (checkpoint.bytes(), checkpoint.bytes() * 5 / 4);
        let twice = if checkpoint.config().tied_embeddings { none } else { 0 };
        assert!((least..most + twice).contains(&all), "{least} {all} {most}");
        assert_eq!(of_staging(&checkpoint, 3).bytes, 3 * page);
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
