//! Gives the ranks of a new packing the numbers under which most of their experts are in place already.

/// The packing `fresh`, `[ranks, per_rank]`, with its ranks in another order: the pair of ranks that share most experts
/// first, the first of equals.
pub(super) fn relabel(in_force: &[usize], fresh: &[usize], per_rank: usize, experts: usize) -> Vec<usize> {
    let ranks = fresh.len() / per_rank;
    let mut pairs: Vec<(usize, usize, usize)> = Vec::with_capacity(ranks * ranks);
    for (old, content) in in_force.chunks_exact(per_rank).enumerate() {
        let mut held = vec![false; experts];
        for &expert in content {
            held[expert] = true;
        }
        pairs.extend(fresh.chunks_exact(per_rank).enumerate().map(|(new, content)| {
            let shared = content.iter().filter(|&&expert| held[expert]).count();
            (per_rank - shared, old, new)
        }));
    }
    pairs.sort_unstable();
    let mut content_of = vec![None; ranks];
    let mut taken = vec![false; ranks];
    for (_, old, new) in pairs {
        if content_of[old].is_none() && !taken[new] {
            content_of[old] = Some(new);
            taken[new] = true;
        }
    }
    content_of
        .into_iter()
        .flat_map(|new| {
            let new = new.expect("there are as many packed ranks as ranks");
            fresh[new * per_rank..][..per_rank].to_vec()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::relabel;

    #[test]
    fn a_rank_keeps_its_experts_whatever_number_the_packing_gave_it() {
        let in_force = [0, 1, 2, 3, 4, 5];
        let fresh = [4, 1, 0, 3, 2, 5];
        // Every pair of ranks shares one expert at most; rank 0 takes the first packed rank that has one of its two.
        assert_eq!(relabel(&in_force, &fresh, 2, 6), [4, 1, 0, 3, 2, 5]);
        assert_eq!(relabel(&in_force, &[4, 5, 2, 3, 0, 1], 2, 6), in_force);
    }
}
