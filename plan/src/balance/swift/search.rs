//! Local search from a packing made from scratch: the busiest rank first, by the change that lowers it most. Pages cost
//! nothing here.

use super::packing::Packing;

/// A gain below this share of the busiest rank is rounding.
const ROUNDING: f64 = 1e-9;

/// Ranks that are looked at once one has been found with which an exchange helps: those come lowest first, so the ones
/// after it rarely have a better one, and with many ranks looking at all of them would be most of the work.
pub(in crate::balance) const LOOK_FURTHER: usize = 8;

/// One step of the search.
#[derive(Clone, Copy, Debug)]
pub(in crate::balance) enum Change {
    /// Two ranks exchange experts: (rank, expert) and (rank, expert).
    Swap((usize, usize), (usize, usize)),
    /// On a rank, the slot of an expert with another copy gets an expert that the rank lacks: rank, old, new.
    Replace(usize, usize, usize),
}

/// The best change so far and the level that the ranks it touches then have at most.
struct Best {
    level: f64,
    change: Option<Change>,
}

/// Bounds the search: every step lowers the highest of the levels that it touches, so it ends anyway, but rounding
/// decides when.
const STEPS_PER_SLOT: usize = 16;

/// Improves the busiest rank until its level is at most `goal` or nothing helps. An exchange leaves every other rank as
/// it is, so one that helps is taken before numbers of copies are changed.
pub(in crate::balance) fn improve(packing: &mut Packing<'_>, goal: f64, far: f64) {
    for _ in 0..STEPS_PER_SLOT * packing.slots().len() {
        let top = packing.top();
        if top <= goal {
            return;
        }
        let busiest = packing.busiest();
        let mut best = Best { level: top * (1.0 - ROUNDING), change: None };
        best_swap(packing, busiest, goal, &mut best);
        if best.change.is_none() && top > far {
            best_copy(packing, busiest, &mut best);
        }
        if best.change.is_none() && top > far {
            best_relief(packing, busiest, &mut best);
        }
        match best.change {
            Some(Change::Swap(a, b)) => packing.swap(a, b),
            Some(Change::Replace(rank, old, new)) => packing.replace(rank, old, new),
            None => return,
        }
    }
}

/// The same by at most `steps` exchanges, without a change to the numbers of copies.
pub(in crate::balance) fn exchange(packing: &mut Packing<'_>, goal: f64, steps: usize) {
    for _ in 0..steps {
        let top = packing.top();
        if top <= goal {
            return;
        }
        let mut best = Best { level: top * (1.0 - ROUNDING), change: None };
        best_swap(packing, packing.busiest(), goal, &mut best);
        match best.change {
            Some(Change::Swap(a, b)) => packing.swap(a, b),
            _ => return,
        }
    }
}

/// A heavy expert of the busiest rank against a light one of another.
fn best_swap(packing: &Packing<'_>, busiest: usize, goal: f64, best: &mut Best) {
    let ranks = packing.ranks();
    let (load, pace) = (packing.rank_load(busiest), ranks.pace(busiest));
    let (mine, my_loads) = (packing.experts_of(busiest), packing.loads_of(busiest));
    let mut further = LOOK_FURTHER;
    for rank in packing.by_level() {
        if packing.level(rank) >= best.level || further == 0 {
            return;
        }
        further -= usize::from(best.change.is_some());
        let (other_load, other_pace) = (packing.rank_load(rank), ranks.pace(rank));
        // What must go over so that both ranks take equally long.
        let even = (load * pace - other_load * other_pace) / (pace + other_pace);
        if (load - even) * pace >= best.level {
            continue;
        }
        let (theirs, their_loads) = (packing.experts_of(rank), packing.loads_of(rank));
        // What may go over so that both ranks stay below the best level.
        let within = |level: f64| (load - level / pace, level / other_pace - other_load);
        let (mut low, mut high) = within(best.level);
        let (mut i, mut j) = (0, 0);
        while i < mine.len() && j < theirs.len() {
            let less = my_loads[i] - their_loads[j];
            if less > low && less < high {
                // What cannot go over is passed over: it must not keep what comes after it from being compared.
                if packing.holds(rank, mine[i].into()) {
                    i += 1;
                    continue;
                }
                if packing.holds(busiest, theirs[j].into()) {
                    j += 1;
                    continue;
                }
                let level = ((load - less) * pace).max((other_load + less) * other_pace);
                if level < best.level {
                    best.level = level;
                    best.change = Some(Change::Swap((busiest, mine[i].into()), (rank, theirs[j].into())));
                    if level <= goal {
                        return;
                    }
                    (low, high) = within(level);
                }
            }
            let heavy = less > even;
            i += usize::from(heavy);
            j += usize::from(!heavy);
        }
    }
}

/// One copy more, elsewhere, of an expert of the busiest rank.
fn best_copy(packing: &Packing<'_>, busiest: usize, best: &mut Best) {
    let pace = packing.ranks().pace(busiest);
    for &hot in packing.experts_of(busiest) {
        let hot = usize::from(hot);
        let count = packing.count(hot);
        if count == packing.ranks().len() {
            continue;
        }
        let relief = packing.load(hot) - packing.load_with(hot, count + 1);
        if (packing.rank_load(busiest) - relief) * pace >= best.level {
            continue;
        }
        for &cold in packing.spare() {
            let cold = usize::from(cold);
            if cold == hot {
                continue;
            }
            for rank in packing.holders(cold) {
                if packing.holds(rank, hot) {
                    continue;
                }
                if let Some(level) = replaced(packing, rank, cold, hot, best.level) {
                    best.level = level;
                    best.change = Some(Change::Replace(rank, cold, hot));
                }
            }
        }
    }
}

/// A copy of the busiest rank, of an expert that has one to spare, makes place for a lighter expert.
fn best_relief(packing: &Packing<'_>, busiest: usize, best: &mut Best) {
    for old in packing.spare().iter().map(|&old| usize::from(old)).filter(|&old| packing.holds(busiest, old)) {
        for new in (0..packing.experts()).filter(|&new| !packing.holds(busiest, new)) {
            if let Some(level) = replaced(packing, busiest, old, new, best.level) {
                best.level = level;
                best.change = Some(Change::Replace(busiest, old, new));
            }
        }
    }
}

/// The highest level of the ranks that are touched, and of the busiest, when on `rank` the slot of `old` gets `new`;
/// `None` as soon as it is not below `limit`.
pub(in crate::balance) fn replaced(
    packing: &Packing<'_>,
    rank: usize,
    old: usize,
    new: usize,
    limit: f64,
) -> Option<f64> {
    let ranks = packing.ranks();
    let (old_count, new_count) = (packing.count(old), packing.count(new));
    let arrives = packing.load_with(new, new_count + 1);
    let mut highest = (packing.rank_load(rank) - packing.load(old) + arrives) * ranks.pace(rank);
    if highest >= limit {
        return None;
    }
    let fall = packing.load(new) - arrives;
    let rise = packing.load_with(old, old_count - 1) - packing.load(old);
    let busiest = packing.busiest();
    let touched = std::iter::once(busiest).chain(packing.holders(old)).filter(|&other| other != rank);
    for other in touched {
        let mut load = packing.rank_load(other);
        if packing.holds(other, old) {
            load += rise;
        }
        if packing.holds(other, new) {
            load -= fall;
        }
        highest = highest.max(load * ranks.pace(other));
        if highest >= limit {
            return None;
        }
    }
    Some(highest)
}

#[cfg(test)]
mod tests;
