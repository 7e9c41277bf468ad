//! Gives the ranks of a new packing the numbers under which most of their experts are in place already.

use super::ranks::Ranks;

/// The slots `fresh` with the content of equal ranks in another order: the pair of ranks that share most experts first,
/// the first of equals.
pub(super) fn relabel(ranks: &Ranks, in_force: &[u16], fresh: &[u16]) -> Vec<u16> {
    let alike = |a: usize, b: usize| {
        ranks.slots(a).len() == ranks.slots(b).len() && ranks.pace(a).total_cmp(&ranks.pace(b)).is_eq()
    };
    let mut pairs: Vec<(usize, usize, usize)> = Vec::with_capacity(ranks.len() * ranks.len());
    for old in 0..ranks.len() {
        let held = &in_force[ranks.slots(old)];
        for new in (0..ranks.len()).filter(|&new| alike(old, new)) {
            let missing = fresh[ranks.slots(new)].iter().filter(|&expert| !held.contains(expert)).count();
            pairs.push((missing, old, new));
        }
    }
    pairs.sort_unstable();
    let mut content_of = vec![None; ranks.len()];
    let mut taken = vec![false; ranks.len()];
    for (_, old, new) in pairs {
        if content_of[old].is_none() && !taken[new] {
            content_of[old] = Some(new);
            taken[new] = true;
        }
    }
    let contents = content_of.into_iter().map(|new| new.expect("as many packed ranks of a kind as ranks"));
    contents.flat_map(|new| fresh[ranks.slots(new)].to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_keeps_its_experts_whatever_number_the_packing_gave_it() {
        let ranks = Ranks::even(3, 2);
        let in_force = [0, 1, 2, 3, 4, 5];
        // Every pair of ranks shares one expert at most; rank 0 takes the first packed rank that has one of its two.
        assert_eq!(relabel(&ranks, &in_force, &[4, 1, 0, 3, 2, 5]), [4, 1, 0, 3, 2, 5]);
        assert_eq!(relabel(&ranks, &in_force, &[4, 5, 2, 3, 0, 1]), in_force);
    }

    #[test]
    fn ranks_that_differ_keep_their_numbers() {
        let ranks = Ranks::new(&[1, 2], &[1.0, 1.0]);
        assert_eq!(relabel(&ranks, &[0, 1, 2], &[2, 0, 1]), [2, 0, 1]);
    }
}
