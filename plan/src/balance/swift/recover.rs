//! Layers of which ranks are lost or have returned: what only lost ranks held goes where that levels the ranks best, returned
//! ranks get what does so, and few further pages move. Shares cost no page, so ranks are judged with those that suit best.

use super::counts::{counts, largest_copy};
use super::outlook::{Outlook, Step, above};
use super::ranks::Ranks;
use super::sharing::Sharing;
use super::{cover, kept, scratch};
use crate::holders::Holders;

/// What is left of a layer.
pub(super) struct Left<'a> {
    /// Expected load of each expert.
    pub(super) weights: &'a [f64],
    /// What each rank held and still holds, `[ranks]`: as many experts as it has slots, or none.
    pub(super) content: Vec<Vec<u16>>,
}

/// Packings of all layers, each with at least that many copies of every expert. Ranks are levelled to within `noise`, by which
/// their loads will differ anyway, as far as pages go: those to move beside the ones of what came back go to the layers
/// where they gain most.
pub(super) fn pack(ranks: &Ranks, layers: &[Left<'_>], least: usize, noise: f64) -> Vec<Vec<u16>> {
    let mut recoveries: Vec<Recovery<'_>> =
        layers.iter().map(|layer| Recovery::new(ranks, layer, least, noise)).collect();
    let lost: usize = recoveries.iter().map(Recovery::lost).sum();
    let tuning = ranks.tuning();
    let few = (0..ranks.len()).all(|rank| ranks.slots(rank).len() <= tuning.few_slots);
    let mut pages = lost as f64 * if few { tuning.pages_per_lost_of_few } else { tuning.pages_per_lost };
    let mut paid: Vec<Option<Found>> = recoveries.iter_mut().map(Recovery::next_paid).collect();
    while let Some((layer, best)) = best_of(&paid, pages) {
        pages -= best.pages;
        recoveries[layer].make(best.change);
        paid[layer] = recoveries[layer].next_paid();
    }
    recoveries.into_iter().map(|recovery| recovery.slots).collect()
}

/// The layer and change with the most gain for a page among those that cost no more than `pages`; of equals the first.
fn best_of(found: &[Option<Found>], pages: f64) -> Option<(usize, Found)> {
    let found = found.iter().enumerate().filter_map(|(layer, found)| Some((layer, (*found)?)));
    found.filter(|(_, found)| found.pages <= pages).min_by(|a, b| b.1.gain.total_cmp(&a.1.gain))
}

/// A change that was tried, with what it takes off the distance for each page.
#[derive(Clone, Copy, Debug)]
struct Found {
    change: Change,
    gain: f64,
    pages: f64,
}

/// A slot gets another expert, or two do so at once.
#[derive(Clone, Copy, Debug)]
struct Change {
    first: Step,
    second: Option<Step>,
}

impl Change {
    const fn one(slot: usize, new: u16) -> Self {
        Self { first: (slot, new), second: None }
    }

    const fn two(first: Step, second: Step) -> Self {
        Self { first, second: Some(second) }
    }

    fn steps(self) -> impl Iterator<Item = Step> + Clone {
        std::iter::once(self.first).chain(self.second)
    }
}

/// The changes that promise most for a page, and what each costs, in pages; as many as are to be tried.
struct Candidates {
    list: Vec<(f64, f64, Change)>,
    tried: usize,
}

impl Candidates {
    const fn new(tried: usize) -> Self {
        Self { list: Vec::new(), tried }
    }

    /// What a change must promise more than.
    fn limit(&self) -> f64 {
        if self.list.len() == self.tried { self.list[self.tried - 1].0 } else { 0.0 }
    }

    /// Of equals the first stays before.
    fn offer(&mut self, promise: f64, pages: f64, change: Change) {
        if promise <= self.limit() {
            return;
        }
        self.list.truncate(self.tried - 1);
        let place = self.list.partition_point(|other| other.0 >= promise);
        self.list.insert(place, (promise, pages, change));
    }
}

/// A packing on its way, one layer.
struct Recovery<'a> {
    ranks: &'a Ranks,
    weights: &'a [f64],
    /// Experts of each rank before: they return there without a page.
    content: &'a [Vec<u16>],
    home: Holders,
    /// Copies that each expert keeps if it has them.
    least: usize,
    /// Time of the busiest rank that is aimed at, and how far ranks are above it.
    goal: f64,
    distance: f64,
    slots: Vec<u16>,
    rank_of: Vec<usize>,
    holders: Holders,
    sharing: Sharing<'a>,
    /// `sharing` after the change that is tried.
    trial: Sharing<'a>,
}

impl<'a> Recovery<'a> {
    fn new(ranks: &'a Ranks, layer: &'a Left<'_>, least: usize, noise: f64) -> Self {
        let Left { weights, content } = layer;
        let mut slots = kept::fit(ranks, weights, content);
        if least > 1 {
            slots = cover::covered(ranks, weights, &slots, least);
        }
        let ideal = counts(weights, ranks.open(), ranks.physical(), least);
        let goal = scratch::bound(ranks, weights, largest_copy(weights, &ideal)) * (1.0 + noise);
        let none = Holders::new(weights.len(), ranks.len());
        let (mut holders, mut home) = (none.clone(), none);
        let mut rank_of = Vec::with_capacity(slots.len());
        for (rank, held) in content.iter().enumerate() {
            for slot in ranks.slots(rank) {
                holders.insert(rank, slots[slot].into());
                rank_of.push(rank);
            }
            for &expert in held {
                home.insert(rank, expert.into());
            }
        }
        let mut sharing = Sharing::new(ranks, weights, &slots);
        sharing.level_out(ranks.tuning().passes_over_shares);
        let (distance, trial) = (distance(&sharing, goal), sharing.clone());
        Self { ranks, weights, content, home, least, goal, distance, slots, rank_of, holders, sharing, trial }
    }

    /// Experts that no rank held.
    fn lost(&self) -> usize {
        (0..self.weights.len()).filter(|&expert| self.home.count(expert) == 0).count()
    }

    /// Makes the changes that move no page, until the busiest rank takes at most as long as aimed at or none of them helps. Then
    /// finds the best of those that do.
    fn next_paid(&mut self) -> Option<Found> {
        for _ in 0..self.slots.len() {
            if self.distance == 0.0 {
                return None;
            }
            let (free, paid) = self.candidates();
            match self.best(&free) {
                Some(found) => self.make(found.change),
                None => return self.best(&paid),
            }
        }
        None
    }

    /// The change that takes most off the distance for each page.
    fn best(&mut self, candidates: &Candidates) -> Option<Found> {
        let mut best = None;
        let mut most = 0.0;
        for &(_, pages, change) in &candidates.list {
            self.apply_to_trial(change, self.ranks.tuning().passes_of_trial);
            let gain = (self.distance - distance(&self.trial, self.goal)) / pages.max(1.0);
            if gain > most {
                (best, most) = (Some(Found { change, gain, pages }), gain);
            }
        }
        best
    }

    fn apply_to_trial(&mut self, change: Change, passes: usize) {
        self.trial.copy_from(&self.sharing);
        for (slot, _) in change.steps() {
            self.trial.remove(self.rank_of[slot], self.slots[slot].into());
        }
        for (slot, new) in change.steps() {
            self.trial.add(self.rank_of[slot], new.into());
        }
        self.trial.level_out(passes);
    }

    fn make(&mut self, change: Change) {
        self.apply_to_trial(change, self.ranks.tuning().passes_over_shares);
        self.sharing.copy_from(&self.trial);
        self.distance = distance(&self.sharing, self.goal);
        for (slot, _) in change.steps() {
            self.holders.remove(self.rank_of[slot], self.slots[slot].into());
        }
        for (slot, new) in change.steps() {
            self.holders.insert(self.rank_of[slot], new.into());
            self.slots[slot] = new;
        }
    }

    /// Pages that a change moves more: an expert that was on its rank before needs none, and one that was not saves the one
    /// that it came by.
    fn pages(&self, change: Change) -> f64 {
        let page = |slot: usize, expert: u16| i8::from(!self.home.has(self.rank_of[slot], expert.into()));
        let more = |(slot, new): Step| page(slot, new) - page(slot, self.slots[slot]);
        f64::from(more(change.first) + change.second.map_or(0, more))
    }

    /// The changes to try: those that move no page, and the others.
    fn candidates(&self) -> (Candidates, Candidates) {
        let outlook = Outlook::new(&self.sharing, self.weights, &self.slots, &self.rank_of, self.goal);
        let tried = self.ranks.tuning().tried;
        let (mut free, mut paid) = (Candidates::new(tried), Candidates::new(tried));
        let mut offer = |change: Change, most: f64| {
            let pages = self.pages(change);
            let kind = if pages <= 0.0 { &mut free } else { &mut paid };
            if most / pages.max(1.0) > kind.limit() {
                kind.offer(outlook.promise(&change.steps()) / pages.max(1.0), pages, change);
            }
        };
        let spare = self.spare();
        self.offer_copies(&spare, &outlook, &mut offer);
        self.offer_places(&spare, &mut offer);
        self.offer_exchanges(&outlook, &mut offer);
        (free, paid)
    }

    /// Slots of experts with a copy to spare.
    fn spare(&self) -> Vec<usize> {
        let copies = |slot: usize| self.sharing.copies(self.slots[slot].into()).len();
        (0..self.slots.len()).filter(|&slot| copies(slot) > self.least.max(1)).collect()
    }

    /// A copy to spare makes place for one of an expert on a rank that is too busy.
    fn offer_copies(&self, spare: &[usize], outlook: &Outlook, offer: &mut impl FnMut(Change, f64)) {
        let hot: Vec<usize> = (0..self.weights.len()).filter(|&expert| outlook.highest(expert) > 1.0).collect();
        for &slot in spare {
            let mine = outlook.relief_of(slot);
            for &new in hot.iter().filter(|&&new| !self.holders.has(self.rank_of[slot], new)) {
                offer(Change::one(slot, new as u16), mine + outlook.relief_by(new));
            }
        }
    }

    /// An expert that came back gives its place to one that was on the rank before, and takes that of a copy to spare.
    fn offer_places(&self, spare: &[usize], offer: &mut impl FnMut(Change, f64)) {
        let came_back = |&slot: &usize| {
            let (rank, expert) = (self.rank_of[slot], usize::from(self.slots[slot]));
            !self.home.has(rank, expert) && self.sharing.copies(expert).len() == 1
        };
        for slot in (0..self.slots.len()).filter(came_back) {
            let (rank, expert) = (self.rank_of[slot], self.slots[slot]);
            for &restored in self.content[rank].iter().filter(|&&other| !self.holders.has(rank, other.into())) {
                for &place in spare.iter().filter(|&&place| !self.holders.has(self.rank_of[place], expert.into())) {
                    offer(Change::two((place, expert), (slot, restored)), f64::INFINITY);
                }
            }
        }
    }

    /// The busiest ranks exchange an expert for a lighter one of a rank that is less busy.
    fn offer_exchanges(&self, outlook: &Outlook, offer: &mut impl FnMut(Change, f64)) {
        let mut busiest: Vec<usize> = (0..self.ranks.len()).filter(|&rank| outlook.level(rank) > 1.0).collect();
        busiest.sort_by(|&a, &b| outlook.level(b).total_cmp(&outlook.level(a)));
        busiest.truncate(self.ranks.tuning().busiest_after_loss);
        for &a in &busiest {
            for b in (0..self.ranks.len()).filter(|&b| outlook.level(b) < outlook.level(a)) {
                for mine in self.ranks.slots(a).filter(|&slot| !self.holders.has(b, self.slots[slot].into())) {
                    let lighter = |&slot: &usize| {
                        outlook.load(slot) < outlook.load(mine) && !self.holders.has(a, self.slots[slot].into())
                    };
                    for theirs in self.ranks.slots(b).filter(lighter) {
                        let most = outlook.relief(a, outlook.load(mine) - outlook.load(theirs));
                        offer(Change::two((mine, self.slots[theirs]), (theirs, self.slots[mine])), most);
                    }
                }
            }
        }
    }
}

/// How far ranks are above the goal: the sum of speed times the part of it that they take longer, squared.
fn distance(sharing: &Sharing<'_>, goal: f64) -> f64 {
    (0..sharing.ranks()).map(|rank| sharing.speed(rank) * above(sharing.level(rank) / goal)).sum()
}

#[cfg(test)]
mod tests;
