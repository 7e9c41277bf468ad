//! The ranks of one process whose pages a rank's device copies by itself. What is between two devices is opened when their group
//! forms, and not while it serves.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use kernels::Backend;
use plan::ids::RankId;

use crate::experts::pages::RankPages;
use crate::fabric::neighbours::{Key, Neighbours};
use crate::fabric::purpose::GroupId;

/// Their pages, for as long as they are part of the group.
pub struct Near<B: Backend>(BTreeMap<RankId, Weak<RankPages<B>>>);

impl<B: Backend> Default for Near<B> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<B: Backend> Near<B> {
    /// Lets the other ranks of the process find a rank's pages.
    pub fn share(neighbours: &Neighbours, (group, rank): (GroupId, RankId), pages: &Arc<RankPages<B>>) {
        neighbours.share(Key::Pages(group, rank), &(Arc::clone(pages) as _));
    }

    /// Those of a group of so many ranks, all of which have shared their pages if they are of this process, and whose devices this
    /// rank's reaches; pages of others come over a connection.
    pub fn find(neighbours: &Neighbours, (group, own): (GroupId, RankId), ranks: usize, pages: &RankPages<B>) -> Self {
        let others = (0..ranks).map(RankId::from).filter(|rank| *rank != own);
        let open = |rank: RankId| {
            let shared = neighbours.find(&Key::Pages(group, rank))?;
            let theirs = shared.downcast::<RankPages<B>>().ok()?;
            match theirs.open_to(pages) {
                Ok(()) => Some((rank, Arc::downgrade(&theirs))),
                Err(error) => {
                    tracing::warn!(%rank, %error, "pages of a rank of this process come through the host");
                    None
                }
            }
        };
        Self(others.filter_map(open).collect())
    }

    /// The pages of a rank.
    pub(super) fn pages(&self, rank: RankId) -> Option<Weak<RankPages<B>>> {
        self.0.get(&rank).cloned()
    }
}
