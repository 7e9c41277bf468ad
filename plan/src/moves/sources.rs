//! Which holder sends each page.

use std::collections::VecDeque;

use crate::ids::RankId;
use crate::topology::Topology;

/// The source of each page, given its receiver and its holders, of which it is one: on the receiver's node if there is one
/// there. How many pages a rank receives over each of its links is settled by that; among the holders that are left, pages are
/// spread so that the rank that sends most within nodes, and the one that sends most between them, send as little as can be. A
/// page without a holder has no source.
pub(super) fn choose(pages: &[(RankId, &[RankId])], topology: &Topology) -> Vec<Option<RankId>> {
    let mut kinds = [Senders::new(topology.ranks()), Senders::new(topology.ranks())];
    let mut places = Vec::with_capacity(pages.len());
    for &(receiver, holders) in pages {
        if holders.is_empty() {
            places.push(None);
            continue;
        }
        let on_node = |holder: &&RankId| topology.node(**holder) == topology.node(receiver);
        let near: Vec<RankId> = holders.iter().filter(on_node).copied().collect();
        let (kind, candidates) = if near.is_empty() { (1, holders.to_vec()) } else { (0, near) };
        places.push(Some((kind, kinds[kind].candidates.len())));
        kinds[kind].candidates.push(candidates);
    }
    kinds.iter_mut().for_each(Senders::spread);
    let sender = |(kind, page): (usize, usize)| RankId::from(kinds[kind].sender[page]);
    places.into_iter().map(|place| place.map(sender)).collect()
}

/// Pages over one kind of link, and who sends them.
struct Senders {
    /// `[pages]`
    candidates: Vec<Vec<RankId>>,
    /// `[pages]`
    sender: Vec<usize>,
    /// Pages that each rank sends, `[ranks]`.
    pages: Vec<Vec<usize>>,
}

impl Senders {
    fn new(ranks: usize) -> Self {
        Self { candidates: Vec::new(), sender: Vec::new(), pages: vec![Vec::new(); ranks] }
    }

    /// Pages with the fewest candidates first, each to the candidate that sends least, the first of equals; then pages
    /// are handed on from the busiest sender until none of its pages can be.
    fn spread(&mut self) {
        self.sender = vec![0; self.candidates.len()];
        let mut order: Vec<usize> = (0..self.candidates.len()).collect();
        order.sort_by_key(|&page| self.candidates[page].len());
        for page in order {
            let least = self.candidates[page].iter().min_by_key(|rank| self.pages[rank.index()].len());
            let least = least.expect("every page has a holder").index();
            self.sender[page] = least;
            self.pages[least].push(page);
        }
        while let Some(busiest) = (0..self.pages.len()).max_by_key(|&rank| (self.pages[rank].len(), usize::MAX - rank))
            && self.relieve(busiest)
        {}
    }

    /// Hands pages on along the shortest chain from a rank to one that sends at least two pages less. Where there is no
    /// such chain from the busiest rank, no choice of senders has a less busy one.
    fn relieve(&mut self, busiest: usize) -> bool {
        let mut came_by: Vec<Option<usize>> = vec![None; self.pages.len()];
        let mut queue = VecDeque::from([busiest]);
        while let Some(rank) = queue.pop_front() {
            for &page in &self.pages[rank] {
                for next in self.candidates[page].iter().map(|next| next.index()) {
                    if next == busiest || came_by[next].is_some() {
                        continue;
                    }
                    came_by[next] = Some(page);
                    if self.pages[next].len() + 2 <= self.pages[busiest].len() {
                        self.hand_on(&came_by, next);
                        return true;
                    }
                    queue.push_back(next);
                }
            }
        }
        false
    }

    fn hand_on(&mut self, came_by: &[Option<usize>], end: usize) {
        let mut rank = end;
        while let Some(page) = came_by[rank] {
            let from = std::mem::replace(&mut self.sender[page], rank);
            self.pages[from].retain(|&other| other != page);
            self.pages[rank].push(page);
            rank = from;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;

    /// The sources of pages that go to the ranks given, each with these holders.
    fn sources(topology: &Topology, pages: &[(u32, &[u32])]) -> Vec<u32> {
        let holders: Vec<Vec<RankId>> =
            pages.iter().map(|(_, holders)| holders.iter().map(|&rank| RankId(rank)).collect()).collect();
        let pages: Vec<(RankId, &[RankId])> =
            pages.iter().zip(&holders).map(|(&(rank, _), holders)| (RankId(rank), &holders[..])).collect();
        choose(&pages, topology).into_iter().map(|source| source.unwrap().0).collect()
    }

    #[test]
    fn a_page_that_nobody_holds_has_no_source_and_changes_no_other() {
        let topology = Topology::single_node(3, 1);
        let pages = [(RankId(2), &[RankId(0)][..]), (RankId(2), &[]), (RankId(2), &[RankId(1)])];
        assert_eq!(choose(&pages, &topology), [Some(RankId(0)), None, Some(RankId(1))]);
    }

    #[test]
    fn a_holder_on_the_receivers_node_comes_before_one_on_another_however_busy() {
        let topology = Topology::even(2, 4, 1).unwrap();
        assert_eq!(sources(&topology, &[(0, &[1, 2]), (0, &[1, 3]), (0, &[1, 2]), (0, &[2, 3])]), [1, 1, 1, 2]);
    }

    #[test]
    fn pages_are_spread_over_their_holders() {
        let topology = Topology::single_node(6, 1);
        let spread = sources(&topology, &[(3, &[0, 1, 2]), (4, &[0, 1, 2]), (5, &[0, 1, 2])]);
        assert_eq!(spread, [0, 1, 2]);
    }

    #[test]
    fn a_page_is_handed_on_where_taking_the_least_busy_in_turn_is_not_enough() {
        // In order: 0 sends the first, 1 the second, 0 the third for 1 sends as much, and 0 the fourth: three pages. One
        // of them can go to 1, which hands its own on to 2.
        let topology = Topology::single_node(4, 1);
        let spread = sources(&topology, &[(3, &[0, 1]), (3, &[1, 2]), (3, &[0, 1]), (3, &[0, 1])]);
        let most = (0..3).map(|rank| spread.iter().filter(|&&source| source == rank).count()).max();
        assert_eq!(most, Some(2), "{spread:?}");
    }

    #[test]
    fn links_within_and_between_nodes_are_separate() {
        // Rank 0 sends two pages within its node, which says nothing of what it may send to the other.
        let topology = Topology::new([0, 0, 0, 1, 1].map(NodeId).to_vec(), 1);
        let near = [(1, &[0_u32][..]), (2, &[0])];
        let far = [(3, &[0_u32, 1][..]), (4, &[0, 1])];
        assert_eq!(sources(&topology, &[near, far].concat()), [0, 0, 0, 1]);
    }
}
