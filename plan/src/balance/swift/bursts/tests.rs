use proptest::prelude::*;

use super::super::ranks::Ranks;
use super::*;

/// A generator of numbers for tests.
pub(super) struct Random(pub(super) u64);

impl Random {
    /// Evenly from 0 to 1.
    pub(super) fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// 32 experts. The first eight burst in two clusters of four, every other one of the rest is noisy.
pub(super) struct Bursty {
    seed: u64,
    burst: f64,
    noise: f64,
}

impl Default for Bursty {
    fn default() -> Self {
        Self { seed: 1, burst: 6.0, noise: 1.0 }
    }
}

impl Bursty {
    pub(super) fn windows(&self, count: usize) -> Vec<Vec<f64>> {
        let mut random = Random(self.seed);
        let window = |_| {
            let on = [random.unit() < 0.15, random.unit() < 0.15];
            let load = |expert: usize| {
                let tokens = 10_000.0 + 500.0 * (expert % 5) as f64;
                let noise = 1.0 + self.noise * (random.unit() - 0.5);
                match expert {
                    0..8 if on[expert / 4] => tokens * self.burst,
                    8.. if expert.is_multiple_of(2) => tokens * noise,
                    _ => tokens,
                }
            };
            (0..32).map(load).collect()
        };
        (0..count).map(window).collect()
    }
}

/// The experts one after the other, again and again, over the ranks; those of a cluster share ranks.
pub(super) fn dealt(ranks: &Ranks, experts: usize) -> Vec<u16> {
    (0..ranks.physical()).map(|slot| (slot % experts) as u16).collect()
}

fn ratio(windows: &[Vec<f64>], ranks: &Ranks, slots: &[u16]) -> f64 {
    let placement = Placement::new(ranks, windows[0].len(), slots.to_vec());
    let of_window = |window: &Vec<f64>| {
        let level = |rank: usize| {
            let copies = placement.slots_of(rank).map(|slot| placement.expert(slot));
            copies.map(|expert| window[expert] / placement.count(expert) as f64).sum::<f64>() * ranks.pace(rank)
        };
        window.iter().sum::<f64>() / ranks.speed() / (0..ranks.len()).map(level).fold(0.0, f64::max)
    };
    windows.iter().map(of_window).sum::<f64>() / windows.len() as f64
}

/// How many pages another placement takes.
fn moved(ranks: &Ranks, old: &[u16], new: &[u16]) -> usize {
    let of_rank =
        |rank: usize| new[ranks.slots(rank)].iter().filter(move |expert| !old[ranks.slots(rank)].contains(expert));
    (0..ranks.len()).map(|rank| of_rank(rank).count()).sum()
}

/// Target slots, where bursts matter.
fn plan(windows: &[Vec<f64>], ranks: &Ranks, start: Start<'_>, least: usize) -> Option<Vec<u16>> {
    Some(Bursts::expect(windows, ranks, start.slots())?.plan(start, start.slots(), least))
}

#[test]
fn a_plan_holds_on_windows_that_were_not_seen() {
    let windows = Bursty::default().windows(128);
    let ranks = Ranks::even(8, 5);
    let start = dealt(&ranks, 32);
    let planned = plan(&windows[..64], &ranks, Start::Free(&start), 1).unwrap();
    let (before, after) = (ratio(&windows[64..], &ranks, &start), ratio(&windows[64..], &ranks, &planned));
    assert!(after > 0.75 && after > 1.25 * before, "{before} {after}");
}

#[test]
fn experts_that_burst_together_end_on_different_ranks() {
    let ranks = Ranks::even(8, 4);
    let start = dealt(&ranks, 32);
    let planned =
        plan(&Bursty { noise: 0.0, ..Bursty::default() }.windows(64), &ranks, Start::Free(&start), 1).unwrap();
    for cluster in [0..4, 4..8_u16] {
        for rank in 0..8 {
            let together = planned[ranks.slots(rank)].iter().filter(|expert| cluster.contains(expert)).count();
            assert!(together <= 1, "rank {rank}: {planned:?}");
        }
    }
}

#[test]
fn without_bursts_the_forecast_decides() {
    let ranks = Ranks::even(8, 5);
    let start = dealt(&ranks, 32);
    let decided = |windows: &[Vec<f64>]| Bursts::expect(windows, &ranks, &start).is_none();
    assert!(decided(&Bursty { burst: 1.0, noise: 0.05, ..Bursty::default() }.windows(64)), "hardly any noise");
    assert!(decided(&Bursty::default().windows(3)), "too few windows");
    assert!(!decided(&Bursty::default().windows(8)));
    assert!(decided(&vec![vec![0.0; 32]; 64]), "no load");
}

#[test]
fn what_counting_gives_by_chance_is_no_burst() {
    // Few tokens and few windows: what ranks vary by is counting, and the error of its estimate.
    let (ranks, experts) = (Ranks::even(8, 5), 32);
    let mut found = 0;
    for seed in 0..100 {
        let mut random = Random(seed);
        let mut count = || (0..128).map(|_| random.unit()).filter(|part| *part < 0.5).count() as f64 * 2.0;
        let windows: Vec<Vec<f64>> = (0..16).map(|_| (0..experts).map(|_| count()).collect()).collect();
        found += usize::from(Bursts::expect(&windows, &ranks, &dealt(&ranks, experts)).is_some());
    }
    assert!(found <= 10, "{found} of 100");
}

#[test]
fn a_plan_is_no_worse_on_what_was_seen_than_the_calm_one() {
    let ranks = Ranks::even(8, 5);
    let start = dealt(&ranks, 32);
    for count in [4, 8, 16, 64] {
        let windows = Bursty::default().windows(count);
        let Some(bursts) = Bursts::expect(&windows, &ranks, &start) else { continue };
        // The best of random orders is better than what is dealt.
        let mut random = Random(7);
        let mut calm = start.clone();
        for _ in 0..200 {
            let (a, b) = ((random.unit() * 40.0) as usize, (random.unit() * 40.0) as usize);
            let mut other = Placement::new(&ranks, 32, calm.clone());
            if other.exchangeable(a, b) {
                other.exchange(a, b);
                let other = other.into_slots();
                if ratio(&windows, &ranks, &other) > ratio(&windows, &ranks, &calm) {
                    calm = other;
                }
            }
        }
        for from in [Start::Free(&start), Start::InForce(&start)] {
            let planned = bursts.plan(from, &calm, 1);
            let (ours, least) = (ratio(&windows, &ranks, &planned), ratio(&windows, &ranks, &calm));
            assert!(ours >= least - 1e-3, "{count} windows: {ours} and {least}");
        }
    }
}

#[test]
fn a_placement_in_force_that_is_good_stays() {
    let windows = Bursty::default().windows(128);
    let ranks = Ranks::even(8, 5);
    let start = dealt(&ranks, 32);
    let first = plan(&windows[..64], &ranks, Start::InForce(&start), 1).unwrap();
    let second = plan(&windows[64..], &ranks, Start::InForce(&first), 1).unwrap();
    let (much, little) = (moved(&ranks, &start, &first), moved(&ranks, &first, &second));
    assert!(much <= 30 && 4 * little < 3 * much, "{much} {little}");
    assert!(ratio(&windows[64..], &ranks, &first) > 1.2 * ratio(&windows[64..], &ranks, &start));
}

#[test]
fn fast_ranks_get_more() {
    let windows = Bursty::default().windows(128);
    let ranks = Ranks::new(&[5; 8], &[1.0, 1.0, 2.0, 1.0, 1.0, 1.0, 2.0, 1.0]);
    let start = dealt(&ranks, 32);
    let planned = plan(&windows[..64], &ranks, Start::Free(&start), 1).unwrap();
    let blind = plan(&windows[..64], &Ranks::even(8, 5), Start::Free(&start), 1).unwrap();
    let (seeing, blind) = (ratio(&windows[64..], &ranks, &planned), ratio(&windows[64..], &ranks, &blind));
    assert!(seeing > 1.1 * blind, "{seeing} {blind}");
}

/// Slots and speeds of ranks, loads in each window, and the least number of copies.
fn cases() -> impl Strategy<Value = (Vec<usize>, Vec<f64>, Vec<Vec<f64>>, usize)> {
    (2..9_usize, 2..20_usize, 1..3_usize).prop_flat_map(|(ranks, experts, least)| {
        let most = experts.min(3 * experts.div_ceil(ranks) * least);
        let slots = prop::collection::vec((experts * least).div_ceil(ranks).min(most)..=most, ranks);
        let speeds = prop::collection::vec(prop_oneof![Just(1.0), 0.25..4.0_f64], ranks);
        let load = prop_oneof![4 => 0.0..1e4_f64, 2 => Just(0.0), 1 => Just(1e19)];
        let windows = prop::collection::vec(prop::collection::vec(load, experts), 14..40);
        (slots, speeds, windows, Just(least.min(ranks)))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn every_plan_is_valid_and_made_again_the_same((slots, speeds, windows, least) in cases()) {
        let ranks = Ranks::new(&slots, &speeds);
        let experts = windows[0].len();
        let start = dealt(&ranks, experts);
        let counts = |slots: &[u16]| (0..experts).map(|e| slots.iter().filter(|&&o| usize::from(o) == e).count()).collect::<Vec<_>>();
        prop_assume!(counts(&start).iter().all(|&count| count >= least));
        for start in [Start::Free(&start), Start::InForce(&start)] {
            let planned = plan(&windows, &ranks, start, least);
            prop_assert_eq!(&planned, &plan(&windows, &ranks, start, least));
            let Some(planned) = planned else { continue };
            prop_assert_eq!(planned.len(), ranks.physical());
            prop_assert!(counts(&planned).iter().all(|&count| count >= least), "{planned:?}");
            for rank in 0..ranks.len() {
                let mut held = planned[ranks.slots(rank)].to_vec();
                held.sort_unstable();
                held.dedup();
                prop_assert_eq!(held.len(), ranks.slots(rank).len(), "an expert is twice on rank {}", rank);
            }
        }
    }
}
