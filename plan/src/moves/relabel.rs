//! Which rank takes which part of a target, where it makes no difference to any load.

use super::{MoveError, check_shapes};
use crate::ids::{ExpertId, LayerId};
use crate::map::ExpertMap;
use crate::topology::Topology;

/// Ranks of a class up to which the best assignment is found; more are assigned greedily, since finding the best takes time
/// that grows with their cube: at 64 ranks about a tenth of a millisecond a layer.
const EXACT: usize = 64;

/// The target with the parts of its ranks exchanged, in each layer, so that ranks hold more of what they hold in `current`.
///
/// Parts are exchanged among ranks of one node, speed and number of slots, so every rank's load, whatever the load, only
/// changes places with that of a rank like it, and nodes keep their experts. Where such a class has at most 64 ranks the pages moved are the fewest that any exchange leaves.
///
/// # Errors
/// If the maps have different shapes or the topology other ranks.
pub fn relabel(current: &ExpertMap, target: &ExpertMap, topology: &Topology) -> Result<ExpertMap, MoveError> {
    check_shapes(current, target)?;
    if topology.ranks() != current.shape().ranks {
        return Err(MoveError::Ranks { found: topology.ranks(), ranks: current.shape().ranks });
    }
    let classes = classes(current, topology);
    let mut relabelled = target.clone();
    for layer in target.layers() {
        let mut part_of: Vec<usize> = (0..topology.ranks()).collect();
        for class in classes.iter().filter(|class| class.len() > 1) {
            let kept = kept(current, target, layer, class);
            let parts = if class.len() <= EXACT { best(&kept) } else { greedy(&kept) };
            let keeps =
                |part: &dyn Fn(usize) -> usize| (0..class.len()).map(|rank| kept[rank][part(rank)]).sum::<u32>();
            if keeps(&|rank| parts[rank]) <= keeps(&|rank| rank) {
                continue;
            }
            for (rank, part) in parts.into_iter().enumerate() {
                part_of[class[rank]] = class[part];
            }
        }
        let of_ranks = target.slots_of_ranks();
        let slots = |part: &usize| of_ranks.of((*part).into());
        let experts: Vec<ExpertId> =
            part_of.iter().flat_map(|part| &target.layer(layer)[slots(part)]).copied().collect();
        let parts = target.parts(layer);
        let shares = part_of.iter().flat_map(|part| &parts[slots(part)]).copied().collect();
        relabelled.replace_layer(layer, &experts, target.shares(layer).map(|_| shares))?;
    }
    Ok(relabelled)
}

/// Ranks that nothing tells apart.
fn classes(map: &ExpertMap, topology: &Topology) -> Vec<Vec<usize>> {
    let mut classes: Vec<Vec<usize>> = Vec::new();
    let key = |rank: usize| {
        let slots = map.slots_of_ranks().count(rank.into());
        (topology.node(rank.into()), topology.speeds()[rank].to_bits(), slots)
    };
    for rank in 0..topology.ranks() {
        match classes.iter_mut().find(|class| key(class[0]) == key(rank)) {
            Some(class) => class.push(rank),
            None => classes.push(vec![rank]),
        }
    }
    classes
}

/// Experts that a rank of a class would keep with each part of the class, `[ranks][parts]`.
fn kept(current: &ExpertMap, target: &ExpertMap, layer: LayerId, class: &[usize]) -> Vec<Vec<u32>> {
    let mut holders: Vec<Vec<usize>> = vec![Vec::new(); current.shape().experts];
    let experts_of = |map: &ExpertMap, rank: usize| -> Vec<ExpertId> { map.rank(layer, rank.into()).to_vec() };
    for (index, &rank) in class.iter().enumerate() {
        for expert in experts_of(current, rank) {
            holders[expert.index()].push(index);
        }
    }
    let mut kept = vec![vec![0; class.len()]; class.len()];
    for (part, &rank) in class.iter().enumerate() {
        for expert in experts_of(target, rank) {
            for &holder in &holders[expert.index()] {
                kept[holder][part] += 1;
            }
        }
    }
    kept
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
    use super::*;
    use crate::map::MapShape;
    use crate::moves::moved_slots;

    fn map(ranks: &[&[u32]]) -> ExpertMap {
        let experts = ranks.iter().flat_map(|rank| rank.iter()).max().unwrap() + 1;
        let (ranks_count, slots_per_rank) = (ranks.len(), ranks[0].len());
        let shape = MapShape { layers: 1, experts: experts as usize, ranks: ranks_count, slots_per_rank };
        ExpertMap::new(shape, ranks.concat().into_iter().map(ExpertId).collect()).unwrap()
    }

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
        let (current, target) = (map(&[&[0, 1], &[2, 3], &[4, 5]]), map(&[&[4, 5], &[0, 1], &[2, 3]]));
        let relabelled = relabel(&current, &target, &Topology::single_node(3, 2)).unwrap();
        assert_eq!(moved_slots(&current, &relabelled), Ok(0));
    }

    #[test]
    fn the_best_assignment_keeps_as_much_as_any() {
        let mut seed = 1_u32;
        for round in 0..200 {
            let count = 1 + round % 6;
            let mut value = || {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 24) % 5
            };
            let kept: Vec<Vec<u32>> = (0..count).map(|_| (0..count).map(|_| value()).collect()).collect();
            let sum = |parts: Vec<usize>| parts.iter().enumerate().map(|(rank, &part)| kept[rank][part]).sum::<u32>();
            let (exact, quick) = (sum(best(&kept)), sum(greedy(&kept)));
            assert_eq!(exact, most(&kept, 0, &mut vec![false; count]), "{kept:?}");
            assert!(2 * quick >= exact, "greedy keeps at least half: {quick} of {exact}");
        }
    }

    #[test]
    fn parts_stay_on_their_node_and_among_ranks_of_one_speed() {
        let (current, target) = (map(&[&[0], &[1], &[2], &[3]]), map(&[&[2], &[3], &[0], &[1]]));
        let nodes = Topology::even(2, 4, 1).unwrap();
        assert_eq!(moved_slots(&current, &relabel(&current, &target, &nodes).unwrap()), Ok(4));
        let speeds = Topology::single_node(4, 1).with_speeds(vec![1.0, 2.0, 2.0, 1.0]).unwrap();
        let relabelled = relabel(&current, &target, &speeds).unwrap();
        // Ranks 0 and 3 have the parts {2} and {1}, ranks 1 and 2 {3} and {0}: nobody can keep anything.
        assert_eq!(moved_slots(&current, &relabelled), Ok(4));
        let free = relabel(&current, &target, &Topology::single_node(4, 1)).unwrap();
        assert_eq!(free, current);
    }

    #[test]
    fn shares_go_with_their_parts() {
        let current = map(&[&[0, 1], &[0, 2]]);
        let whole = crate::map::WHOLE;
        let target = map(&[&[2, 0], &[1, 0]]).with_shares(&[whole, 0, whole, whole]).unwrap();
        let relabelled = relabel(&current, &target, &Topology::single_node(2, 2)).unwrap();
        assert_eq!(moved_slots(&current, &relabelled), Ok(0));
        assert_eq!(relabelled.shares(LayerId(0)), Some(&[whole, whole, whole, 0][..]));
    }
}
