//! The assignment of rows to columns with the greatest sum.

/// The greatest sum of `gains[row][column]`, `[n][n]`, with each row and column taken once. The Hungarian method with
/// potentials, in cubic time.
pub fn greatest_sum(gains: &[Vec<i64>]) -> i64 {
    let n = gains.len();
    // Row and column 0 stand for none; costs are the gains' negatives.
    let (mut of_row, mut of_column) = (vec![0_i64; n + 1], vec![0_i64; n + 1]);
    let mut row_of = vec![0_usize; n + 1];
    for row in 1..=n {
        let (mut slack, mut from, mut done) = (vec![i64::MAX; n + 1], vec![0_usize; n + 1], vec![false; n + 1]);
        let mut column = 0;
        row_of[0] = row;
        while row_of[column] != 0 {
            done[column] = true;
            let (current, mut least, mut next) = (row_of[column], i64::MAX, 0);
            for other in (1..=n).filter(|&other| !done[other]) {
                let reduced = -gains[current - 1][other - 1] - of_row[current] - of_column[other];
                if reduced < slack[other] {
                    (slack[other], from[other]) = (reduced, column);
                }
                if slack[other] < least {
                    (least, next) = (slack[other], other);
                }
            }
            for other in 0..=n {
                if done[other] {
                    of_row[row_of[other]] += least;
                    of_column[other] -= least;
                } else if slack[other] != i64::MAX {
                    slack[other] -= least;
                }
            }
            column = next;
        }
        while column != 0 {
            row_of[column] = row_of[from[column]];
            column = from[column];
        }
    }
    (1..=n).map(|column| gains[row_of[column] - 1][column - 1]).sum()
}
