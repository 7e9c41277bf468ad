//! Local search: the busiest rank first, by the change that its [`Choice`] takes. Knows nothing of what makes one change
//! better than another.

use super::packing::Packing;

/// A gain below this share of the busiest rank is rounding.
pub(in crate::balance) const ROUNDING: f64 = 1e-9;

/// Pairs of experts up to which comparing all of them at once is faster than walking along both ranks, where every step waits for
/// the one before it. It changes no plan.
const PAIRS_AT_ONCE: usize = 640;

/// One step of a search.
#[derive(Clone, Copy, Debug)]
pub(in crate::balance) enum Change {
    /// Two ranks exchange experts: (rank, expert) and (rank, expert).
    Swap((usize, usize), (usize, usize)),
    /// On a rank, the slot of an expert with another copy gets an expert that the rank lacks: rank, old, new.
    Replace(usize, usize, usize),
}

/// Which of the changes that are offered is the next step. A change is known by the highest level that the ranks it touches
/// then have.
pub(in crate::balance) trait Choice {
    /// The level that a change must stay below to be taken, whatever it is.
    fn limit(&self) -> f64;
    /// Ranks that are looked at once one has been found with which an exchange helps: those come lowest first, so the ones after
    /// it rarely have a better one, and looking at all of them would be most of the work.
    fn look_further(&self, ranks: usize) -> usize;
    /// What an exchange between the busiest rank and another costs at least.
    fn least_cost(&self, packing: &Packing<'_>, rank: usize) -> f64;
    /// The level that a change of at least that cost must stay below.
    fn limit_at(&self, cost: f64) -> f64;
    /// The level that this one must stay below.
    fn limit_of(&self, packing: &Packing<'_>, change: Change) -> f64;
    /// Takes a change if it is better than what was taken before; of equals the first stays.
    fn offer(&mut self, packing: &Packing<'_>, level: f64, change: Change);
    /// What has been taken.
    fn taken(&self) -> Option<Change>;
    /// Whether what has been taken is good enough to look no further.
    fn is_enough(&self) -> bool;
}

/// How long a search goes on.
#[derive(Clone, Copy, Debug)]
pub(in crate::balance) struct Limits {
    /// It ends when the busiest rank's level is at most this.
    pub goal: f64,
    /// Numbers of copies change only while the busiest rank's level is above this.
    pub far: f64,
    /// It takes no more steps than these: every step lowers the highest of the levels that it touches, so it ends anyway, but
    /// rounding decides when.
    pub steps: usize,
}

/// Improves the busiest rank until its level is at most the goal, which is then true, or nothing that is offered is taken.
/// An exchange leaves every other rank as it is, so one that is taken comes before numbers of copies change: that costs
/// less and, from a placement in force, also moves less and holds longer. `choice` begins each step.
pub(in crate::balance) fn search<C: Choice>(
    packing: &mut Packing<'_>,
    limits: Limits,
    choice: impl Fn(&Packing<'_>) -> C,
) -> bool {
    for _ in 0..limits.steps {
        let top = packing.top();
        if top <= limits.goal {
            return true;
        }
        let mut choice = choice(packing);
        offer_exchanges(packing, &mut choice);
        if choice.taken().is_none() && top > limits.far {
            offer_copies(packing, &mut choice);
        }
        if choice.taken().is_none() && top > limits.far {
            offer_relief(packing, &mut choice);
        }
        match choice.taken() {
            Some(Change::Swap(a, b)) => packing.swap(a, b),
            Some(Change::Replace(rank, old, new)) => packing.replace(rank, old, new),
            None => return false,
        }
    }
    false
}

/// A heavy expert of the busiest rank against a light one of another.
fn offer_exchanges(packing: &Packing<'_>, choice: &mut impl Choice) {
    let (ranks, busiest) = (packing.ranks(), packing.busiest());
    let (load, pace) = (packing.rank_load(busiest), ranks.pace(busiest));
    let (mine, my_loads) = (packing.experts_of(busiest), packing.loads_of(busiest));
    let mut further = choice.look_further(ranks.len());
    for rank in packing.by_level() {
        if packing.level(rank) >= choice.limit() || further == 0 {
            return;
        }
        further -= usize::from(choice.taken().is_some());
        let (other_load, other_pace) = (packing.rank_load(rank), ranks.pace(rank));
        // What must go over so that both ranks take equally long.
        let even = (load * pace - other_load * other_pace) / (pace + other_pace);
        if (load - even) * pace >= choice.limit() {
            continue;
        }
        let cost = choice.least_cost(packing, rank);
        if (load - even) * pace >= choice.limit_at(cost) {
            continue;
        }
        let (theirs, their_loads) = (packing.experts_of(rank), packing.loads_of(rank));
        // What may go over so that both ranks stay below the limit.
        let within = |limit: f64| (load - limit / pace, limit / other_pace - other_load);
        let (mut low, mut high) = within(choice.limit_at(cost));
        if my_loads.len() * their_loads.len() <= PAIRS_AT_ONCE && !any_within(my_loads, their_loads, low, high) {
            continue;
        }
        let (mut i, mut j) = (0, 0);
        while let (Some(heavy), Some(light)) = (my_loads.get(i), their_loads.get(j)) {
            let less = heavy - light;
            if is_within(less, low, high) {
                let (old, new) = (usize::from(mine[i]), usize::from(theirs[j]));
                // What cannot go over is passed over: it must not keep what comes after it from being compared.
                if packing.holds(rank, old) {
                    i += 1;
                    continue;
                }
                if packing.holds(busiest, new) {
                    j += 1;
                    continue;
                }
                let level = ((load - less) * pace).max((other_load + less) * other_pace);
                choice.offer(packing, level, Change::Swap((busiest, old), (rank, new)));
                if choice.is_enough() {
                    return;
                }
                (low, high) = within(choice.limit_at(cost));
            }
            let too_much = less > even;
            i += usize::from(too_much);
            j += usize::from(!too_much);
        }
    }
}

/// Whether a difference is between two others.
#[expect(
    clippy::needless_bitwise_bool,
    reason = "one of the two holds at almost every step, both rarely: together they are one branch that is foreseen"
)]
const fn is_within(less: f64, low: f64, high: f64) -> bool {
    (less > low) & (less < high)
}

/// Whether an expert of one rank is heavier than one of another by more than `low` and less than `high`. Compares all with
/// all, several at once.
fn any_within(heavy: &[f64], light: &[f64], low: f64, high: f64) -> bool {
    heavy.iter().any(|heavy| {
        light.iter().fold(false, |found, light| {
            let within = is_within(heavy - light, low, high);
            // Not `||`: that would look at one after the other.
            found | within
        })
    })
}

/// One copy more, elsewhere, of an expert of the busiest rank.
fn offer_copies(packing: &Packing<'_>, choice: &mut impl Choice) {
    let busiest = packing.busiest();
    let pace = packing.ranks().pace(busiest);
    for hot in packing.experts_of(busiest).iter().map(|&hot| usize::from(hot)) {
        let count = packing.count(hot);
        if count == packing.ranks().len() {
            continue;
        }
        let relief = packing.load(hot) - packing.load_with(hot, count + 1);
        if (packing.rank_load(busiest) - relief) * pace >= choice.limit() {
            continue;
        }
        for cold in packing.spare().iter().map(|&cold| usize::from(cold)).filter(|&cold| cold != hot) {
            for rank in packing.holders(cold).filter(|&rank| !packing.holds(rank, hot)) {
                offer_replacement(packing, (rank, cold, hot), choice);
            }
        }
    }
}

/// A copy of the busiest rank, of an expert that has one to spare, makes place for a lighter expert.
fn offer_relief(packing: &Packing<'_>, choice: &mut impl Choice) {
    let busiest = packing.busiest();
    for old in packing.spare().iter().map(|&old| usize::from(old)).filter(|&old| packing.holds(busiest, old)) {
        for new in (0..packing.experts()).filter(|&new| !packing.holds(busiest, new)) {
            offer_replacement(packing, (busiest, old, new), choice);
        }
    }
}

fn offer_replacement(packing: &Packing<'_>, (rank, old, new): (usize, usize, usize), choice: &mut impl Choice) {
    let change = Change::Replace(rank, old, new);
    if let Some(level) = replaced(packing, rank, old, new, choice.limit_of(packing, change)) {
        choice.offer(packing, level, change);
    }
}

/// The highest level of the ranks that are touched, and of the busiest, when on `rank` the slot of `old` gets `new`;
/// `None` as soon as it is not below `limit`.
fn replaced(packing: &Packing<'_>, rank: usize, old: usize, new: usize, limit: f64) -> Option<f64> {
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
