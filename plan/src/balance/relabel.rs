//! Which rank takes which part of a target that was found from nothing, so that ranks keep most of what they hold.

use crate::ids::{ExpertId, RankId};
use crate::map::ExpertMap;
use crate::topology::Topology;
use crate::tuning::Tuning;

/// The part of a target that each rank takes, `[ranks]`, given what ranks hold and what each part holds. Parts are exchanged
/// among ranks of one kind, so whatever the load, every rank's changes places with that of a rank like it. Among up to
/// [`Tuning::exact_ranks`] of a kind the pages that move are the fewest that any exchange leaves.
pub(super) fn parts<K: PartialEq, E: PartialEq>(
    kinds: &[K],
    held: &[&[E]],
    parts: &[&[E]],
    tuning: &Tuning,
) -> Vec<usize> {
    let mut part_of: Vec<usize> = (0..kinds.len()).collect();
    for class in classes(kinds).iter().filter(|class| class.len() > 1) {
        let keeps = |rank: usize, part: usize| parts[part].iter().filter(|expert| held[rank].contains(expert)).count();
        let kept: Vec<Vec<u32>> =
            class.iter().map(|&rank| class.iter().map(|&part| keeps(rank, part) as u32).collect()).collect();
        let taken = if class.len() <= tuning.exact_ranks { best(&kept) } else { greedy(&kept) };
        let all = |part: &dyn Fn(usize) -> usize| (0..class.len()).map(|rank| kept[rank][part(rank)]).sum::<u32>();
        if all(&|rank| taken[rank]) > all(&|rank| rank) {
            for (rank, part) in taken.into_iter().enumerate() {
                part_of[class[rank]] = class[part];
            }
        }
    }
    part_of
}

/// A target with the parts of its ranks exchanged, in each layer, among those of one node, speed and number of slots. Both maps
/// are of one shape.
pub(super) fn all_layers(
    current: &ExpertMap,
    mut target: ExpertMap,
    topology: &Topology,
    tuning: &Tuning,
) -> ExpertMap {
    let ranks: Vec<RankId> = (0..topology.ranks()).map(RankId::from).collect();
    let of_ranks = target.slots_of_ranks().clone();
    let kind = |&rank: &RankId| (topology.node(rank), of_ranks.count(rank), topology.speeds()[rank.index()].to_bits());
    let kinds: Vec<_> = ranks.iter().map(kind).collect();
    for layer in target.layers() {
        let held: Vec<_> = ranks.iter().map(|&rank| current.rank(layer, rank)).collect();
        let fresh: Vec<_> = ranks.iter().map(|&rank| target.rank(layer, rank)).collect();
        let part_of = parts(&kinds, &held, &fresh, tuning);
        let order = || part_of.iter().flat_map(|&part| of_ranks.of(part.into()));
        let experts: Vec<ExpertId> = order().map(|slot| target.layer(layer)[slot]).collect();
        let shares = target.shares(layer).map(|shares| order().map(|slot| shares[slot]).collect());
        target.replace_layer(layer, &experts, shares).expect("ranks exchange what they hold");
    }
    target
}

/// Ranks that nothing tells apart.
fn classes<K: PartialEq>(kinds: &[K]) -> Vec<Vec<usize>> {
    let mut classes: Vec<Vec<usize>> = Vec::new();
    for (rank, kind) in kinds.iter().enumerate() {
        match classes.iter_mut().find(|class| kinds[class[0]] == *kind) {
            Some(class) => class.push(rank),
            None => classes.push(vec![rank]),
        }
    }
    classes
}

/// The part of each rank: the most kept first, the first of equals; own parts before others.
fn greedy(kept: &[Vec<u32>]) -> Vec<usize> {
    let count = kept.len();
    let mut pairs: Vec<(u32, bool, usize, usize)> = Vec::new();
    for (rank, row) in kept.iter().enumerate() {
        pairs.extend(
            row.iter().enumerate().filter(|&(_, &kept)| kept > 0).map(|(part, &kept)| (kept, part != rank, rank, part)),
        );
    }
    pairs.sort_unstable_by(|a, b| b.0.cmp(&a.0).then((a.1, a.2, a.3).cmp(&(b.1, b.2, b.3))));
    let (mut parts, mut taken) = (vec![usize::MAX; count], vec![false; count]);
    for (_, _, rank, part) in pairs {
        if parts[rank] == usize::MAX && !taken[part] {
            (parts[rank], taken[part]) = (part, true);
        }
    }
    let mut free = (0..count).filter(|&part| !taken[part]);
    for part in &mut parts {
        if *part == usize::MAX {
            *part = free.next().expect("as many parts as ranks");
        }
    }
    parts
}

/// The part of each rank so that the most is kept in all: the assignment method of Kuhn, with shortest augmenting paths
/// over potentials, a rank at a time.
fn best(kept: &[Vec<u32>]) -> Vec<usize> {
    const FREE: usize = usize::MAX;
    let count = kept.len();
    let (mut of_rank, mut of_part) = (vec![0_i64; count], vec![0_i64; count + 1]);
    // The rank that each part has been assigned; the last is a part that only the search starts from.
    let mut rank_of = vec![FREE; count + 1];
    for start in 0..count {
        rank_of[count] = start;
        let (mut least, mut came_from) = (vec![i64::MAX; count], vec![count; count]);
        let mut seen = vec![false; count + 1];
        let mut part = count;
        while rank_of[part] != FREE {
            seen[part] = true;
            let rank = rank_of[part];
            let (mut step, mut next) = (i64::MAX, count);
            for other in (0..count).filter(|&other| !seen[other]) {
                let cost = -i64::from(kept[rank][other]) - of_rank[rank] - of_part[other];
                if cost < least[other] {
                    (least[other], came_from[other]) = (cost, part);
                }
                if least[other] < step {
                    (step, next) = (least[other], other);
                }
            }
            for other in 0..=count {
                if seen[other] {
                    of_rank[rank_of[other]] += step;
                    of_part[other] -= step;
                } else {
                    least[other] -= step;
                }
            }
            part = next;
        }
        while part != count {
            let before = came_from[part];
            rank_of[part] = rank_of[before];
            part = before;
        }
    }
    let mut parts = vec![0; count];
    for part in 0..count {
        parts[rank_of[part]] = part;
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::map::{MapShape, WHOLE};

    /// The most that any assignment keeps, by trying all.
    fn most(kept: &[Vec<u32>], rank: usize, taken: &mut Vec<bool>) -> u32 {
        if rank == kept.len() {
            return 0;
        }
        let mut most_here = 0;
        for part in 0..kept.len() {
            if !taken[part] {
                taken[part] = true;
                most_here = most_here.max(kept[rank][part] + most(kept, rank + 1, taken));
                taken[part] = false;
            }
        }
        most_here
    }

    #[test]
    fn ranks_that_only_changed_places_move_nothing() {
        let held: [&[u16]; 3] = [&[0, 1], &[2, 3], &[4, 5]];
        assert_eq!(parts(&[0; 3], &held, &[&[5, 4], &[0, 1], &[3, 2]], &Tuning::PRODUCT), [1, 2, 0]);
    }

    #[test]
    fn parts_stay_among_ranks_of_a_kind_and_where_they_are_if_nothing_is_gained() {
        let held: [&[u16]; 4] = [&[0], &[1], &[2], &[3]];
        let fresh: [&[u16]; 4] = [&[2], &[3], &[0], &[1]];
        assert_eq!(parts(&[0, 0, 1, 1], &held, &fresh, &Tuning::PRODUCT), [0, 1, 2, 3]);
        assert_eq!(parts(&[0, 1, 0, 1], &held, &fresh, &Tuning::PRODUCT), [2, 3, 0, 1]);
    }

    #[test]
    fn shares_go_with_their_parts() {
        let map = |slots: [u32; 4]| {
            let shape = MapShape { layers: 1, experts: 3, ranks: 2, slots_per_rank: 2 };
            ExpertMap::new(shape, slots.map(ExpertId).to_vec()).unwrap()
        };
        let target = map([2, 0, 1, 0]).with_shares(&[WHOLE, 0, WHOLE, WHOLE]).unwrap();
        let relabelled = all_layers(&map([0, 1, 0, 2]), target, &Topology::single_node(2, 2), &Tuning::PRODUCT);
        assert_eq!(relabelled, map([1, 0, 2, 0]).with_shares(&[WHOLE, WHOLE, WHOLE, 0]).unwrap());
    }

    proptest! {
        #[test]
        fn the_best_assignment_keeps_as_much_as_any_and_the_greedy_one_half_of_it(
            kept in (1..7_usize).prop_flat_map(|count| prop::collection::vec(prop::collection::vec(0..5_u32, count), count)),
        ) {
            let sum = |parts: Vec<usize>| parts.iter().enumerate().map(|(rank, &part)| kept[rank][part]).sum::<u32>();
            let (exact, quick) = (sum(best(&kept)), sum(greedy(&kept)));
            prop_assert_eq!(exact, most(&kept, 0, &mut vec![false; kept.len()]));
            prop_assert!(2 * quick >= exact, "{quick} of {exact}");
        }
    }
}
