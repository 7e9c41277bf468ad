//! What ranks say of themselves that must be the same of all ranks of a group: their devices give the same bits from the same
//! pages, and the blocks of their caches are of one length. Pure.

use plan::ids::RankId;
use plan::words::{counted, is_hidden};

use crate::protocol::RankDevice;
use crate::quoted::Quoted;

/// The most tokens of a block of a KV cache.
const MOST_BLOCK_TOKENS: u32 = 1 << 16;

/// The longest name of a device, or of something about it.
const MOST_NAME_BYTES: usize = 128;

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Traits {
    /// Tokens of a block of its KV cache.
    pub block_tokens: u32,
    /// What it computes on.
    pub device: RankDevice,
}

impl Traits {
    /// Whether a rank's can be true, and be shown.
    ///
    /// # Errors
    /// If not, with what is wrong.
    pub fn check(&self, rank: RankId) -> Result<(), String> {
        let Self { block_tokens, device: RankDevice { kind, name, unit, page_layout, page_bytes, memory: _ } } = self;
        if !(1..=MOST_BLOCK_TOKENS).contains(block_tokens) {
            return Err(format!(
                "{rank} has KV blocks of {block_tokens} tokens; there must be 1 to {MOST_BLOCK_TOKENS}"
            ));
        }
        for (what, said) in [("kind", kind), ("name", name), ("unit", unit), ("page layout", page_layout)] {
            if said.is_empty() {
                return Err(format!("{rank} does not name its device's {what}; run the same version everywhere"));
            }
            if said.len() > MOST_NAME_BYTES || said.chars().any(is_hidden) {
                return Err(format!(
                    "{rank} gives {} as its device's {what}, which is no name",
                    Quoted::<64>::from(said)
                ));
            }
        }
        if *page_bytes == 0 {
            return Err(format!("{rank} has pages of no bytes; run the same version everywhere"));
        }
        Ok(())
    }

    /// Whether a rank with these can be in one group with another.
    ///
    /// # Errors
    /// If not: what of both differs, and what to do.
    pub fn fit(&self, rank: RankId, (other, others): (RankId, &Self)) -> Result<(), String> {
        let (mine, its) = (&self.device, &others.device);
        if mine.kind != its.kind {
            return Err(format!(
                "{rank} computes on {} and {other} on {}; give all ranks devices of one kind, with the same --backend",
                device_name(mine),
                device_name(its)
            ));
        }
        let layout = |device: &RankDevice| {
            format!("{} in {}", counted(device.page_bytes as usize, "byte"), short(&device.page_layout))
        };
        if layout(mine) != layout(its) {
            return Err(format!(
                "{rank} keeps an expert as {} and {other} as {}; run the same version everywhere",
                layout(mine),
                layout(its)
            ));
        }
        if self.block_tokens != others.block_tokens {
            return Err(format!(
                "{rank} has KV blocks of {} and {other} of {}; start all with the same --block-tokens",
                counted(self.block_tokens as usize, "token"),
                others.block_tokens
            ));
        }
        Ok(())
    }
}

/// A device as people are told of it.
pub(super) fn device_name(RankDevice { kind, name, .. }: &RankDevice) -> String {
    format!("{} ({})", short(kind), short(name))
}

fn short(name: &str) -> Quoted<48> {
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traits(change: impl FnOnce(&mut Traits)) -> Traits {
        let mut traits = Traits { block_tokens: 16, device: crate::protocol::tests::device() };
        change(&mut traits);
        traits
    }

    fn difference(change: impl FnOnce(&mut Traits)) -> Result<(), String> {
        traits(change).fit(RankId(1), (RankId(0), &traits(|_| {})))
    }

    #[test]
    fn ranks_that_give_the_same_bits_from_the_same_pages_fit_and_others_are_told_both_values() {
        // Another product of the kind, in another place, with other memory.
        let fits = difference(|traits| {
            let device = &mut traits.device;
            (device.name, device.unit, device.memory) = ("AVX-512".to_owned(), "1".to_owned(), 1);
        });
        assert_eq!(fits, Ok(()));
        let reasons = [
            difference(|traits| {
                (traits.device.kind, traits.device.name) = ("cuda sm_90".to_owned(), "NVIDIA H200".to_owned());
            }),
            difference(|traits| traits.device.page_layout = "rows".to_owned()),
            difference(|traits| traits.device.page_bytes = 8192),
            difference(|traits| traits.block_tokens = 32),
            // What is longest.
            difference(|traits| (traits.device.kind, traits.device.name) = ("k".repeat(128), "n".repeat(128))),
        ];
        assert!(reasons.iter().all(|reason| reason.as_ref().unwrap_err().len() <= 300));
        insta::assert_yaml_snapshot!(reasons.map(Result::unwrap_err));
    }

    #[test]
    fn what_cannot_be_true_or_be_shown_is_refused() {
        assert_eq!(traits(|_| {}).check(RankId(1)), Ok(()));
        let changes: [fn(&mut Traits); 7] = [
            |traits| traits.block_tokens = 0,
            |traits| traits.block_tokens = u32::MAX,
            |traits| traits.device.kind = String::new(),
            |traits| traits.device.name = "x".repeat(1000),
            |traits| traits.device.unit = "a\u{1b}[2Jb".to_owned(),
            |traits| traits.device.page_layout = "a\nb".to_owned(),
            |traits| traits.device.page_bytes = 0,
        ];
        insta::assert_yaml_snapshot!(changes.map(|change| traits(change).check(RankId(1)).unwrap_err()));
    }
}
