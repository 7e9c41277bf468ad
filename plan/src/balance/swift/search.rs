//! Local search on one layer: the busiest rank first, by the change that gains most for each page it moves.

use crate::balance::packing::Packing;

/// An expert stands out when a copy of it carries this much more than the largest copy of an ideal replication. Packing
/// alone could still balance the window that was seen, but a hot expert that is not split makes the next one worse. A
/// lower limit moves more pages and gains nothing on the next window.
const STANDS_OUT: f64 = 1.15;

/// Bounds the search: every step lowers the busiest of the ranks that it touches, so it ends anyway, but rounding
/// decides when.
const STEPS_PER_SLOT: usize = 16;

/// A gain below this share of the busiest rank is rounding.
const ROUNDING: f64 = 1e-9;

/// Gives copies to experts that stand out above `level`, each in the slot of the expert that can best do with a copy
/// less, on the lightest rank that offers such a slot.
pub(super) fn refresh(packing: &mut Packing<'_>, level: f64) {
    for _ in 0..packing.slots().len() {
        let hottest = (0..packing.experts())
            .filter(|&expert| packing.count(expert) < packing.ranks())
            .max_by(|&a, &b| packing.per_copy(a).total_cmp(&packing.per_copy(b)).then(b.cmp(&a)));
        let Some(hot) = hottest.filter(|&hot| packing.per_copy(hot) > STANDS_OUT * level) else { return };
        let Some(slot) = spare_slot(packing, hot) else { return };
        packing.replace(slot, hot);
    }
}

/// The slot of another expert with a copy to spare, which keeps a lower load per copy than `hot` has now.
fn spare_slot(packing: &Packing<'_>, hot: usize) -> Option<usize> {
    let without =
        |expert: usize| packing.per_copy(expert) * packing.count(expert) as f64 / (packing.count(expert) - 1) as f64;
    let slots = (0..packing.experts())
        .filter(|&expert| packing.count(expert) > 1 && without(expert) < packing.per_copy(hot))
        .flat_map(|expert| packing.copies(expert))
        .copied()
        .filter(|slot| !packing.holds(slot / packing.per_rank(), hot));
    slots.min_by(|&a, &b| {
        let key = |slot: usize| (without(packing.slots()[slot]), packing.load(slot / packing.per_rank()));
        let (a_key, b_key) = (key(a), key(b));
        a_key.0.total_cmp(&b_key.0).then(a_key.1.total_cmp(&b_key.1)).then(a.cmp(&b))
    })
}

/// Improves the busiest rank until its load is at most `goal`, or no change takes the share `gain_per_page` off it for
/// each page moved.
pub(super) fn improve(packing: &mut Packing<'_>, goal: f64, gain_per_page: f64) {
    for _ in 0..STEPS_PER_SLOT * packing.slots().len() {
        let (busiest, top) = packing.busiest();
        if top <= goal {
            return;
        }
        let mut best = Best { top, gain_per_page: top * gain_per_page.max(ROUNDING), change: None };
        offer_swaps(packing, busiest, &mut best);
        offer_copies(packing, busiest, &mut best);
        offer_relief(packing, busiest, &mut best);
        match best.change {
            Some(Change::Swap(a, b)) => packing.swap(a, b),
            Some(Change::Replace(slot, expert)) => packing.replace(slot, expert),
            None => return,
        }
    }
}

#[derive(Clone, Copy)]
enum Change {
    /// Two slots exchange their experts: two pages move.
    Swap(usize, usize),
    /// A slot gets another expert: one page moves.
    Replace(usize, usize),
}

/// The best change so far; of equals the first that was offered.
struct Best {
    top: f64,
    gain_per_page: f64,
    change: Option<Change>,
}

impl Best {
    /// The load that the busiest touched rank must be below after a change of `pages` pages to be better.
    fn limit(&self, pages: f64) -> f64 {
        self.top - self.gain_per_page * pages
    }

    fn take(&mut self, change: Change, pages: f64, busiest_after: f64) {
        self.gain_per_page = (self.top - busiest_after) / pages;
        self.change = Some(change);
    }
}

/// A heavy copy of the busiest rank against a light one of another.
fn offer_swaps(packing: &Packing<'_>, busiest: usize, best: &mut Best) {
    for mine in packing.slots_of(busiest) {
        let expert = packing.slots()[mine];
        let weight = packing.per_copy(expert);
        for rank in (0..packing.ranks()).filter(|&rank| !packing.holds(rank, expert)) {
            if packing.load(rank) >= best.limit(2.0) {
                continue;
            }
            for theirs in packing.slots_of(rank) {
                let other = packing.slots()[theirs];
                let less = weight - packing.per_copy(other);
                let after = (best.top - less).max(packing.load(rank) + less);
                if less > 0.0 && after < best.limit(2.0) && !packing.holds(busiest, other) {
                    best.take(Change::Swap(mine, theirs), 2.0, after);
                }
            }
        }
    }
}

/// One copy more, elsewhere, of an expert of the busiest rank.
fn offer_copies(packing: &Packing<'_>, busiest: usize, best: &mut Best) {
    for mine in packing.slots_of(busiest) {
        let expert = packing.slots()[mine];
        let count = packing.count(expert) as f64;
        let relief = packing.per_copy(expert) / (count + 1.0);
        for rank in (0..packing.ranks()).filter(|&rank| !packing.holds(rank, expert)) {
            if best.top - relief >= best.limit(1.0) {
                break;
            }
            for slot in packing.slots_of(rank).filter(|&slot| packing.count(packing.slots()[slot]) > 1) {
                if let Some(after) = packing.replaced(slot, expert, busiest, best.limit(1.0)) {
                    best.take(Change::Replace(slot, expert), 1.0, after);
                }
            }
        }
    }
}

/// A copy of the busiest rank, which others have too, makes place for a lighter expert.
fn offer_relief(packing: &Packing<'_>, busiest: usize, best: &mut Best) {
    for slot in packing.slots_of(busiest).filter(|&slot| packing.count(packing.slots()[slot]) > 1) {
        for expert in (0..packing.experts()).filter(|&expert| !packing.holds(busiest, expert)) {
            if let Some(after) = packing.replaced(slot, expert, busiest, best.limit(1.0)) {
                best.take(Change::Replace(slot, expert), 1.0, after);
            }
        }
    }
}
