//! Rows of numbers, one for each window, and sums over them. A sum is eight running sums that are added up in one
//! order, so it vectorises and is the same, to the bit, on every machine.

/// Numbers that are worked on at once.
pub(super) const LANES: usize = 8;

/// Rows of equal width, a whole number of lanes; what is beyond the windows is 0 and weighs nothing.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    width: usize,
    values: Vec<f32>,
}

impl Rows {
    pub(super) fn zeros(rows: usize, windows: usize) -> Self {
        let width = windows.next_multiple_of(LANES);
        Self { width, values: vec![0.0; rows * width] }
    }

    pub(super) const fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    pub(super) const fn len(&self) -> usize {
        self.values.len() / self.width
    }

    pub(super) fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.width..][..self.width]
    }

    pub(super) fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.values[row * self.width..][..self.width]
    }

    /// The rows in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.width)
    }
}

/// The larger of two numbers, the second if one is none.
pub(super) fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

pub(super) fn sum(a: &[f32]) -> f32 {
    let mut running = [0.0; LANES];
    for a in lanes(a) {
        for lane in 0..LANES {
            running[lane] += a[lane];
        }
    }
    total(running)
}

pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut running = [0.0; LANES];
    for (a, b) in lanes(a).iter().zip(lanes(b)) {
        for lane in 0..LANES {
            running[lane] += a[lane] * b[lane];
        }
    }
    total(running)
}

pub(super) fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    let mut running = [0.0; LANES];
    for (a, b) in lanes(a).iter().zip(lanes(b)) {
        for lane in 0..LANES {
            let difference = a[lane] - b[lane];
            running[lane] += difference * difference;
        }
    }
    total(running)
}

pub(super) fn dot3(a: &[f32], b: &[f32], c: &[f32]) -> f32 {
    let mut running = [0.0; LANES];
    for ((a, b), c) in lanes(a).iter().zip(lanes(b)).zip(lanes(c)) {
        for lane in 0..LANES {
            running[lane] += a[lane] * b[lane] * c[lane];
        }
    }
    total(running)
}

/// The row in lanes.
pub(super) fn lanes(row: &[f32]) -> &[[f32; LANES]] {
    row.as_chunks().0
}

/// The sum of running sums, one after the other: with a tree here, compilers vectorise for the tree and not for the rows.
pub(super) fn total(running: [f32; LANES]) -> f32 {
    running.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_has_one_order() {
        // 2^24 + 1 is rounded away in `f32`, so another order of these terms has another sum.
        let mut row = vec![0.0; 16];
        (row[0], row[1], row[8], row[9]) = (16_777_216.0, 1.0, 1.0, 1.0);
        assert_eq!(sum(&row).to_bits(), 16_777_218.0_f32.to_bits());
        assert_eq!(dot(&row, &[1.0; 16]).to_bits(), sum(&row).to_bits());
        assert_eq!(dot3(&row, &[2.0; 16], &[0.5; 16]).to_bits(), sum(&row).to_bits());
    }

    #[test]
    fn rows_are_padded_with_nothing() {
        let mut rows = Rows::zeros(2, 3);
        rows.row_mut(1)[..3].copy_from_slice(&[1.0, 2.0, 3.0]);
        assert_eq!((rows.width(), sum(rows.row(0)), sum(rows.row(1))), (8, 0.0, 6.0));
    }
}
