//! Numbers as JSON writes them, judged by value: 16, 16.0 and 1.6e1 are one number, however it is written.

/// What a JSON text is as a whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whole {
    /// This one.
    Value(i64),
    /// A whole number beyond those of 64 bits.
    Beyond,
    /// Another number, or no number at all.
    No,
}

/// Reads a JSON text. Takes as long as the text is, whatever its exponent says.
pub fn whole(text: &str) -> Whole {
    if !is_number(text) {
        return Whole::No;
    }
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [before, after].concat();
    let significant = digits.trim_end_matches('0');
    let zeros = (digits.len() - significant.len()) as i128;
    let significant = significant.trim_start_matches('0');
    if significant.is_empty() {
        return Whole::Value(0);
    }
    // An exponent that is no i64 has more digits than any text that a server reads could balance with its own.
    let exponent = exponent
        .parse::<i64>()
        .map_or_else(|_| if exponent.starts_with('-') { i128::MIN / 2 } else { i128::MAX / 2 }, i128::from);
    let power = exponent - after.len() as i128 + zeros;
    if power < 0 {
        return Whole::No;
    }
    // No number of 64 bits has more digits than this.
    if power + significant.len() as i128 > 19 {
        return Whole::Beyond;
    }
    let value: Option<i128> = significant.parse().ok().map(|value: i128| value * 10_i128.pow(power as u32));
    let value = value.and_then(|value| i64::try_from(if negative { -value } else { value }).ok());
    value.map_or(Whole::Beyond, Whole::Value)
}

/// Reads a JSON text as the nearest number of 64 bits; infinity where it is beyond them, `None` if it is no number.
pub fn real(text: &str) -> Option<f64> {
    is_number(text).then(|| text.parse().ok()).flatten()
}

/// Whether a JSON text, which is valid, is a number.
fn is_number(text: &str) -> bool {
    text.starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_whole_by_value() {
        for (text, value) in [
            ("16", 16),
            ("16.0", 16),
            ("1e1", 10),
            ("1.6E+1", 16),
            ("160e-1", 16),
            ("0.16e2", 16),
            ("-0", 0),
            ("-0.0", 0),
            ("0e999999999999999999999", 0),
            ("0.000e-7", 0),
            ("-2", -2),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
            ("9223372036854775807.000", i64::MAX),
            ("1e18", 1_000_000_000_000_000_000),
        ] {
            assert_eq!(whole(text), Whole::Value(value), "{text}");
        }
        for text in
            ["9223372036854775808", "1e19", "1e999999999999999999999", "-1e400", "123456789012345678901234567890"]
        {
            assert_eq!(whole(text), Whole::Beyond, "{text}");
        }
        for text in ["1.5", "1e-1", "15e-1", "0.1", "1e-999999999999999999999", "true", "\"16\"", "null", "[16]", "{}"]
        {
            assert_eq!(whole(text), Whole::No, "{text}");
        }
    }

    #[test]
    fn other_numbers_are_the_nearest_of_64_bits() {
        assert_eq!(real("0.5"), Some(0.5));
        assert_eq!(real("5e-1"), Some(0.5));
        assert_eq!(real("1e400"), Some(f64::INFINITY));
        assert_eq!(real("1e-400"), Some(0.0));
        assert_eq!(real("true"), None);
        assert_eq!(real("\"1\""), None);
    }
}
