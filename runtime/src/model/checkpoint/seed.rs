//! What weights are drawn from where there are none, as `--weights` says it: measurements need a model's shapes and no weights of it.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use thiserror::Error;

use crate::quoted::Quoted;

/// What all weights of a model are drawn from, the same on every rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightSeed(pub u64);

/// Other words for where weights are from.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("weights are drawn from seed:N, N from 0 to {}, not from '{given}'; leave it out to read them", u64::MAX)]
pub struct UnknownWeights {
    given: Quoted<64>,
}

impl FromStr for WeightSeed {
    type Err = UnknownWeights;

    fn from_str(text: &str) -> Result<Self, UnknownWeights> {
        // A sign is no digit, which the parser of numbers would take.
        let digits = text.strip_prefix("seed:").filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        let seed = digits.and_then(|digits| digits.parse().ok());
        seed.map(Self).ok_or_else(|| UnknownWeights { given: text.into() })
    }
}

impl Display for WeightSeed {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "seed:{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_said_as_it_is_read_and_other_words_are_refused_in_one_sentence() {
        for seed in [0, 7, u64::MAX] {
            assert_eq!(WeightSeed(seed).to_string().parse(), Ok(WeightSeed(seed)));
        }
        for given in ["", "7", "seed:", "seed:+7", "seed:-1", "seed: 7", "seed:18446744073709551616", "Seed:7"] {
            let said = given.parse::<WeightSeed>().unwrap_err().to_string();
            assert!(said.contains(&format!("not from '{given}'")), "{said}");
        }
        assert!("x".repeat(1000).parse::<WeightSeed>().unwrap_err().to_string().len() < 300);
    }
}
