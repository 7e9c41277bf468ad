//! What must hold of decisions where loads do not change: the band of docs/decisions/worth-its-bytes.md.

use plan::balance::Policy;
use plan::coverage::Coverage;
use plan::load::{ExpertLoad, WINDOWS_KEPT};
use plan::policy::Terms;
use plan::proposal::Rules;
use plan::replay::{Replay, replay};
use plan::topology::Topology;
use proptest::prelude::*;

/// Windows that are decided on, and after how many of them noise moves pages in one of twenty at most.
const WINDOWS: usize = 44;
const SETTLED: usize = 3;

/// A law that loads follow without a change.
#[derive(Clone, Debug)]
struct Law {
    ranks: usize,
    slots_per_rank: usize,
    /// Relative popularity of the experts, `[layers][experts]`.
    popularity: Vec<Vec<f64>>,
    /// Tokens of a layer in a window.
    tokens: f64,
    seed: u64,
}

fn laws() -> impl Strategy<Value = Law> {
    let shape = (2..=8_usize, 1..=6_usize, 1..=4_usize, 1..=4_usize);
    shape.prop_flat_map(|(ranks, own, spare, layers)| {
        let experts = ranks * own;
        let spread = 0.0..1.5_f64;
        let popularity = (spread, prop::collection::vec(prop::collection::vec(-2.0..2.0_f64, experts), layers))
            .prop_map(|(spread, rows)| {
                rows.iter().map(|row| row.iter().map(|x| (spread * x).exp()).collect()).collect()
            });
        let tokens = (9.0..20.0_f64).prop_map(f64::exp2);
        (popularity, tokens, any::<u64>()).prop_map(move |(popularity, tokens, seed)| Law {
            ranks,
            slots_per_rank: (own + spare).min(experts),
            popularity,
            tokens,
            seed,
        })
    })
}

impl Law {
    /// Windows as they are counted: each expert's tokens are about normal around what it is popular for, with as much variance.
    fn windows(&self, count: usize) -> Vec<ExpertLoad> {
        let mut state = self.seed | 1;
        let mut unit = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let mut counted = |mean: f64| {
            let normal = (0..12).map(|_| unit()).sum::<f64>() - 6.0;
            (mean + normal * mean.sqrt()).max(0.0).round() as u64
        };
        let mut window = || {
            let rows: Vec<Vec<u64>> = self
                .popularity
                .iter()
                .map(|row| row.iter().map(|part| counted(part * self.tokens / row.iter().sum::<f64>())).collect())
                .collect();
            ExpertLoad::from_rows(&rows).unwrap()
        };
        (0..count).map(|_| window()).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn noise_moves_pages_in_one_window_of_twenty_at_most(law in laws()) {
        let topology = Topology::single_node(law.ranks, law.slots_per_rank);
        let rules = Rules {
            policy: Policy::Swift,
            min_coverage: Coverage::default(),
            staging_pages: 4,
            terms: Terms::usual(1 << 20, 60.0),
        };
        let windows = law.windows(WINDOWS + 1);
        let request = Replay { windows: &windows, topology: &topology, start: None, remembered: WINDOWS_KEPT, rules };
        let moved: Vec<usize> = replay(&request).unwrap().iter().map(|decided| decided.moved_slots).collect();
        let after = moved[SETTLED..].iter().filter(|pages| **pages > 0).count();
        prop_assert!(after * 20 <= WINDOWS, "{moved:?}");
    }
}
