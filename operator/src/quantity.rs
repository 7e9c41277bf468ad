//! Whole numbers written as Kubernetes quantities, as counts of devices are.

/// The value, if it is a whole number: `8`, `1k`, `2Ki`.
#[must_use]
pub fn whole(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" => 1,
        "k" => 1_000,
        "Ki" => 1_024,
        "M" => 1_000_000,
        "Mi" => 1_048_576,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::whole;

    #[test]
    fn counts_are_read_and_fractions_are_not() {
        assert_eq!(whole("8"), Some(8));
        assert_eq!(whole("1k"), Some(1000));
        assert_eq!(whole("500m"), None);
        assert_eq!(whole("1.5"), None);
    }
}
