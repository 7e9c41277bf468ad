//! Fractions of an expert's tokens as whole parts.

use crate::map::WHOLE;

/// Rounds fractions one expert after the other.
#[derive(Debug, Default)]
pub(crate) struct Rounding {
    remainders: Vec<(f64, usize)>,
}

impl Rounding {
    /// Whole parts that add up for the slots of an expert, given with the fraction that each takes: by largest remainder, the
    /// first of equals.
    pub(crate) fn parts(&mut self, slots: impl Iterator<Item = (usize, f64)>, parts: &mut [u32]) {
        let mut left = WHOLE;
        self.remainders.clear();
        for (slot, fraction) in slots {
            let exact = fraction * f64::from(WHOLE);
            let whole = (exact as u32).min(left);
            parts[slot] = whole;
            left -= whole;
            self.remainders.push((exact - f64::from(whole), slot));
        }
        if left > 0 {
            self.remainders.sort_by(|a, b| b.0.total_cmp(&a.0));
        }
        for &(_, slot) in self.remainders.iter().cycle().take(left as usize) {
            parts[slot] += 1;
        }
    }
}
