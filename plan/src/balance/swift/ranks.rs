//! What the ranks of a group offer to one layer: slots and speed. Knows nothing of loads.

/// Slots and speed of each rank.
#[derive(Clone, Debug)]
pub(in crate::balance) struct Ranks {
    /// First slot of each rank, then the number of slots.
    starts: Vec<u32>,
    /// Time that a unit of load takes on each rank; 1 where all ranks are equal.
    paces: Vec<f64>,
    /// Number of ranks with slots, the sum of their speeds, and the highest.
    open: usize,
    speed: f64,
    fastest: f64,
}

impl Ranks {
    /// Ranks with these slots and speeds, `[ranks]` each. Speeds are relative, finite and above 0.
    pub(in crate::balance) fn new(slots: &[usize], speeds: &[f64]) -> Self {
        let mut starts = Vec::with_capacity(slots.len() + 1);
        let mut end = 0;
        starts.push(0);
        for &slots in slots {
            end += slots as u32;
            starts.push(end);
        }
        let open = || slots.iter().zip(speeds).filter(|(slots, _)| **slots > 0).map(|(_, speed)| *speed);
        Self {
            starts,
            paces: speeds.iter().map(|speed| 1.0 / speed).collect(),
            open: open().count(),
            speed: open().sum(),
            fastest: open().fold(0.0, f64::max),
        }
    }

    /// `ranks` equal ranks.
    #[cfg(test)]
    pub(in crate::balance) fn even(ranks: usize, slots_per_rank: usize) -> Self {
        Self::new(&vec![slots_per_rank; ranks], &vec![1.0; ranks])
    }

    /// Number of ranks.
    pub(in crate::balance) const fn len(&self) -> usize {
        self.paces.len()
    }

    /// Number of ranks with slots: the most copies that an expert can have.
    pub(in crate::balance) const fn open(&self) -> usize {
        self.open
    }

    /// Slots of all ranks.
    pub(in crate::balance) fn physical(&self) -> usize {
        self.starts[self.len()] as usize
    }

    /// The slots of a rank.
    pub(in crate::balance) fn slots(&self, rank: usize) -> std::ops::Range<usize> {
        self.starts[rank] as usize..self.starts[rank + 1] as usize
    }

    /// Time that a unit of load takes on a rank.
    pub(in crate::balance) fn pace(&self, rank: usize) -> f64 {
        self.paces[rank]
    }

    /// Time that a unit of load takes on the fastest rank with slots.
    pub(in crate::balance) fn fastest_pace(&self) -> f64 {
        1.0 / self.fastest
    }

    /// Sum of the speeds of ranks with slots: the load that they take in a unit of time.
    pub(in crate::balance) const fn speed(&self) -> f64 {
        self.speed
    }
}
