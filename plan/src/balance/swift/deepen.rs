//! Search over the numbers of copies themselves, where no single change helps any more: packing and numbers of copies
//! have to change together, which matters most where ranks have few slots.

use super::lowest;
use super::packing::Packing;
use super::search::ROUNDING;

/// Gives an expert of the busiest rank the slot of another expert's copy although that alone does not help, and lets
/// exchanges repair what it breaks; keeps what is better than before. Ends at `goal`.
pub(in crate::balance) fn deepen(packing: &mut Packing<'_>, goal: f64) {
    if packing.top() <= goal {
        return;
    }
    let mut before = packing.clone();
    let mut attempts = packing.ranks().tuning().attempts;
    while packing.top() > goal && one_better(packing, &mut before, &mut attempts) {
        lowest::improve(packing, goal, goal);
        before.copy_from(packing);
    }
}

/// Whether one of the attempts left is better than the packing, which is then that one. `before` equals the packing.
fn one_better<'a>(packing: &mut Packing<'a>, before: &mut Packing<'a>, attempts: &mut usize) -> bool {
    let better = packing.top() * (1.0 - ROUNDING);
    let busiest = before.busiest();
    let cheapest = cheapest_first(before);
    for &hot in
        packing.experts_of(busiest).to_vec().iter().filter(|&&hot| before.count(hot.into()) < before.ranks().len())
    {
        for &cold in cheapest.iter().filter(|&&cold| cold != hot) {
            let Some(rank) = emptiest_without(before, cold.into(), hot.into()) else { continue };
            if *attempts == 0 {
                return false;
            }
            *attempts -= 1;
            packing.replace(rank, cold.into(), hot.into());
            lowest::exchange(packing, better, packing.ranks().tuning().repairs);
            if packing.top() <= better {
                return true;
            }
            packing.copy_from(before);
        }
    }
    false
}

/// Experts with a copy to spare, those first whose copies grow least when there is one less.
fn cheapest_first(packing: &Packing<'_>) -> Vec<u16> {
    let mut experts = packing.spare().to_vec();
    let rise = |expert: u16| {
        let (expert, count) = (usize::from(expert), packing.count(expert.into()));
        packing.load_with(expert, count - 1) - packing.load(expert)
    };
    experts.sort_by(|&a, &b| rise(a).total_cmp(&rise(b)));
    experts
}

/// The rank with the lowest level that holds `cold` and lacks `hot`.
fn emptiest_without(packing: &Packing<'_>, cold: usize, hot: usize) -> Option<usize> {
    let ranks = packing.holders(cold).filter(|&rank| !packing.holds(rank, hot));
    ranks.min_by(|&a, &b| packing.level(a).total_cmp(&packing.level(b)))
}

#[cfg(test)]
mod tests;
