//! The angles by which positions turn queries and keys.

use super::config::Rotary;

/// Each element of `[positions, dimension]`: cosines, then sines, of `position / base^(2i / dimension)`. The exponent, the power, its
/// inverse and the angle are each rounded to f32, as in the reference implementation: at position 30,000 one rounding
/// less turns a head by several thousandths.
pub(super) fn angles(rotary: Rotary) -> impl Fn(usize) -> f32 {
    let Rotary { base, dimension } = rotary;
    let frequency = |index: usize| {
        let exponent = (2 * index) as f32 / dimension as f32;
        1.0 / f64::from(base as f32).powf(f64::from(exponent)) as f32
    };
    let half = dimension / 2;
    let frequencies: Vec<f32> = (0..half).map(frequency).collect();
    move |element| {
        let (position, place) = (element / dimension, element % dimension);
        let angle = f64::from(position as f32 * frequencies[place % half]);
        if place < half { angle.cos() as f32 } else { angle.sin() as f32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn angles_far_out_are_those_of_the_reference() {
        // torch 2.15: a = 40000.0 * (1.0 / (1e6 ** (torch.arange(0, 16, 2, dtype=torch.float) / 16))); a.cos(), a.sin()
        let expected = [
            0.322_587_46,
            0.851_525_66,
            -0.407_842_4,
            0.307_580_02,
            -0.666_938_07,
            0.674_925_6,
            0.301_137_6,
            0.974_808_3,
            0.946_539_64,
            0.524_312_9,
            0.913_052_3,
            -0.951_522_23,
            0.745_113_13,
            0.737_885_7,
            0.953_580_74,
            0.223_044_5_f32,
        ];
        let angle = angles(Rotary { base: 1e6, dimension: 16 });
        for (place, expected) in expected.iter().enumerate() {
            let found = angle(40_000 * 16 + place);
            assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
        }
    }
}
