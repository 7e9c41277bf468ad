//! Tokens per layer and expert: what a window counted, and the figures made from it.

use serde::{Deserialize, Serialize};

use crate::ids::{ExpertId, LayerId};
use crate::map::ExpertMap;

/// (token, expert) pairs routed to each logical expert over some steps, `[layers, experts]`.
///
/// Counts stop at `u64::MAX` instead of starting again at 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct ExpertLoad {
    experts: usize,
    counts: Vec<u64>,
}

/// An [`ExpertLoad`] as it is read, before its dimensions are checked.
#[derive(Deserialize)]
struct Unchecked {
    experts: usize,
    counts: Vec<u64>,
}

impl TryFrom<Unchecked> for ExpertLoad {
    type Error = String;

    fn try_from(Unchecked { experts, counts }: Unchecked) -> Result<Self, String> {
        if counts.len().checked_rem(experts).unwrap_or(counts.len()) != 0 {
            return Err(format!("{} counts are no whole number of layers of {experts} experts", counts.len()));
        }
        Ok(Self { experts, counts })
    }
}

impl ExpertLoad {
    /// The load of its first layers.
    ///
    /// # Panics
    /// If it has fewer.
    #[must_use]
    pub fn first_layers(&self, layers: usize) -> Self {
        let rows: Vec<Vec<u64>> = (0..layers).map(|layer| self.layer(layer.into()).to_vec()).collect();
        Self::from_rows(&rows).expect("rows of a load are even")
    }

    /// No load.
    #[must_use]
    pub fn zero(layers: usize, experts: usize) -> Self {
        Self { experts, counts: vec![0; layers * experts] }
    }

    /// A load from its rows. `None` if they have unequal lengths or there is no layer or no expert.
    #[must_use]
    pub fn from_rows(rows: &[Vec<u64>]) -> Option<Self> {
        let experts = rows.first()?.len();
        let even = experts > 0 && rows.iter().all(|row| row.len() == experts);
        even.then(|| Self { experts, counts: rows.concat() })
    }

    /// A load from its counts, `[layers, experts]`, which are a whole number of layers.
    pub(crate) const fn from_counts(experts: usize, counts: Vec<u64>) -> Self {
        Self { experts, counts }
    }

    /// Number of layers.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.counts.len().checked_div(self.experts).unwrap_or(0)
    }

    /// Number of experts of each layer.
    #[must_use]
    pub const fn experts(&self) -> usize {
        self.experts
    }

    /// The counts of one layer, `[experts]`.
    #[must_use]
    pub fn layer(&self, layer: LayerId) -> &[u64] {
        &self.counts[layer.index() * self.experts..][..self.experts]
    }

    /// Adds tokens to an expert.
    pub fn add(&mut self, layer: LayerId, expert: ExpertId, tokens: u64) {
        let count = &mut self.counts[layer.index() * self.experts + expert.index()];
        *count = count.saturating_add(tokens);
    }

    /// Adds another load of the same dimensions.
    ///
    /// # Panics
    /// If the dimensions differ.
    pub fn merge(&mut self, other: &Self) {
        assert_eq!((self.experts, self.counts.len()), (other.experts, other.counts.len()), "loads of one model");
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine = mine.saturating_add(*theirs);
        }
    }

    /// All pairs counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |total, &count| total.saturating_add(count))
    }
}

/// The sum of windows of one model.
///
/// # Panics
/// If there are none, or they are of different models.
#[must_use]
pub fn total(windows: &[ExpertLoad]) -> ExpertLoad {
    let (first, rest) = windows.split_first().expect("there is a window");
    rest.iter().fold(first.clone(), |mut total, window| {
        total.merge(window);
        total
    })
}

/// How far two loads of one model are apart, whatever their sums: the distance of the experts' parts of each layer's
/// tokens, relative to those parts; 0 where one of them is empty.
#[must_use]
pub fn distance(before: &ExpertLoad, after: &ExpertLoad) -> f64 {
    let (mut squares, mut parts) = (0.0, 0.0);
    for layer in (0..before.layers()).map(LayerId::from) {
        let rows = [before.layer(layer), after.layer(layer)];
        let [total_before, total_after] = rows.map(|row| row.iter().map(|&count| count as f64).sum::<f64>());
        if total_before == 0.0 || total_after == 0.0 {
            continue;
        }
        for (&before, &after) in rows[0].iter().zip(rows[1]) {
            let (before, after) = (before as f64 / total_before, after as f64 / total_after);
            squares += (after - before) * (after - before);
            parts += before * before;
        }
    }
    if parts > 0.0 { f64::sqrt(squares / parts) } else { 0.0 }
}

/// The last of some windows, from where traffic last shifted: where two windows that follow each other are three times as
/// far apart as others are in the middle. What comes in bursts is no shift, as all windows are far apart then.
#[must_use]
pub fn since_last_shift(windows: &[ExpertLoad]) -> &[ExpertLoad] {
    /// Windows of the same traffic differ by a few hundredths, and text of another kind by more than half.
    const NOISE: f64 = 0.1;
    let distances: Vec<f64> = windows.windows(2).map(|pair| distance(&pair[0], &pair[1])).collect();
    let shifts = |&index: &usize| {
        let mut others = [&distances[..index], &distances[index + 1..]].concat();
        others.sort_by(f64::total_cmp);
        distances[index] > 3.0 * others.get(others.len() / 2).map_or(NOISE, |&middle| middle.max(NOISE))
    };
    let start = (0..distances.len()).rev().find(shifts).map_or(0, |index| index + 1);
    &windows[start..]
}

/// Load of each rank under a map when each copy of an expert takes its share of the expert's tokens,
/// `[layers][ranks]`, tokens.
#[must_use]
pub fn rank_loads(map: &ExpertMap, load: &ExpertLoad) -> Vec<Vec<f64>> {
    let shape = map.shape();
    map.layers()
        .map(|layer| {
            let mut ranks = vec![0.0; shape.ranks];
            let slots = map.layer(layer).iter().zip(map.fractions(layer));
            for ((rank, _), (expert, fraction)) in map.slots_of_layer().zip(slots) {
                ranks[rank.index()] += load.layer(layer)[expert.index()] as f64 * fraction;
            }
            ranks
        })
        .collect()
}

/// `expert_load_balance_ratio` = sum over layers of mean rank load / sum over layers of max rank load. 1 is perfect,
/// and what no load at all gives.
#[must_use]
pub fn balance_ratio(rank_loads: &[Vec<f64>]) -> f64 {
    let mean: f64 = rank_loads.iter().map(|ranks| ranks.iter().sum::<f64>() / ranks.len().max(1) as f64).sum();
    let max: f64 = rank_loads.iter().map(|ranks| ranks.iter().copied().fold(0.0, f64::max)).sum();
    if max > 0.0 { mean / max } else { 1.0 }
}

#[cfg(test)]
mod tests;
