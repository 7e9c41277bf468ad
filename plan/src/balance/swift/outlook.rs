//! What a change to a layer's placement promises, at a glance: cheap enough to be asked of thousands, so that only those that
//! promise most are tried.

use super::sharing::Sharing;

/// The expert that a slot gets.
pub(super) type Step = (usize, u16);

/// What is known of a placement before a change. Levels and loads are parts of the level that is aimed at.
pub(super) struct Outlook {
    /// Of each rank.
    level: Vec<f64>,
    /// Speed of the ranks that rise and fall with each rank.
    speed: Vec<f64>,
    /// Rank and load of each slot, and the rank that takes over if its expert goes: the lowest with another copy.
    slots: Vec<Slot>,
    /// The copy of each expert on the highest rank.
    sources: Vec<Source>,
}

#[derive(Clone, Copy)]
struct Slot {
    rank: usize,
    load: f64,
    heir: Option<usize>,
}

#[derive(Clone, Copy)]
struct Source {
    slot: usize,
    rank: usize,
    load: f64,
    alone: bool,
}

impl Outlook {
    /// The placement `slots`, of which slot `slot` is on `rank_of[slot]`.
    pub(super) fn new(sharing: &Sharing<'_>, weights: &[f64], slots: &[u16], rank_of: &[usize], goal: f64) -> Self {
        let level: Vec<f64> = (0..sharing.ranks()).map(|rank| sharing.level(rank) / goal).collect();
        let nowhere = Source { slot: 0, rank: 0, load: 0.0, alone: true };
        let mut sources = vec![nowhere; weights.len()];
        let mut looked_at = vec![false; weights.len()];
        let look = |(slot, &rank): (usize, &usize)| {
            let expert = usize::from(slots[slot]);
            let copies = sharing.copies(expert);
            let alone = copies.len() == 1;
            let (mut load, mut heir) = (weights[expert] / goal, None);
            for (holder, share) in copies {
                if holder == rank {
                    load *= share;
                } else if heir.is_none_or(|heir: usize| level[holder] < level[heir]) {
                    heir = Some(holder);
                }
            }
            if !looked_at[expert] || level[sources[expert].rank] < level[rank] {
                looked_at[expert] = true;
                sources[expert] = Source { slot, rank, load, alone };
            }
            Slot { rank, load, heir }
        };
        let slots = rank_of.iter().enumerate().map(look).collect();
        Self { level, speed: sharing.speeds_of_groups(), slots, sources }
    }

    /// The level of a rank.
    pub(super) fn level(&self, rank: usize) -> f64 {
        self.level[rank]
    }

    /// The load of a slot.
    pub(super) fn load(&self, slot: usize) -> f64 {
        self.slots[slot].load
    }

    /// The level of the highest rank with a copy of an expert.
    pub(super) fn highest(&self, expert: usize) -> f64 {
        self.level[self.sources[expert].rank]
    }

    /// The most that another copy of an expert can promise.
    pub(super) fn relief_by(&self, expert: usize) -> f64 {
        let Source { rank, load, .. } = self.sources[expert];
        self.relief(rank, load)
    }

    /// The most that a slot promises whose expert goes.
    pub(super) fn relief_of(&self, slot: usize) -> f64 {
        let Slot { rank, load, .. } = self.slots[slot];
        self.relief(rank, load)
    }

    /// What it promises that load goes from a rank.
    pub(super) fn relief(&self, rank: usize, load: f64) -> f64 {
        let speed = self.speed[rank];
        speed * (above(self.level[rank]) - above(self.level[rank] - load / speed))
    }

    /// How far a change takes ranks down that are above the goal: the sum over ranks of speed times distance squared.
    pub(super) fn promise(&self, steps: &(impl Iterator<Item = Step> + Clone)) -> f64 {
        let mut flows = Flows::default();
        for (slot, _) in steps.clone() {
            let Slot { rank, load, heir } = self.slots[slot];
            flows.add(rank, -load);
            if let Some(heir) = heir {
                flows.add(heir, load);
            }
        }
        for (slot, new) in steps.clone() {
            let (source, to) = (self.sources[usize::from(new)], self.slots[slot].rank);
            if source.alone && steps.clone().any(|(slot, _)| slot == source.slot) {
                flows.add(to, source.load);
                continue;
            }
            // As much as takes both to one level, of what there is.
            let level = |rank: usize| self.level[rank] + flows.of(rank) / self.speed[rank];
            let gap = level(source.rank) - level(to);
            let load = (gap / (1.0 / self.speed[source.rank] + 1.0 / self.speed[to])).clamp(0.0, source.load);
            flows.add(source.rank, -load);
            flows.add(to, load);
        }
        flows.iter().map(|(rank, load)| self.relief(rank, -load)).sum()
    }
}

/// The distance to the goal that counts, squared.
pub(super) fn above(level: f64) -> f64 {
    (level - 1.0).max(0.0).powi(2)
}

/// Load that comes to ranks or leaves them. Two steps concern eight ranks at most.
#[derive(Default)]
struct Flows {
    of: [(usize, f64); 8],
    len: usize,
}

impl Flows {
    fn add(&mut self, rank: usize, load: f64) {
        if let Some(flow) = self.of[..self.len].iter_mut().find(|flow| flow.0 == rank) {
            flow.1 += load;
        } else {
            self.of[self.len] = (rank, load);
            self.len += 1;
        }
    }

    fn of(&self, rank: usize) -> f64 {
        self.iter().find(|flow| flow.0 == rank).map_or(0.0, |flow| flow.1)
    }

    fn iter(&self) -> impl Iterator<Item = (usize, f64)> + '_ {
        self.of[..self.len].iter().copied()
    }
}
