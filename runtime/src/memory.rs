//! How much memory a rank can have at most, of its device or its machine, so that what never fits is refused before any of it is
//! taken. Weights, pages and the KV cache are the device's; where that has none of its own, they are the process's.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::Path;

use kernels::{Backend, DeviceError, DeviceMemory};
use rustix::process::{Resource, getrlimit};
use thiserror::Error;

use crate::model::attention::cache_shape;
use crate::model::forward::CacheSize;
use crate::model::sizes::Sizes;

/// What of the memory that weights, experts and staging pages leave to a rank its KV cache takes where nobody says how much; the
/// rest is for activations and messages.
const CACHE_SHARE: f64 = 0.8;

/// The most memory that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// For all processes here together.
    shared: Limit,
    /// For each of them.
    own: Limit,
    /// What of the machine's or the device's nobody uses now; unknown where it is a container's that counts.
    free: Option<u64>,
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

/// What there is beside what is refused.
const WEIGHTS: &str = "of weights";

/// More memory is asked for than there is. Nothing but another setting or another machine helps.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct TooLarge {
    need: Need,
    /// Bytes of each rank that are asked for already, with which this has to fit.
    beside: u64,
    /// For what.
    what: &'static str,
    ranks: usize,
    limit: Limit,
}

impl Display for TooLarge {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let &Self { need: Need { user, bytes }, beside, what, ranks, limit: Limit { bytes: most, of } } = self;
        let advice = match user {
            MemoryUser::Weights | MemoryUser::KvBlocks(1) => "serve a smaller model, or give it more memory",
            MemoryUser::StagingPages(_) if what != WEIGHTS => "lower it, or kv-blocks",
            MemoryUser::KvBlocks(_) | MemoryUser::StagingPages(_) => "lower it",
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
    /// What a rank keeps its weights, pages and cache in: the device's own memory or, where that has none, this process's.
    ///
    /// # Errors
    /// If the device does not say.
    pub fn of_device<B: Backend>(device: &B) -> Result<Self, DeviceError> {
        let Some(DeviceMemory { total, free }) = device.memory()? else { return Ok(Self::of_this_process()) };
        let (shared, own) = (Limit { bytes: total, of: "its device" }, Limit { bytes: u64::MAX, of: "a process" });
        Ok(Self { shared, own, free: Some(free) })
    }

    /// What the machine has or, where that is less, the control groups of this process; and what one process may take.
    #[must_use]
    pub fn of_this_process() -> Self {
        let read = |path: &Path| fs::read_to_string(path).ok();
        let machine = read(Path::new("/proc/meminfo")).and_then(|text| kilobytes(&text, "MemTotal:"));
        let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
        let limits = limit_files(&groups).into_iter().filter_map(|file| read(Path::new(&file))?.trim().parse().ok());
        let limit = |bytes: Option<u64>, of| Limit { bytes: bytes.unwrap_or(u64::MAX), of };
        let (machine, container) = (limit(machine, "this machine"), limit(limits.min(), "this container"));
        // A system that says nothing of its memory refuses nothing here.
        let own = limit(getrlimit(Resource::As).current, "a process (ulimit -v)");
        if container.bytes < machine.bytes {
            return Self { shared: container, own, free: None };
        }
        let free = read(Path::new("/proc/meminfo")).and_then(|text| kilobytes(&text, "MemAvailable:"));
        Self { shared: machine, own, free }
    }

    /// Memory of so many bytes, for one rank.
    #[must_use]
    pub const fn of_bytes(bytes: u64) -> Self {
        let limit = Limit { bytes, of: "this rank" };
        Self { shared: limit, own: limit, free: None }
    }

    /// Bytes that one rank can have of it at most, if the system says so.
    #[must_use]
    pub fn most(self) -> Option<u64> {
        Some(self.shared.bytes.min(self.own.bytes)).filter(|bytes| *bytes < u64::MAX)
    }

    /// The same for one that has taken so many bytes already of what it needs.
    #[must_use]
    pub fn with_taken(self, bytes: u64) -> Self {
        Self { free: self.free.map(|free| free.saturating_add(bytes)), ..self }
    }

    /// Whether other processes have their part of it.
    #[must_use]
    pub const fn is_shared(self) -> bool {
        self.free.is_some()
    }

    /// What each of `ranks` ranks can have of it, of which `starting` are about to take theirs and the others have it already.
    #[must_use]
    pub fn of_each(self, ranks: usize, starting: usize) -> u64 {
        let part = |bytes: u64, ranks: usize| bytes / ranks.max(1) as u64;
        let free = self.free.map_or(u64::MAX, |free| part(free, starting));
        part(self.shared.bytes, ranks).min(free).min(self.own.bytes)
    }

    /// Whether all that each of `ranks` ranks, which are processes of their own, needs can be had together. What is refused is the
    /// first that does not fit beside those before it.
    ///
    /// # Errors
    /// If they cannot.
    pub fn check(self, needs: &[Need], ranks: usize) -> Result<(), TooLarge> {
        let (mut beside, mut what) = (0_u64, WEIGHTS);
        for &need in needs {
            let each = beside.saturating_add(need.bytes);
            for (ranks, limit) in [(ranks, self.shared), (1, self.own)] {
                if u128::from(each).saturating_mul(ranks as u128) > limit.bytes.into() {
                    return Err(TooLarge { need, beside, what, ranks, limit });
                }
            }
            beside = each;
            if matches!(need.user, MemoryUser::KvBlocks(_)) {
                what = "of weights and KV cache";
            }
        }
        Ok(())
    }
}

/// What a KV cache is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheUse {
    /// Tokens of a block.
    pub block_tokens: usize,
    /// Tokens of all sequences that a rank may ever have; more are of no use.
    pub most: u64,
}

/// The most blocks of a KV cache: the coordinator keeps a list of them.
pub const MOST_BLOCKS: u32 = 1 << 24;

/// What a rank takes for weights that has so many experts of each MoE layer, and for the angles of all positions.
#[must_use]
pub fn of_weights<B: Backend>(sizes: &Sizes, experts: usize) -> Need {
    let Need { bytes, .. } = of_experts::<B>(sizes, experts);
    Need { user: MemoryUser::Weights, bytes: sizes.shared.saturating_add(bytes) }
}

/// The blocks of a KV cache that takes its share of what `needs` leave of `room` bytes, and no more tokens than are of use.
///
/// # Errors
/// If that is not even one block.
pub fn usual_blocks<B: Backend>(sizes: &Sizes, needs: &[Need], room: u64, cache: CacheUse) -> Result<usize, TooLarge> {
    let CacheUse { block_tokens, most } = cache;
    let taken = needs.iter().map(|need| need.bytes).fold(0, u64::saturating_add);
    let one = of_cache::<B>(sizes, CacheSize { blocks: 1, block_tokens });
    let share = room.saturating_sub(taken) as f64 * CACHE_SHARE;
    let blocks = (share as u64 / one.bytes.max(1)).min(most.div_ceil(block_tokens as u64)).min(MOST_BLOCKS.into());
    if blocks == 0 {
        let limit = Limit { bytes: room, of: "it" };
        return Err(TooLarge { need: one, beside: taken, what: "of weights and staging pages", ranks: 1, limit });
    }
    Ok(blocks as usize)
}

/// What of a rank's weights the experts take.
#[must_use]
pub fn of_experts<B: Backend>(sizes: &Sizes, experts: usize) -> Need {
    let pages = (sizes.config.sparse_layers() * experts) as u64;
    Need { user: MemoryUser::Weights, bytes: page_bytes::<B>(sizes).saturating_mul(pages) }
}

/// What it takes for its KV cache, over all layers.
#[must_use]
pub fn of_cache<B: Backend>(sizes: &Sizes, cache: CacheSize) -> Need {
    let shape = cache_shape(&sizes.config, cache);
    let bytes = B::cache_bytes(shape).saturating_mul(sizes.config.layers.len() as u64);
    Need { user: MemoryUser::KvBlocks(cache.blocks as u64), bytes }
}

/// What it takes for staging pages.
#[must_use]
pub fn of_staging<B: Backend>(sizes: &Sizes, pages: u32) -> Need {
    Need { user: MemoryUser::StagingPages(pages.into()), bytes: page_bytes::<B>(sizes).saturating_mul(pages.into()) }
}

fn page_bytes<B: Backend>(sizes: &Sizes) -> u64 {
    B::page_bytes(sizes.expert) as u64
}

/// Bytes of a line of `/proc/meminfo`.
fn kilobytes(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
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
    use kernels::cpu::Cpu;

    use super::*;
    use crate::model::checkpoint::Checkpoint;

    #[test]
    fn what_fits_is_taken_and_what_does_not_is_refused_with_what_there_is() {
        let (container, process) = ("this container", "a process (ulimit -v)");
        let (shared, own) = (Limit { bytes: 8 << 30, of: container }, Limit { bytes: 5 << 30, of: process });
        let memory = Memory { shared, own, free: None };
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
                &[weights(gib), staging(9, 4 * gib)],
                2,
                "staging-pages 9 takes 8.0 GiB on 2 rank(s), beside 2.0 GiB of weights, and this container has 8.0 GiB; \
                 lower it",
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
        let sizes = checkpoint.sizes();
        let page = Cpu::page_bytes(sizes.expert) as u64;
        let layers = checkpoint.config().sparse_layers() as u64;
        let [none, all] =
            [0, checkpoint.config().experts.count].map(|experts| of_weights::<Cpu>(&sizes, experts).bytes);
        assert_eq!(all - none, page * layers * checkpoint.config().experts.count as u64);
        // All of its tensors are bfloat16, and as bytes of a file they are as many as in memory, but for norms, which are
        // twice as wide, and the ends of rows.
        let (least, most) = (checkpoint.bytes(), checkpoint.bytes() * 5 / 4);
        let twice = if checkpoint.config().tied_embeddings { none } else { 0 };
        assert!((least..most + twice).contains(&all), "{least} {all} {most}");
        assert_eq!(of_staging::<Cpu>(&sizes, 3).bytes, 3 * page);
    }

    #[test]
    fn a_cache_takes_its_share_of_what_the_rest_leaves_and_no_more_than_it_can_use() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/models/tiny-moe");
        let sizes = Checkpoint::open(Path::new(folder)).unwrap().sizes();
        let needs = [of_weights::<Cpu>(&sizes, 8), of_staging::<Cpu>(&sizes, 2)];
        let (taken, block_tokens) = (needs[0].bytes + needs[1].bytes, 16);
        let one = of_cache::<Cpu>(&sizes, CacheSize { blocks: 1, block_tokens }).bytes;
        let blocks = |room, most| usual_blocks::<Cpu>(&sizes, &needs, room, CacheUse { block_tokens, most });
        assert_eq!(blocks(taken + 100 * one, u64::MAX), Ok(80));
        assert_eq!(blocks(taken + 100 * one, 17), Ok(2));
        assert_eq!(blocks(u64::MAX, u64::MAX), Ok(MOST_BLOCKS as usize));
        for room in [0, taken, taken + one] {
            let said = blocks(room, u64::MAX).unwrap_err().to_string();
            assert!(
                said.starts_with("kv-blocks 1 takes ") && said.contains(" of weights and staging pages, and it has ")
            );
            assert!(said.ends_with("; serve a smaller model, or give it more memory"), "{said}");
        }
    }

    #[test]
    fn ranks_of_one_machine_share_what_it_has_and_take_no_more_than_is_free() {
        let limit = |bytes| Limit { bytes, of: "it" };
        let memory = Memory { shared: limit(800), own: limit(u64::MAX), free: Some(300) };
        // Four that start, and one that starts again beside three that have theirs.
        assert_eq!((memory.of_each(4, 4), memory.of_each(4, 1), memory.of_each(2, 1)), (75, 200, 300));
        // What one has taken already it need not find.
        assert_eq!((memory.with_taken(100).of_each(1, 1), memory.with_taken(u64::MAX).of_each(4, 1)), (400, 200));
        let container = Memory { free: None, ..memory };
        assert_eq!(container.with_taken(100), container);
        assert_eq!((container.of_each(1, 1), container.of_each(4, 4)), (800, 200));
        assert_eq!(Memory { own: limit(50), ..container }.of_each(1, 1), 50);
    }

    #[test]
    fn the_machine_and_its_control_groups_say_what_there_is() {
        assert_eq!(kilobytes("MemFree: 1 kB\nMemTotal:       16384 kB\n", "MemTotal:"), Some(16384 * 1024));
        assert_eq!(kilobytes("MemTotal: much\n", "MemTotal:"), None);
        assert_eq!(
            limit_files("0::/pods/one\n"),
            ["pods/one/", "pods/", ""].map(|group| format!("/sys/fs/cgroup/{group}memory.max"))
        );
        assert_eq!(
            limit_files("5:cpu,memory:/one\n4:pids:/one\nodd\n"),
            ["one/", ""].map(|group| format!("/sys/fs/cgroup/memory/{group}memory.limit_in_bytes"))
        );
        assert!(Memory::of_this_process().most().unwrap() > 1 << 20);
    }
}
