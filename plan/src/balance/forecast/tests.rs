use super::*;
use crate::tuning::Tuning;

fn forecast(windows: &[ExpertLoad]) -> Forecast {
    Forecast::new(windows, &Tuning::PRODUCT)
}

/// A window of one layer.
fn window(row: &[u64]) -> ExpertLoad {
    ExpertLoad::from_rows(&[row.to_vec()]).unwrap()
}

/// The part of the first expert of two that is forecast from those of the windows, each of so many tokens.
fn part(parts: &[f64], tokens: f64) -> f64 {
    let of = |part: &f64| window(&[(part * tokens) as u64, ((1.0 - part) * tokens) as u64]);
    let forecast = forecast(&parts.iter().map(of).collect::<Vec<_>>());
    let layer = forecast.layer(LayerId(0));
    layer[0] / layer.iter().sum::<f64>()
}

fn assert_close(found: f64, expected: f64, within: f64) {
    assert!((found - expected).abs() <= within, "{found} instead of {expected}");
}

/// What windows count in which every one of 50 experts gets a token with the part of `popularity`, which is together 1.
fn counted(popularity: &[f64], tokens: usize, random: &mut u64) -> ExpertLoad {
    let mut row = vec![0; popularity.len()];
    for _ in 0..tokens {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut left = (*random >> 11) as f64 / (1_u64 << 53) as f64;
        let expert = popularity.iter().position(|part| {
            left -= part;
            left < 0.0
        });
        row[expert.unwrap_or(0)] += 1;
    }
    window(&row)
}

fn popularity() -> Vec<f64> {
    let weights: Vec<f64> = (1..=50).map(f64::from).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

#[test]
fn windows_that_differ_by_no_more_than_counting_count_alike() {
    let windows = [window(&[50, 30, 20]), window(&[52, 29, 19]), window(&[48, 31, 21]), window(&[46, 34, 20])];
    let forecast = forecast(&windows);
    for (found, expected) in forecast.layer(LayerId(0)).iter().zip([196.0, 124.0, 80.0]) {
        assert_close(*found, expected, 1e-9);
    }
}

#[test]
fn the_forecast_has_the_tokens_of_all_windows_together() {
    let windows = [window(&[900, 100]), window(&[10, 90]), window(&[50, 4950])];
    assert_close(forecast(&windows).layer(LayerId(0)).iter().sum(), 6100.0, 1e-6);
}

#[test]
fn a_window_counts_by_its_tokens_where_counting_is_all_the_noise() {
    let forecast = forecast(&[window(&[50, 50]), window(&[162, 138])]);
    assert_close(forecast.layer(LayerId(0))[0], 212.0, 1e-9);
}

#[test]
fn after_an_abrupt_change_only_what_followed_counts() {
    let before = [0.9, 0.9, 0.9, 0.9, 0.9];
    assert_close(part(&[&before[..], &[0.2, 0.2, 0.2]].concat(), 1e5), 0.2, 1e-3);
    assert_close(part(&[&before[..], &[0.2]].concat(), 1e5), 0.2, 1e-3);
    // Of what followed all windows count alike.
    assert_close(part(&[&before[..], &[0.2, 0.202, 0.204]].concat(), 1e5), 0.202, 1e-3);
}

#[test]
fn the_further_popularity_drifts_the_more_the_last_windows_count() {
    let drift = |step: f64| {
        let parts: Vec<f64> = (0..6).map(|window| 0.2 + step * f64::from(window)).collect();
        // Where between the first window and the last the forecast is.
        (part(&parts, 1e4) - parts[0]) / (parts[5] - parts[0])
    };
    let [slow, faster, fast] = [0.001, 0.02, 0.1].map(drift);
    assert!((0.45..0.65).contains(&slow), "{slow}");
    assert!(slow + 0.1 < faster && faster < fast && fast > 0.95, "{slow} {faster} {fast}");
}

#[test]
fn the_later_of_two_windows_never_counts_less_while_popularity_walks() {
    // In each window another expert becomes popular and stays, so the next expert's part lacks what the window counts.
    let of = |window_index: u64| {
        window(&(0..7).map(|expert| u64::from(expert <= window_index) * 100 + 500).collect::<Vec<_>>())
    };
    let forecast = forecast(&(0..6).map(of).collect::<Vec<_>>());
    let parts: Vec<f64> = forecast.layer(LayerId(0)).to_vec();
    let counts: Vec<f64> = parts.windows(2).map(|pair| pair[0] - pair[1]).collect();
    assert!(counts.windows(2).all(|pair| pair[0] <= pair[1] * (1.0 + 1e-9)), "{counts:?}");
    assert!(counts[5] > 1.5 * counts[0], "{counts:?}");
}

#[test]
fn windows_without_load_are_as_if_they_were_not_there() {
    let windows = [window(&[600, 400]), window(&[500, 500]), window(&[650, 350])];
    let expected = forecast(&windows);
    for place in 0..=windows.len() {
        let mut with_idle = windows.to_vec();
        with_idle.insert(place, ExpertLoad::zero(1, 2));
        let found = forecast(&with_idle);
        assert_eq!(found.layer(LayerId(0)), expected.layer(LayerId(0)), "place {place}");
        assert_eq!(found.noise_of_ranks(4, 50).to_bits(), expected.noise_of_ranks(4, 50).to_bits(), "place {place}");
    }
    let idle = forecast(&[ExpertLoad::zero(1, 2), ExpertLoad::zero(1, 2)]);
    assert_eq!(idle.layer(LayerId(0)), [0.0, 0.0]);
}

#[test]
fn a_layer_that_had_no_load_lately_is_forecast_from_the_windows_in_which_it_had() {
    let of = |rows: [[u64; 2]; 2]| ExpertLoad::from_rows(&rows.map(|row| row.to_vec())).unwrap();
    // All traffic changes at once, and by the most that can be counted: the first window counts nothing for layer 0.
    let windows = [of([[1, 0], [3, 1]]), of([[0, u64::MAX], [0, 0]]), of([[0, u64::MAX], [0, 0]])];
    assert_eq!(forecast(&windows).layer(LayerId(1)), [3.0, 1.0]);
}

#[test]
fn counting_alone_spreads_by_a_token_for_the_next_window_and_a_part_for_the_forecast() {
    let (popularity, mut random) = (popularity(), 1);
    for (tokens, windows) in [(1_000, 9), (4_000, 9), (4_000, 3)] {
        let forecast_from = f64::from(windows);
        let windows: Vec<ExpertLoad> = (0..windows).map(|_| counted(&popularity, tokens, &mut random)).collect();
        let noise = forecast(&windows).noise_of_ranks(8, 50);
        let expected = f64::sqrt((1.0 + 1.0 / forecast_from) / tokens as f64 * 8.0);
        assert!((0.95..1.3).contains(&(noise / expected)), "{noise} instead of {expected}");
    }
}

#[test]
fn loads_that_come_and_go_spread_by_more_than_counting() {
    let (mut random, tokens) = (1, 4_000);
    let bursty = |window: usize| {
        let mut popularity = popularity();
        popularity[window * 7 % 50] += 0.5;
        popularity.iter().map(|part| part / 1.5).collect::<Vec<f64>>()
    };
    let windows: Vec<ExpertLoad> = (0..9).map(|window| counted(&bursty(window), tokens, &mut random)).collect();
    let (noise, counting) = (forecast(&windows).noise_of_ranks(8, 50), f64::sqrt(2.0 / tokens as f64 * 8.0));
    assert!(noise > 5.0 * counting, "{noise} against {counting}");
}
