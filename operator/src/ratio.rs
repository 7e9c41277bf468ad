//! Balance ratios as they are shown: rounded, and still when they only waver.

/// Smallest change that is shown: below it a ratio of one window differs from the next by chance.
const NOTICEABLE: f64 = 0.02;

/// A ratio with two digits. Rounded down: 1.00 is perfect and nothing less.
#[must_use]
pub fn text(ratio: f64) -> String {
    // 0.94 * 100 is 93.999...: a ratio that is exactly two digits stays what it is.
    format!("{:.2}", (ratio * 100.0 + 1e-9).floor() / 100.0)
}

/// What to show after `shown` when `measured` comes in: the old text unless the difference is noticeable.
#[must_use]
pub fn settle(shown: Option<&str>, measured: Option<f64>) -> Option<String> {
    let Some(measured) = measured else { return shown.map(str::to_owned) };
    match shown.and_then(|shown| shown.parse::<f64>().ok()) {
        Some(old) if (old - measured).abs() < NOTICEABLE => shown.map(str::to_owned),
        _ => Some(text(measured)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_that_wavers_is_shown_unchanged() {
        assert_eq!(settle(Some("0.95"), Some(0.961)), Some("0.95".to_owned()));
        assert_eq!(settle(Some("0.95"), Some(0.931)), Some("0.95".to_owned()));
    }

    #[test]
    fn a_ratio_that_changes_is_shown() {
        assert_eq!(settle(Some("0.72"), Some(0.951)), Some("0.95".to_owned()));
        assert_eq!(settle(None, Some(0.94)), Some("0.94".to_owned()));
    }

    #[test]
    fn a_ratio_that_is_not_perfect_is_never_shown_as_one() {
        assert_eq!(text(0.999), "0.99");
        assert_eq!(text(1.0), "1.00");
    }
}
