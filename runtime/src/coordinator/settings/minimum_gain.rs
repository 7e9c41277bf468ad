//! From how much on it is worth moving experts.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use plan::policy::MINIMUM_GAIN;
use thiserror::Error;

/// A share of the balance ratio: from 0 to below 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MinimumGain(pub(super) f64);

/// A number is no [`MinimumGain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("must be a number from 0 to below 1")]
pub struct NoGain;

impl FromStr for MinimumGain {
    type Err = NoGain;

    fn from_str(text: &str) -> Result<Self, NoGain> {
        let number = text.parse().ok().filter(|number| (0.0..1.0).contains(number));
        number.map(Self).ok_or(NoGain)
    }
}

impl Display for MinimumGain {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl Default for MinimumGain {
    fn default() -> Self {
        Self(MINIMUM_GAIN)
    }
}
