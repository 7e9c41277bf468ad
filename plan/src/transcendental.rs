//! The exponential and the logarithm. Those of the standard library differ between systems in the last bit, and a plan
//! must not; these are built from operations that IEEE 754 defines exactly.

/// Beyond this the result is as large, or as small, as anything that is compared with it.
const LARGEST: f32 = 80.0;

/// `e^x` within 2 units in the last place for `|x| <= 80`, and `e^80` or `e^-80` beyond. The range is reduced to
/// `|r| <= ln 2 / 2`; the polynomial has the coefficients of Cephes' `expf`.
pub(crate) fn exp(x: f32) -> f32 {
    // Adding this rounds to an integer, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let x = if x > LARGEST { LARGEST } else { x };
    let x = if x > -LARGEST { x } else { -LARGEST };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let k = shifted - ROUND;
    let r = (x - k * 0.693_359_4) - k * -2.121_944_4e-4;
    let polynomial =
        ((((1.987_569_1e-4 * r + 1.398_2e-3) * r + 8.333_452e-3) * r + 4.166_579_6e-2) * r + 1.666_666_5e-1) * r + 0.5;
    let power = f32::from_bits((shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127)) << 23);
    (polynomial * r * r + r + 1.0) * power
}

/// `ln x` for a positive normal number, within 1e-6 of its size or of 1: from the series of `artanh`.
pub(crate) fn ln(x: f32) -> f32 {
    // The bits of sqrt(1/2): a mantissa from there to sqrt(2) keeps the series short.
    const START: u32 = 0x3f35_04f3;
    let exponent = x.to_bits().wrapping_sub(START) as i32 >> 23;
    let mantissa = f32::from_bits(x.to_bits().wrapping_sub((exponent as u32) << 23));
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let series = (((square / 9.0 + 1.0 / 7.0) * square + 0.2) * square + 1.0 / 3.0) * square + 1.0;
    exponent as f32 * std::f32::consts::LN_2 + 2.0 * s * series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_close_to_the_exact_values() {
        for step in -8000..=8000 {
            let x = step as f32 / 100.0;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) / exact - 1.0).abs() < 3e-7, "exp({x})");
            let y = exact as f32;
            assert!((f64::from(ln(y)) - f64::from(y).ln()).abs() < 1e-6 * f64::from(x).abs().max(1.0), "ln({y})");
        }
    }

    #[test]
    fn extreme_arguments_stay_finite() {
        assert_eq!(exp(f32::INFINITY).to_bits(), exp(80.0).to_bits());
        assert_eq!(exp(f32::NEG_INFINITY).to_bits(), exp(-80.0).to_bits());
        assert!(exp(80.0).is_finite() && exp(-80.0) > 0.0);
    }
}
