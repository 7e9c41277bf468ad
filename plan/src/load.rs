//! Tokens per layer and expert: what a window counted, and the figures made from it.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use crate::ids::{ExpertId, LayerId};
use crate::map::ExpertMap;
use crate::tuning::Tuning;
use crate::words::counted;

/// Windows that are kept for planning: [`Tuning::windows_kept`].
pub const WINDOWS_KEPT: usize = Tuning::PRODUCT.windows_kept;

/// (token, expert) pairs routed to each logical expert over some steps, `[layers, experts]`.
///
/// Counts stop at `u64::MAX` instead of starting again at 0. Clones share the counts until one of them changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct ExpertLoad {
    experts: usize,
    #[serde(serialize_with = "list")]
    counts: Arc<Vec<u64>>,
}

fn list<S: Serializer>(counts: &Arc<Vec<u64>>, serializer: S) -> Result<S::Ok, S::Error> {
    counts.as_ref().serialize(serializer)
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
            let (counts, experts) = (counted(counts.len(), "count"), counted(experts, "expert"));
            return Err(format!("no whole number of layers of {experts}: {counts}"));
        }
        Ok(Self::from_counts(experts, counts))
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
        Self::from_counts(experts, vec![0; layers * experts])
    }

    /// A load from its rows. `None` if they have unequal lengths or there is no layer or no expert.
    #[must_use]
    pub fn from_rows(rows: &[Vec<u64>]) -> Option<Self> {
        let experts = rows.first()?.len();
        let even = experts > 0 && rows.iter().all(|row| row.len() == experts);
        even.then(|| Self::from_counts(experts, rows.concat()))
    }

    /// A load from its counts, `[layers, experts]`, which are a whole number of layers.
    pub(crate) fn from_counts(experts: usize, counts: Vec<u64>) -> Self {
        Self { experts, counts: Arc::new(counts) }
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
        self.add_all(std::iter::once((layer, expert, tokens)));
    }

    /// Adds tokens to several experts.
    pub fn add_all(&mut self, tokens: impl Iterator<Item = (LayerId, ExpertId, u64)>) {
        let counts = Arc::make_mut(&mut self.counts);
        for (layer, expert, tokens) in tokens {
            let count = &mut counts[layer.index() * self.experts + expert.index()];
            *count = count.saturating_add(tokens);
        }
    }

    /// Whether two loads are one and the same in memory, which a clone that has not changed is.
    #[must_use]
    pub fn shares_counts_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.counts, &other.counts)
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|&count| count == 0)
    }

    /// Adds another load of the same dimensions.
    ///
    /// # Panics
    /// If the dimensions differ.
    pub fn merge(&mut self, other: &Self) {
        assert_eq!((self.experts, self.counts.len()), (other.experts, other.counts.len()), "loads of one model");
        for (mine, theirs) in Arc::make_mut(&mut self.counts).iter_mut().zip(other.counts.iter()) {
            *mine = mine.saturating_add(*theirs);
        }
    }

    /// All pairs counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |total, &count| total.saturating_add(count))
    }
}

/// The windows in which something was counted; the others say nothing of any placement. The last of all where that is none.
#[must_use]
pub fn with_load(windows: &[ExpertLoad]) -> Cow<'_, [ExpertLoad]> {
    let empty = windows.iter().filter(|window| window.is_empty()).count();
    if empty == 0 {
        return Cow::Borrowed(windows);
    }
    if empty == windows.len() {
        return Cow::Borrowed(&windows[empty - 1..]);
    }
    Cow::Owned(windows.iter().filter(|window| !window.is_empty()).cloned().collect())
}

/// The last windows, as many as are kept, in which something was counted: what a plan is made from.
#[must_use]
pub(crate) fn kept<'a>(windows: &'a [ExpertLoad], tuning: &Tuning) -> Cow<'a, [ExpertLoad]> {
    let last = |count: usize| count.saturating_sub(tuning.windows_kept);
    match with_load(windows) {
        Cow::Borrowed(windows) => Cow::Borrowed(&windows[last(windows.len())..]),
        Cow::Owned(mut windows) => Cow::Owned(windows.split_off(last(windows.len()))),
    }
}

/// Rows that follow each other summed to windows of `rows` each, the last of what is left; rows in which nothing was counted are
/// left out.
///
/// # Panics
/// If `rows` is 0 or loads are of different models.
#[must_use]
pub fn summed(loads: &[ExpertLoad], rows: usize) -> Vec<ExpertLoad> {
    with_load(loads).chunks(rows).map(total).collect()
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
    let mut rows = [vec![0.0; before.experts()], vec![0.0; after.experts()]];
    for layer in (0..before.layers()).map(LayerId::from) {
        let counts = [before.layer(layer), after.layer(layer)];
        let totals = counts.map(row_total);
        if totals.contains(&0.0) {
            continue;
        }
        rows.iter_mut().zip(counts).for_each(|(row, counts)| numbers(counts, row));
        let [before, after] = totals;
        let [square, part] = apart(&rows, totals);
        squares += square / (before * after).powi(2);
        parts += part / (before * before);
    }
    if parts > 0.0 { f64::sqrt(squares / parts) } else { 0.0 }
}

/// Sum of the squared differences of two rows, each times the total of the other, so that equal parts differ by nothing; and sum of
/// the squares of the first.
fn apart([before, after]: &[Vec<f64>; 2], [total_before, total_after]: [f64; 2]) -> [f64; 2] {
    let (mut squares, mut parts) = ([0.0; 4], [0.0; 4]);
    let term = |before: f64, after: f64| {
        let difference = after * total_before - before * total_after;
        (difference * difference, before * before)
    };
    // Four sums at once, which a processor adds up together.
    let ((fours, rest), (fours_after, rest_after)) = (before.as_chunks::<4>(), after.as_chunks::<4>());
    for (before, after) in fours.iter().zip(fours_after) {
        for lane in 0..4 {
            let (square, part) = term(before[lane], after[lane]);
            squares[lane] += square;
            parts[lane] += part;
        }
    }
    for (&before, &after) in rest.iter().zip(rest_after) {
        let (square, part) = term(before, after);
        squares[0] += square;
        parts[0] += part;
    }
    [squares.iter().sum(), parts.iter().sum()]
}

/// The sum of a layer's counts. Where it fits into an integer it is one, which takes several at once.
pub(crate) fn row_total(counts: &[u64]) -> f64 {
    let all = counts.iter().fold(0, |all, count| all | count);
    if all >> 48 == 0 && counts.len() <= 1 << 16 {
        counts.iter().sum::<u64>() as f64
    } else {
        counts.iter().map(|&count| count as f64).sum()
    }
}

/// Counts as floating-point numbers. Below 2^52 by their bits, which takes several at once.
pub(crate) fn numbers(counts: &[u64], numbers: &mut [f64]) {
    /// 2^52: with it, the lowest bits of a number are the whole part.
    const WHOLE: u64 = 0x4330_0000_0000_0000;
    let all = counts.iter().fold(0, |all, count| all | count);
    if all >> 52 == 0 {
        let number = |count: u64| f64::from_bits(count | WHOLE) - f64::from_bits(WHOLE);
        numbers.iter_mut().zip(counts).for_each(|(to, &count)| *to = number(count));
    } else {
        numbers.iter_mut().zip(counts).for_each(|(to, &count)| *to = count as f64);
    }
}

/// The last of some windows, from where traffic last shifted: where two windows that follow each other are so many times
/// as far apart as others are in the middle ([`Tuning::shifted`]). What comes in bursts is no shift, as all windows are far apart
/// then; two windows alone do not tell which it was.
#[must_use]
pub(crate) fn since_last_shift<'a>(windows: &'a [ExpertLoad], tuning: &Tuning) -> &'a [ExpertLoad] {
    if windows.len() < 3 {
        return windows;
    }
    let distances: Vec<f64> = windows.windows(2).map(|pair| distance(&pair[0], &pair[1])).collect();
    let shifts = |&index: &usize| {
        let mut others = [&distances[..index], &distances[index + 1..]].concat();
        others.sort_by(f64::total_cmp);
        let usual = others.get(others.len() / 2).map_or(tuning.same_traffic, |&middle| middle.max(tuning.same_traffic));
        distances[index] > tuning.shifted * usual
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
