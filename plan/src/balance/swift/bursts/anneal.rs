//! Local search on the soft ratio. Decides the copies of each expert and, roughly, where they go.

use super::factors::Which;
use super::soft::{Arrival, Departure, Soft};

/// A change of the placement.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// Two slots exchange their experts: two pages move.
    Exchange(usize, usize),
    /// A slot gets another expert: one page moves.
    Replace(usize, usize),
}

/// The change that gains most for each page; of equals the first that was offered.
struct Best {
    /// Change of the sum of shares for each page.
    per_page: f32,
    change: Option<Change>,
}

impl Best {
    fn offer(&mut self, change: Change, pages: f32, shares: f32) {
        if shares < self.per_page * pages {
            self.per_page = shares / pages;
            self.change = Some(change);
        }
    }
}

/// Makes changes, each the best for one of the ranks that cost most, until none is worth `worth` of the ratio for each
/// page that it moves. No expert gets fewer than `least` copies.
pub(super) fn improve(soft: &mut Soft<'_, '_>, worth: f32, least: usize) {
    let looked_at = soft.placement().ranks().tuning().busiest_annealed;
    // Every step raises the ratio, so this ends anyway; rounding decides when.
    for _ in 0..4 * soft.placement().len() {
        let mut busiest: Vec<usize> = (0..soft.placement().ranks().len()).collect();
        busiest.sort_by(|&a, &b| soft.share(b).total_cmp(&soft.share(a)));
        let losses = losses(soft, least);
        let change = busiest.iter().take(looked_at).find_map(|&rank| {
            let mut best = Best { per_page: -worth / soft.worth(-1.0), change: None };
            offer_exchanges(soft, rank, &mut best);
            offer_copies(soft, rank, &losses, &mut best);
            best.change
        });
        match change {
            Some(Change::Exchange(a, b)) => soft.exchange(a, b),
            Some(Change::Replace(slot, expert)) => soft.replace(slot, expert),
            None => return,
        }
    }
}

/// A copy of the rank against one of another, of those ranks first with which most is to be gained.
fn offer_exchanges(soft: &Soft<'_, '_>, rank: usize, best: &mut Best) {
    let placement = soft.placement();
    let mine: Vec<(usize, Departure<'_>)> = placement.slots_of(rank).map(|slot| (slot, soft.departure(slot))).collect();
    let mut partners: Vec<(f32, usize)> =
        (0..placement.ranks().len()).map(|other| (soft.difference(rank, other), other)).collect();
    partners.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (most, other) in partners {
        if -most >= 2.0 * best.per_page {
            return;
        }
        let theirs = placement.slots_of(other).filter(|&slot| !placement.holds(rank, placement.expert(slot)));
        let theirs: Vec<(usize, Departure<'_>, Arrival<'_>)> = theirs
            .map(|slot| (slot, soft.departure(slot), soft.arrival(rank, placement.expert(slot), Which::Now)))
            .collect();
        for (mine, leaves) in mine.iter().filter(|(slot, _)| !placement.holds(other, placement.expert(*slot))) {
            let goes = soft.arrival(other, placement.expert(*mine), Which::Now);
            for (theirs, makes_place, comes) in &theirs {
                let shares = leaves.exchanged(comes) + makes_place.exchanged(&goes);
                best.offer(Change::Exchange(*mine, *theirs), 2.0, shares);
            }
        }
    }
}

/// One copy more, elsewhere, of an expert of the rank.
fn offer_copies(soft: &Soft<'_, '_>, rank: usize, losses: &[(usize, f32)], best: &mut Best) {
    let placement = soft.placement();
    for mine in placement.slots_of(rank) {
        let expert = placement.expert(mine);
        let relief: f32 = placement.copies(expert).map(|slot| soft.recounted(slot, Which::More)).sum();
        let mut arrival = None;
        for &(slot, loss) in losses {
            let (other, old) = (placement.rank(slot), placement.expert(slot));
            if placement.holds(other, expert) {
                continue;
            }
            // The slots of a rank follow one another.
            let arrival = match arrival {
                Some((at, arrival)) if at == other => arrival,
                _ => arrival.insert((other, soft.arrival(other, expert, Which::More))).1,
            };
            let holders = placement.copies(old).map(|copy| placement.rank(copy));
            let holders = holders.filter(|&holder| placement.holds(holder, expert));
            let both: f32 = holders.map(|holder| soft.both(holder, expert, old)).sum();
            let shares = relief + loss + both + soft.departure(slot).exchanged(&arrival);
            best.offer(Change::Replace(slot, expert), 1.0, shares);
        }
    }
}

/// Slots whose expert can do with a copy less, and the change of the shares of that expert's other ranks when the slot
/// gets another expert.
fn losses(soft: &Soft<'_, '_>, least: usize) -> Vec<(usize, f32)> {
    let placement = soft.placement();
    let mut losses: Vec<(usize, f32)> = (0..placement.experts())
        .filter(|&expert| placement.count(expert) > least)
        .flat_map(|expert| {
            let changes: Vec<f32> = placement.copies(expert).map(|slot| soft.recounted(slot, Which::Fewer)).collect();
            let all: f32 = changes.iter().sum();
            placement.copies(expert).zip(changes).map(move |(slot, own)| (slot, all - own)).collect::<Vec<_>>()
        })
        .collect();
    losses.sort_unstable_by_key(|&(slot, _)| slot);
    losses
}
