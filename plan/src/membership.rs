//! Which ranks of a group are live before a change of it and after. Knows nothing of what they hold.

use thiserror::Error;

use crate::ids::RankId;
use crate::slots::RankSlots;
use crate::words::counted;

/// A rank is live while it has slots. Ranks keep their numbers when others are lost, so a rank that is lost has none after
/// the change, and one that returns had none before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    lost: Vec<RankId>,
    returned: Vec<RankId>,
}

impl Membership {
    /// What differs between the slots of a group's ranks before and after.
    ///
    /// # Errors
    /// If the two are of different numbers of ranks, or a rank that is live before and after has other numbers of slots.
    pub fn between(before: &RankSlots, after: &RankSlots) -> Result<Self, MembershipError> {
        if before.ranks() != after.ranks() {
            return Err(MembershipError::Ranks { before: before.ranks(), after: after.ranks() });
        }
        let mut membership = Self { lost: Vec::new(), returned: Vec::new() };
        for (rank, (before, after)) in before.counts().zip(after.counts()).enumerate() {
            let rank = RankId::from(rank);
            match (before, after) {
                (0, 0) => {}
                (0, _) => membership.returned.push(rank),
                (_, 0) => membership.lost.push(rank),
                (before, after) if before == after => {}
                (before, after) => return Err(MembershipError::Slots { rank, before, after }),
            }
        }
        Ok(membership)
    }

    /// Ranks that are live before and not after, ascending.
    #[must_use]
    pub fn lost(&self) -> &[RankId] {
        &self.lost
    }

    /// Ranks that are live after and not before, ascending. They hold nothing at first.
    #[must_use]
    pub fn returned(&self) -> &[RankId] {
        &self.returned
    }

    /// Whether the same ranks are live before and after.
    #[must_use]
    pub const fn is_unchanged(&self) -> bool {
        self.lost.is_empty() && self.returned.is_empty()
    }
}

/// Why two lists of ranks are not of one group.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MembershipError {
    /// They are of different numbers of ranks.
    #[error(
        "the map in force is of {}, the target of {after}; ranks keep their numbers, so give a lost rank 0 slots, and start \
         ranks anew for another number of them",
        counted(*before, "rank")
    )]
    Ranks {
        /// Ranks before.
        before: usize,
        /// Ranks after.
        after: usize,
    },
    /// A live rank would have other slots.
    #[error(
        "{rank} has {} per layer in the map in force and {after} in the target; a live rank keeps its slots: \
         plan with {before}, or start the ranks anew",
        counted(*before, "slot")
    )]
    Slots {
        /// The rank.
        rank: RankId,
        /// Its slots before.
        before: usize,
        /// Its slots after.
        after: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn between(before: &[usize], after: &[usize]) -> Result<Membership, MembershipError> {
        Membership::between(&RankSlots::new(before.iter().copied()), &RankSlots::new(after.iter().copied()))
    }

    #[test]
    fn ranks_without_slots_are_not_live() {
        let changed = between(&[2, 0, 3, 0, 2], &[2, 3, 0, 0, 2]).unwrap();
        assert_eq!((changed.lost(), changed.returned()), (&[RankId(2)][..], &[RankId(1)][..]));
        assert!(!changed.is_unchanged());
        assert!(between(&[2, 0, 3], &[2, 0, 3]).unwrap().is_unchanged());
    }

    #[test]
    fn other_ranks_and_other_slots_are_refused_with_what_to_do() {
        let words = |before: &[usize], after: &[usize]| between(before, after).unwrap_err().to_string();
        assert_eq!(
            words(&[2, 2, 2], &[2, 2]),
            "the map in force is of 3 ranks, the target of 2; ranks keep their numbers, so give a lost rank 0 slots, and \
             start ranks anew for another number of them"
        );
        assert_eq!(
            words(&[2, 9], &[2, 8]),
            "rank 1 has 9 slots per layer in the map in force and 8 in the target; a live rank keeps its slots: plan \
             with 9, or start the ranks anew"
        );
    }
}
