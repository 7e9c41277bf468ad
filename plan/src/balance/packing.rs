//! One layer's slots with the loads they give the ranks, kept current through every change. Knows nothing of what a
//! change costs or of when to stop.

/// Experts in the slots of the ranks of one layer. Every expert has a copy; no rank has two of one expert.
#[derive(Clone, Debug)]
pub(super) struct Packing<'a> {
    /// Load of each expert, `[experts]`.
    weights: &'a [f64],
    per_rank: usize,
    /// Expert of each slot, `[ranks, per_rank]`.
    slots: Vec<usize>,
    /// Slots that hold each expert, ascending, `[experts]`.
    copies: Vec<Vec<usize>>,
    /// Whether a rank holds an expert, `[ranks, experts]`.
    holds: Vec<bool>,
    /// Load of each rank, `[ranks]`.
    loads: Vec<f64>,
}

impl<'a> Packing<'a> {
    /// Takes over valid slots, `[ranks, per_rank]`.
    pub(super) fn new(weights: &'a [f64], per_rank: usize, slots: Vec<usize>) -> Self {
        let ranks = slots.len() / per_rank;
        let mut copies = vec![Vec::new(); weights.len()];
        let mut holds = vec![false; ranks * weights.len()];
        for (slot, &expert) in slots.iter().enumerate() {
            copies[expert].push(slot);
            holds[slot / per_rank * weights.len() + expert] = true;
        }
        let mut packing = Self { weights, per_rank, slots, copies, holds, loads: vec![0.0; ranks] };
        for rank in 0..ranks {
            packing.loads[rank] = packing.sum(rank);
        }
        packing
    }

    /// Copies packed from scratch, heaviest first, each onto the lightest rank that has room and lacks the expert.
    /// `counts` are the copies of each expert, from 1 to the number of ranks, together the number of slots.
    pub(super) fn from_counts(weights: &'a [f64], per_rank: usize, counts: &[u32]) -> Self {
        let physical: u32 = counts.iter().sum();
        let ranks = physical as usize / per_rank;
        let mut order: Vec<usize> = (0..weights.len()).collect();
        let per_copy = |expert: usize| weights[expert] / f64::from(counts[expert]);
        order.sort_by(|&a, &b| per_copy(b).total_cmp(&per_copy(a)));
        let mut content: Vec<Vec<usize>> = vec![Vec::with_capacity(per_rank); ranks];
        let mut loads = vec![0.0_f64; ranks];
        for expert in order {
            for _ in 0..counts[expert] {
                let lightest = |full: bool| {
                    (0..ranks)
                        .filter(|&rank| (content[rank].len() == per_rank) == full && !content[rank].contains(&expert))
                        .min_by(|&a, &b| loads[a].total_cmp(&loads[b]))
                };
                if let Some(rank) = lightest(false) {
                    content[rank].push(expert);
                    loads[rank] += per_copy(expert);
                    continue;
                }
                // Every rank with room holds the expert already. A full rank that lacks it has two experts more that
                // a rank with room lacks than the other way round, so one of them can make place.
                let full = lightest(true).expect("an expert has no more copies than there are ranks");
                let roomy =
                    (0..ranks).find(|&rank| content[rank].len() < per_rank).expect("there is a slot for each copy");
                let index = content[full].iter().rposition(|other| !content[roomy].contains(other));
                let index = index.expect("a full rank holds an expert that a rank with room lacks");
                let other = std::mem::replace(&mut content[full][index], expert);
                content[roomy].push(other);
                loads[full] += per_copy(expert) - per_copy(other);
                loads[roomy] += per_copy(other);
            }
        }
        Self::new(weights, per_rank, content.concat())
    }

    pub(super) const fn ranks(&self) -> usize {
        self.loads.len()
    }

    pub(super) const fn experts(&self) -> usize {
        self.weights.len()
    }

    pub(super) const fn per_rank(&self) -> usize {
        self.per_rank
    }

    pub(super) fn slots(&self) -> &[usize] {
        &self.slots
    }

    pub(super) fn into_slots(self) -> Vec<usize> {
        self.slots
    }

    pub(super) fn slots_of(&self, rank: usize) -> std::ops::Range<usize> {
        rank * self.per_rank..(rank + 1) * self.per_rank
    }

    pub(super) fn holds(&self, rank: usize, expert: usize) -> bool {
        self.holds[rank * self.weights.len() + expert]
    }

    pub(super) fn count(&self, expert: usize) -> usize {
        self.copies[expert].len()
    }

    pub(super) fn copies(&self, expert: usize) -> &[usize] {
        &self.copies[expert]
    }

    pub(super) fn load(&self, rank: usize) -> f64 {
        self.loads[rank]
    }

    /// Load that each copy of an expert takes.
    pub(super) fn per_copy(&self, expert: usize) -> f64 {
        self.weights[expert] / self.copies[expert].len() as f64
    }

    /// Load of the busiest rank, and that rank; the first of equals.
    pub(super) fn busiest(&self) -> (usize, f64) {
        let first = (0, self.loads[0]);
        self.loads.iter().copied().enumerate().fold(first, |best, next| if next.1 > best.1 { next } else { best })
    }

    /// Load of the busiest rank that is touched when `slot`, which holds another copy's expert, gets `expert`, or of
    /// `watched` if that is higher; `None` as soon as it is not below `limit`.
    pub(super) fn replaced(&self, slot: usize, expert: usize, watched: usize, limit: f64) -> Option<f64> {
        let (rank, old) = (slot / self.per_rank, self.slots[slot]);
        let (old_count, new_count) = (self.copies[old].len() as f64, self.copies[expert].len() as f64);
        let old_rise = self.weights[old] / (old_count - 1.0) - self.weights[old] / old_count;
        let new_fall = self.weights[expert] / new_count - self.weights[expert] / (new_count + 1.0);
        let after = |other: usize| {
            let mut load = self.loads[other];
            if other == rank {
                return load - self.weights[old] / old_count + self.weights[expert] / (new_count + 1.0);
            }
            if self.holds(other, old) {
                load += old_rise;
            }
            if self.holds(other, expert) {
                load -= new_fall;
            }
            load
        };
        let holders = self.copies[old].iter().map(|&copy| copy / self.per_rank);
        [rank, watched].into_iter().chain(holders).map(after).try_fold(0.0_f64, |busiest, load| {
            let busiest = busiest.max(load);
            (busiest < limit).then_some(busiest)
        })
    }

    /// Exchanges the experts of two slots of different ranks.
    pub(super) fn swap(&mut self, a: usize, b: usize) {
        let (expert_a, expert_b) = (self.slots[a], self.slots[b]);
        self.put(a, expert_b);
        self.put(b, expert_a);
        for slot in [a, b] {
            let rank = slot / self.per_rank;
            self.loads[rank] = self.sum(rank);
        }
    }

    /// Gives a slot, whose expert has another copy, to an expert that the rank lacks.
    pub(super) fn replace(&mut self, slot: usize, expert: usize) {
        let old = self.slots[slot];
        self.put(slot, expert);
        let mut touched: Vec<usize> = self.copies[old].iter().chain(&self.copies[expert]).copied().collect();
        touched.push(slot);
        for slot in touched {
            let rank = slot / self.per_rank;
            self.loads[rank] = self.sum(rank);
        }
    }

    fn put(&mut self, slot: usize, expert: usize) {
        let (rank, old, experts) = (slot / self.per_rank, self.slots[slot], self.weights.len());
        self.copies[old].retain(|&copy| copy != slot);
        let place = self.copies[expert].partition_point(|&copy| copy < slot);
        self.copies[expert].insert(place, slot);
        self.holds[rank * experts + old] = false;
        self.holds[rank * experts + expert] = true;
        self.slots[slot] = expert;
    }

    /// The load of a rank, added up anew so that no rounding error builds up over many changes.
    fn sum(&self, rank: usize) -> f64 {
        self.slots_of(rank).map(|slot| self.per_copy(self.slots[slot])).sum()
    }
}

/// Numbers of copies that make the largest copy as small as it can be: each copy beyond the first goes to the expert
/// with the highest load per copy that is not on every rank yet; of equals to the one with the fewest copies.
pub(super) fn counts(weights: &[f64], ranks: usize, physical: usize) -> Vec<u32> {
    let mut counts = vec![1_u32; weights.len()];
    for _ in weights.len()..physical {
        let hottest = (0..weights.len())
            .filter(|&expert| (counts[expert] as usize) < ranks)
            .max_by(|&a, &b| {
                let per_copy = |expert: usize| weights[expert] / f64::from(counts[expert]);
                per_copy(a).total_cmp(&per_copy(b)).then(counts[b].cmp(&counts[a])).then(b.cmp(&a))
            })
            .expect("there are no more slots than ranks times experts");
        counts[hottest] += 1;
    }
    counts
}

#[cfg(test)]
mod tests;
