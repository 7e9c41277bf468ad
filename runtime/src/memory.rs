//! How much memory a rank can have at most, of its device or its machine, so that what never fits is refused before any of it is
//! taken. Weights, pages and the KV cache are the device's; where that has none of its own, they are the process's.

mod needs;

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::Path;

use kernels::{Backend, DeviceError, DeviceMemory};
use plan::words::counted;
use rustix::process::{Resource, getrlimit};
use thiserror::Error;

pub use self::needs::{
    CacheUse, MOST_BLOCKS, MemoryUser, Need, Needs, RankPart, of_cache, of_experts, of_shared, usual_blocks,
};

/// The most memory that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// For all processes here together.
    shared: Limit,
    /// For each of them.
    own: Limit,
    /// What of the machine's or the device's nobody uses now; unknown where it is a container's that counts.
    free: Option<u64>,
    /// Whether it is a device's own. That has no more for anybody than is free: nobody there lets go of anything for another.
    is_devices: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit {
    bytes: u64,
    /// Whose it is.
    of: &'static str,
}

/// More memory is asked for than there is. Nothing but another setting or another machine helps, or that others leave a device.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TooLarge {
    /// Something does not fit beside the rest.
    #[error(transparent)]
    Beside(#[from] NotBeside),
    /// A device has not as much.
    #[error(transparent)]
    Device(#[from] DeviceTooSmall),
}

/// A device has too little memory, or too little of it is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub struct DeviceTooSmall {
    /// What a rank needs most for.
    largest: Need,
    /// What it needs in all.
    needed: u64,
    /// Ranks that share the device.
    ranks: usize,
    memory: DeviceMemory,
}

impl Display for DeviceTooSmall {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let &Self { largest: Need { user, bytes }, needed, ranks, memory: DeviceMemory { total, free } } = self;
        let who = if ranks == 1 { "this rank".to_owned() } else { format!("each of {}", counted(ranks, "rank")) };
        let (needed_words, of_largest) = (amount(needed, 1), amount(bytes, 1));
        let advice = if u128::from(needed) * ranks as u128 <= total.into() {
            "end what else uses it"
        } else if ranks > 1 {
            "give each rank a GPU of its own"
        } else {
            "serve a smaller model, start more ranks"
        };
        let lower = match user {
            MemoryUser::Weights => "use a GPU with more",
            MemoryUser::Nccl => "use --exchange tcp",
            MemoryUser::KvBlocks(_) => "lower kv-blocks",
            MemoryUser::Steps(_) => "lower max-step-tokens",
            MemoryUser::StagingPages(_) => "lower staging-pages",
        };
        write!(
            formatter,
            "{who} needs {needed_words} of its device's memory, {of_largest} of that for {user}, and {} of {} are free; {advice}, or {lower}",
            amount(free, 1),
            amount(total, 1)
        )
    }
}

/// Something for which there is no room beside the rest.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct NotBeside {
    need: Need,
    /// What each rank is asked for already, with which this has to fit.
    beside: Vec<Need>,
    ranks: usize,
    limit: Limit,
}

impl Display for NotBeside {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let &Self { need: Need { user, bytes }, ref beside, ranks, limit: Limit { bytes: most, of } } = self;
        let has_cache = beside.iter().any(|need| matches!(need.user, MemoryUser::KvBlocks(_)));
        let advice = match user {
            MemoryUser::Nccl => "use --exchange tcp, a smaller model, or GPUs with more memory",
            MemoryUser::Weights | MemoryUser::KvBlocks(1) => "serve a smaller model, or give it more memory",
            MemoryUser::Steps(_) | MemoryUser::StagingPages(_) if has_cache => "lower it, or kv-blocks",
            MemoryUser::KvBlocks(_) | MemoryUser::Steps(_) | MemoryUser::StagingPages(_) => "lower it",
        };
        let verb = if user == MemoryUser::Weights { "take" } else { "takes" };
        write!(formatter, "{user} {verb} {} on {ranks} rank(s)", amount(bytes, ranks))?;
        let all = total(beside);
        let names: Vec<&str> = beside.iter().map(|need| need.user.in_a_list()).collect();
        match &names[..] {
            [] => {}
            [one] => write!(formatter, ", beside {} of {one}", amount(all, ranks))?,
            [several @ .., last] => {
                write!(formatter, ", beside {} of {} and {last}", amount(all, ranks), several.join(", "))?;
            }
        }
        write!(formatter, ", and {of} has {}; {advice}", amount(most, 1))
    }
}

fn total(needs: &[Need]) -> u64 {
    needs.iter().map(|need| need.bytes).fold(0, u64::saturating_add)
}

/// Those that take anything.
fn taken(needs: &[Need]) -> Vec<Need> {
    needs.iter().filter(|need| need.bytes > 0).copied().collect()
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
        Ok(Self { shared, own, free: Some(free), is_devices: true })
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
            return Self { shared: container, own, free: None, is_devices: false };
        }
        let free = read(Path::new("/proc/meminfo")).and_then(|text| kilobytes(&text, "MemAvailable:"));
        Self { shared: machine, own, free, is_devices: false }
    }

    /// Memory of so many bytes, for one rank.
    #[must_use]
    pub const fn of_bytes(bytes: u64) -> Self {
        let limit = Limit { bytes, of: "this rank" };
        Self { shared: limit, own: limit, free: None, is_devices: false }
    }

    /// Bytes that one rank can have of it at most, if the system says so.
    #[must_use]
    pub fn most(self) -> Option<u64> {
        Some(self.shared.bytes.min(self.own.bytes)).filter(|bytes| *bytes < u64::MAX)
    }

    /// The same for one that has taken so many bytes already of what it needs.
    #[must_use]
    pub fn with_taken(self, bytes: u64) -> Self {
        Self { free: self.free.map(|free| free.saturating_add(bytes).min(self.shared.bytes)), ..self }
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
        if self.is_devices {
            return Ok(self.check_device(needs, ranks)?);
        }
        for (index, &need) in needs.iter().enumerate() {
            let (beside, each) = (&needs[..index], total(&needs[..=index]));
            for (ranks, limit) in [(ranks, self.shared), (1, self.own)] {
                if u128::from(each).saturating_mul(ranks as u128) > limit.bytes.into() {
                    return Err(NotBeside { need, beside: taken(beside), ranks, limit }.into());
                }
            }
        }
        Ok(())
    }

    /// Whether a device has what each of `ranks` ranks needs that share it, and what is free of it is enough for one that has taken
    /// nothing yet but what was [said](Self::with_taken).
    fn check_device(self, needs: &[Need], ranks: usize) -> Result<(), DeviceTooSmall> {
        let (needed, total, free) = (total(needs), self.shared.bytes, self.free.unwrap_or(self.shared.bytes));
        let all = u128::from(needed).saturating_mul(ranks as u128);
        let largest = needs.iter().max_by_key(|need| need.bytes);
        match largest {
            Some(&largest) if all > total.into() || needed > free => {
                Err(DeviceTooSmall { largest, needed, ranks, memory: DeviceMemory { total, free } })
            }
            _ => Ok(()),
        }
    }
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
    use super::*;

    #[test]
    fn what_fits_is_taken_and_what_does_not_is_refused_with_what_there_is() {
        let (container, process) = ("this container", "a process (ulimit -v)");
        let (shared, own) = (Limit { bytes: 8 << 30, of: container }, Limit { bytes: 5 << 30, of: process });
        let memory = Memory { shared, own, free: None, is_devices: false };
        let weights = |bytes| Need { user: MemoryUser::Weights, bytes };
        let cache = |blocks, bytes| Need { user: MemoryUser::KvBlocks(blocks), bytes };
        let staging = |pages, bytes| Need { user: MemoryUser::StagingPages(pages), bytes };
        let steps = |tokens, bytes| Need { user: MemoryUser::Steps(tokens), bytes };
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
                &[weights(4 * gib), Need { user: MemoryUser::Nccl, bytes: 2 * gib }],
                1,
                "NCCL takes 2.0 GiB on 1 rank(s), beside 4.0 GiB of weights, and a process (ulimit -v) has 5.0 GiB; use \
                 --exchange tcp, a smaller model, or GPUs with more memory",
            ),
            (
                &[weights(gib), Need { user: MemoryUser::Nccl, bytes: gib }, cache(2000, 3 * gib)],
                2,
                "kv-blocks 2000 takes 6.0 GiB on 2 rank(s), beside 4.0 GiB of weights and NCCL, and this container has 8.0 \
                 GiB; lower it",
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
            (
                &[weights(gib), cache(0, 0), steps(512, 4 * gib)],
                2,
                "max-step-tokens 512 takes 8.0 GiB on 2 rank(s), beside 2.0 GiB of weights, and this container has 8.0 GiB; \
                 lower it",
            ),
            (
                &[weights(gib), cache(9, gib), steps(512, gib), staging(9, 2 * gib)],
                2,
                "staging-pages 9 takes 4.0 GiB on 2 rank(s), beside 6.0 GiB of weights, KV cache and activations, and this \
                 container has 8.0 GiB; lower it, or kv-blocks",
            ),
        ] {
            assert_eq!(memory.check(needs, ranks).unwrap_err().to_string(), said);
        }
        let most = [weights(1), cache(1, 1), steps(1, 1), staging(u64::MAX, u64::MAX)];
        let said = memory.check(&most, usize::MAX).unwrap_err().to_string();
        assert!(said.len() <= 300, "{said}");
    }

    #[test]
    fn a_device_has_what_is_free_of_it_and_says_what_is_needed_and_for_what_most_of_it() {
        let (gib, own) = (1 << 30, Limit { bytes: u64::MAX, of: "a process" });
        let shared = Limit { bytes: 80 * gib, of: "its device" };
        let free = |free| Memory { shared, own, free: Some(free), is_devices: true };
        let need = |user, bytes| Need { user, bytes };
        let weights = |bytes| need(MemoryUser::Weights, bytes);
        let needs = [weights(57 * gib), need(MemoryUser::KvBlocks(9), gib), need(MemoryUser::Steps(512), 2 * gib)];
        assert_eq!(free(60 * gib).check(&needs, 1), Ok(()));
        assert_eq!(free(50 * gib).with_taken(10 * gib).check(&needs, 1), Ok(()), "what it has it need not find");
        for (memory, needs, ranks, said) in [
            (
                free(12 * gib),
                &needs[..],
                1,
                "this rank needs 60.0 GiB of its device's memory, 57.0 GiB of that for the weights of the model, and 12.0 GiB of \
                 80.0 GiB are free; end what else uses it, or use a GPU with more",
            ),
            (
                free(79 * gib),
                &[weights(70 * gib), need(MemoryUser::KvBlocks(9000), 90 * gib)],
                1,
                "this rank needs 160.0 GiB of its device's memory, 90.0 GiB of that for kv-blocks 9000, and 79.0 GiB of 80.0 GiB \
                 are free; serve a smaller model, start more ranks, or lower kv-blocks",
            ),
            (
                free(79 * gib),
                &needs,
                2,
                "each of 2 ranks needs 60.0 GiB of its device's memory, 57.0 GiB of that for the weights of the model, and 79.0 \
                 GiB of 80.0 GiB are free; give each rank a GPU of its own, or use a GPU with more",
            ),
        ] {
            assert_eq!(memory.check(needs, ranks).unwrap_err().to_string(), said);
            assert!(said.len() <= 300);
        }
    }

    #[test]
    fn ranks_of_one_machine_share_what_it_has_and_take_no_more_than_is_free() {
        let limit = |bytes| Limit { bytes, of: "it" };
        let memory = Memory { shared: limit(800), own: limit(u64::MAX), free: Some(300), is_devices: false };
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
