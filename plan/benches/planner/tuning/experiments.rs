//! What is measured of plans and decisions, and by what the numbers of each part are.

use anyhow::Result;
use plan::tuning::{Part, Tuning};

use super::bench::Bench;
use super::deployed;

/// Times are the least of so many runs.
const RUNS: usize = 2;

/// A figure of an experiment.
#[derive(Clone, Copy)]
pub struct Measure {
    pub name: &'static str,
    /// Decimals that are told.
    pub decimals: usize,
    pub is_time: bool,
}

const fn figure(name: &'static str, decimals: usize) -> Measure {
    Measure { name, decimals, is_time: false }
}

const TIME: Measure = Measure { name: "ms", decimals: 1, is_time: true };

/// What is measured, and how.
#[derive(Clone, Copy)]
pub struct Experiment {
    pub measures: &'static [Measure],
    /// One figure for each measure.
    run: fn(&Bench, &Tuning) -> Result<Vec<f64>>,
}

impl Experiment {
    pub fn measure(&self, bench: &Bench, tuning: &Tuning) -> Result<Vec<f64>> {
        let mut least = (self.run)(bench, tuning)?;
        let runs = if self.measures.iter().any(|measure| measure.is_time) { RUNS } else { 1 };
        for _ in 1..runs {
            let again = (self.run)(bench, tuning)?;
            least.iter_mut().zip(again).for_each(|(least, again)| *least = least.min(again));
        }
        Ok(least)
    }
}

const FROM_NOTHING: Experiment =
    Experiment { measures: &[figure("from nothing: excess %", 3), TIME], run: Bench::plan_from_nothing };

const IN_FORCE: Experiment = Experiment {
    measures: &[
        figure("in force: next window", 4),
        figure("pages", 0),
        figure("of other nodes", 0),
        figure("pairs off node %", 2),
        TIME,
    ],
    run: Bench::plan_in_force,
};

const AFTER_A_LOSS: Experiment = Experiment {
    measures: &[figure("after a loss: moves / floor", 3), figure("excess %", 2), TIME],
    run: Bench::plan_after_losses,
};

const FOR_BURSTS: Experiment =
    Experiment { measures: &[figure("bursts: unseen", 4), figure("pages", 0), TIME], run: Bench::plan_for_bursts };

const FROM_FEW: Experiment = Experiment {
    measures: &[figure("from few: bursts, next window", 4), figure("drift, next window", 4)],
    run: Bench::plan_from_few,
};

const DEPLOYED_IN_BURSTS: Experiment = Experiment {
    measures: &[figure("deployed, bursts: next window", 4), figure("pages", 1), figure("moving %", 0)],
    run: deployed::in_bursts,
};

const DEPLOYED_IN_DRIFT: Experiment = Experiment {
    measures: &[
        figure("deployed, drift: next window", 4),
        figure("pages", 1),
        figure("moving %", 0),
        figure("shares alone %", 0),
        figure("deployed, no change: moving %", 1),
        figure("shares alone %", 1),
    ],
    run: deployed::in_drift,
};

/// Each part, what it is called and what its numbers are measured by.
pub const PARTS: [(Part, &str, &[Experiment]); 5] = [
    (Part::Search, "Search", &[FROM_NOTHING, IN_FORCE, AFTER_A_LOSS, FOR_BURSTS]),
    (Part::Bursts, "Bursts", &[FOR_BURSTS, FROM_FEW, DEPLOYED_IN_BURSTS]),
    (Part::Forecast, "Forecast", &[IN_FORCE, FOR_BURSTS, FROM_FEW, DEPLOYED_IN_BURSTS, DEPLOYED_IN_DRIFT]),
    (Part::Shares, "Shares", &[IN_FORCE, AFTER_A_LOSS, DEPLOYED_IN_DRIFT]),
    (Part::Policy, "Policy", &[DEPLOYED_IN_BURSTS, DEPLOYED_IN_DRIFT]),
];
