//! The numbers by which everything else is named. Each is an index that starts at 0.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! index {
    ($(#[$doc:meta])* $name:ident, $word:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl $name {
            /// The number as an index into a slice.
            #[must_use]
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl From<usize> for $name {
            /// # Panics
            /// If `index` does not fit 32 bits, which no checked [`crate::map::MapShape`] allows.
            fn from(index: usize) -> Self {
                Self(u32::try_from(index).expect("indices fit 32 bits"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, concat!($word, " {}"), self.0)
            }
        }
    };
}

index!(
    /// A Mixture-of-Experts layer, counted among MoE layers only: dense layers have no number here.
    LayerId,
    "layer"
);
index!(
    /// A logical expert of one layer, as in the checkpoint.
    ExpertId,
    "expert"
);
index!(
    /// One GPU (or one CPU slice) of the expert-parallel group.
    RankId,
    "rank"
);
index!(
    /// The place of a slot within its rank and layer.
    SlotIndex,
    "slot"
);
index!(
    /// A machine that holds ranks.
    NodeId,
    "node"
);
