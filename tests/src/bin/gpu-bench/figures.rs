//! Figures as lines of JSON on standard output, each with its stage and what it was found on.

use serde_json::{Map, Value, json};

/// Of one stage.
#[derive(Debug)]
pub struct Figures {
    stage: &'static str,
}

/// Whether the driver that this process meets is the emulated one, which has no kernels unless it is told of them so.
pub fn is_emulated() -> bool {
    std::env::var_os("CUDA_MODEL_KERNELS").is_some()
}

impl Figures {
    pub const fn of(stage: &'static str) -> Self {
        Self { stage }
    }

    /// Tells a figure: what was measured, then members of an object, in their order.
    pub fn tell(&self, what: &str, figures: &[(&str, Value)]) {
        let mut line = Map::new();
        // First, so that no line can be quoted without it.
        if is_emulated() {
            line.insert("on".to_owned(), json!("emulated"));
        }
        line.insert("stage".to_owned(), json!(self.stage));
        line.insert("what".to_owned(), json!(what));
        line.extend(figures.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        println!("{}", Value::Object(line));
    }
}

/// A number with four digits that count, which is more than any measurement has.
pub fn rounded(value: f64) -> Value {
    if value == 0.0 || !value.is_finite() {
        return json!(if value == 0.0 { Some(0.0) } else { None });
    }
    let scale = 10_f64.powi(3 - value.abs().log10().floor() as i32);
    json!((value * scale).round() / scale)
}

/// Part `of` the whole in per cent.
pub fn percent(part: f64, whole: f64) -> Value {
    rounded(100.0 * part / whole)
}

/// The smallest of sorted values that so much of them are not above.
pub fn quantile(sorted: &[f64], part: f64) -> f64 {
    let place = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(place.saturating_sub(1).min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_with_four_digits() {
        for (value, told) in [(12345.678, 12350.0), (0.000_123_456, 0.000_123_5), (-99.999, -100.0), (0.0, 0.0)] {
            assert_eq!(rounded(value), json!(told));
        }
        assert_eq!(rounded(f64::NAN), Value::Null);
        assert_eq!(percent(1.0, 3.0), json!(33.33));
    }

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|part| quantile(&values, part) as u32), [1, 50, 99, 100]);
        assert!(quantile(&[], 0.5).is_nan());
    }
}
