//! How many copies each expert gets when only the largest copy counts. Knows nothing of where copies go.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

/// Numbers of copies that make the largest copy as small as it can be: each copy beyond the first `least` goes to the
/// expert with the highest load per copy that is not on every rank yet; of equals to the one with the fewest copies,
/// then to the first. `physical` is from `least` times the experts to the ranks times the experts.
pub(in crate::balance) fn counts(weights: &[f64], ranks: usize, physical: usize, least: usize) -> Vec<u16> {
    let mut counts = vec![least as u16; weights.len()];
    // Loads are not negative, so their bits are in the order of their values, and compare faster.
    let key = |expert: usize, count: u16| {
        ((weights[expert] / f64::from(count)).to_bits(), Reverse(count), Reverse(expert as u16))
    };
    let mut keys: Vec<_> = (0..weights.len()).map(|expert| key(expert, least as u16)).collect();
    let spare = physical - weights.len() * least;
    // Only the hottest can get one: as many as there are copies to give.
    if spare < keys.len() {
        keys.select_nth_unstable_by(spare, |a, b| b.cmp(a));
        keys.truncate(spare);
    }
    let mut hottest = BinaryHeap::from(keys);
    for _ in 0..spare {
        loop {
            let mut top = hottest.peek_mut().expect("there are no more slots than ranks times experts");
            let expert = usize::from(top.2.0);
            if usize::from(counts[expert]) == ranks {
                PeekMut::pop(top);
                continue;
            }
            counts[expert] += 1;
            *top = key(expert, counts[expert]);
            break;
        }
    }
    counts
}

/// The load of the largest copy.
pub(in crate::balance) fn largest_copy(weights: &[f64], counts: &[u16]) -> f64 {
    weights.iter().zip(counts).map(|(weight, &count)| weight / f64::from(count)).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests;
