//! What each number and name that somebody sets may be. Numbers within their bounds can be added and multiplied as they are used:
//! no arithmetic behind the settings has to doubt them.

use plan::wire::process::MOST_RANKS_HERE;
use plan::words::is_hidden;
use thiserror::Error;

/// An option with a whole number, and the least and the most that it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The option, without its dashes.
    pub option: &'static str,
    /// The least.
    pub least: u64,
    /// The most.
    pub most: u64,
}

/// A text is no number within the bounds of its option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("must be a whole number from {least} to {most}")]
pub struct NotWithin {
    least: u64,
    most: u64,
}

/// A number is not within the bounds of its option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{option} must be a whole number from {least} to {most}, not {found}")]
pub struct OutOfBounds {
    option: &'static str,
    least: u64,
    most: u64,
    found: u64,
}

impl Bounds {
    const fn new(option: &'static str, least: u64, most: u64) -> Self {
        Self { option, least, most }
    }

    /// Reads the option's value from the command line.
    pub fn parser<T: TryFrom<u64>>(self) -> impl Fn(&str) -> Result<T, NotWithin> + Clone + Send + Sync + 'static {
        let Self { least, most, .. } = self;
        move |text| {
            let number = text.parse().ok().filter(|number| (least..=most).contains(number));
            number.and_then(|number| T::try_from(number).ok()).ok_or(NotWithin { least, most })
        }
    }

    /// Checks a value, wherever it comes from.
    ///
    /// # Errors
    /// If it is not within the bounds.
    pub const fn check(self, found: u64) -> Result<(), OutOfBounds> {
        let Self { option, least, most } = self;
        if found < least || found > most {
            return Err(OutOfBounds { option, least, most, found });
        }
        Ok(())
    }
}

/// Characters of a model's name: it is in every answer.
const NAME_AT_MOST: usize = 256;

/// A text is no name of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("must be a name of 1 to {NAME_AT_MOST} characters, none of them a control or otherwise hidden")]
pub struct NoName;

/// Reads the name that a model is served under.
///
/// # Errors
/// If requests could not say it, or people not see it.
pub fn served_name(text: &str) -> Result<String, NoName> {
    let is_name = !text.trim().is_empty() && text.chars().count() <= NAME_AT_MOST && !text.chars().any(is_hidden);
    is_name.then(|| text.to_owned()).ok_or(NoName)
}

/// As many ranks as a map may have, and more than any machine room has.
pub const RANKS: Bounds = Bounds::new("ranks", 1, 1 << 14);
/// Sequences that wait.
pub const QUEUED: Bounds = Bounds::new("max-queued-requests", 1, 1_000_000);
/// Tokens of a sequence: positions are rotated in single precision.
pub const MODEL_LEN: Bounds = Bounds::new("max-model-len", 1, 1 << 24);
/// Sequences of a rank.
pub const RUNNING: Bounds = Bounds::new("max-running-sequences", 1, 1 << 16);
/// Tokens of a rank's step: activations of each are held at once.
pub const STEP_TOKENS: Bounds = Bounds::new("max-step-tokens", 1, 1 << 20);
/// Bytes of a body.
pub const BODY: Bounds = Bounds::new("max-body-bytes", 1, 1 << 30);
/// Seconds of a step.
pub const STEP_DEADLINE: Bounds = Bounds::new("step-deadline-seconds", 1, DAY);
/// Seconds of serving on.
pub const LEAVE: Bounds = Bounds::new("shutdown-delay-seconds", 0, DAY);
/// Seconds of ending.
pub const GRACE: Bounds = Bounds::new("shutdown-grace-seconds", 0, DAY);
/// Steps of a window.
pub const WINDOW: Bounds = Bounds::new("num-iterations-eplb-update", 1, 1_000_000_000);
/// Steps before a plan is applied; the first steps of a group and of a new placement are not typical.
pub const WAIT: Bounds = Bounds::new("num-wait-worker-iterations", 30, 1_000_000_000);
/// Redundant experts of a layer; as many as all slots of the most ranks with one more copy of everything.
pub const REDUNDANCY: Bounds = Bounds::new("init-redundancy-expert", 0, 1 << 28);
/// Experts of a layer.
pub const EXPERTS: Bounds = Bounds::new("expect-experts", 1, 1 << 14);
/// Staging pages of a rank.
pub const STAGING: Bounds = Bounds::new("staging-pages", 1, 1 << 16);
/// Bytes per second: a petabyte.
pub const MOVE_BYTES: Bounds = Bounds::new("move-bytes-per-second", 0, 1_000_000_000_000_000);
/// Bytes of a rebalance: a petabyte.
pub const REBALANCE_BYTES: Bounds = Bounds::new("max-rebalance-bytes", 0, 1_000_000_000_000_000);
/// Windows without moves.
pub const COOL_DOWN: Bounds = Bounds::new("cool-down-windows", 0, 1_000_000_000);
/// Ranks that may be lost.
pub const COVERAGE: Bounds = Bounds::new("min-coverage", 0, RANKS.most);
/// Nodes that may be lost.
pub const NODE_COVERAGE: Bounds = Bounds::new("min-node-coverage", 0, RANKS.most);
/// Seconds of a transaction.
pub const MOVE_DEADLINE: Bounds = Bounds::new("move-deadline-seconds", 1, DAY);
/// Number of a rank.
pub const RANK: Bounds = Bounds::new("rank", 0, RANKS.most - 1);
/// Ranks of one process: more GPUs than a machine has.
pub const RANKS_HERE: Bounds = Bounds::new("ranks-here", 1, MOST_RANKS_HERE as u64);
/// Compute threads.
pub const THREADS: Bounds = Bounds::new("threads", 1, 1024);
/// KV blocks; how many fit is the machine's to say.
pub const KV_BLOCKS: Bounds = Bounds::new("kv-blocks", 1, 1 << 30);
/// Bytes of a rank's memory: a petabyte.
pub const MEMORY: Bounds = Bounds::new("memory", 1, 1_000_000_000_000_000);
/// Tokens of a KV block.
pub const BLOCK_TOKENS: Bounds = Bounds::new("block-tokens", 16, 1 << 20);
/// Number of a process.
pub const PARENT: Bounds = Bounds::new("parent", 1, i32::MAX as u64);

const DAY: u64 = 24 * 60 * 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_within_the_bounds_is_refused() {
        let parse = Bounds::new("x", 2, 1000).parser::<u16>();
        let good = ["2", "1000", "007"].map(|text| parse(text).ok());
        assert_eq!(good, [Some(2), Some(1000), Some(7)]);
        for bad in
            ["", " 3", "1", "0", "1001", "18446744073709551615", "18446744073709551616", "-3", "3.0", "1e2", "NaN", "x"]
        {
            assert_eq!(parse(bad).unwrap_err().to_string(), "must be a whole number from 2 to 1000", "{bad}");
        }
    }

    #[test]
    fn a_model_has_a_name_that_can_be_seen() {
        for good in ["m", "org/Qwen3 30B-A3B", "modèle", &"x".repeat(256)] {
            assert_eq!(served_name(good).as_deref(), Ok(good));
        }
        for bad in ["", " ", "a\nb", "\u{1b}[31m", "a\u{200b}", &"x".repeat(257)] {
            assert_eq!(served_name(bad), Err(NoName), "{bad:?}");
        }
    }

    #[test]
    fn a_setting_out_of_bounds_is_named_with_its_value_and_its_bounds() {
        assert_eq!(RANKS.check(1), Ok(()));
        let error = MOVE_DEADLINE.check(u64::MAX).unwrap_err().to_string();
        assert_eq!(error, "move-deadline-seconds must be a whole number from 1 to 86400, not 18446744073709551615");
    }
}
