//! Text in columns, as kubectl prints it. Pure.

/// Columns that are as wide as their widest text so far and three spaces apart.
#[derive(Clone, Debug, Default)]
pub(crate) struct Columns {
    widths: Vec<usize>,
}

impl Columns {
    /// Rows as lines. Those of an earlier call set the least width of these.
    pub fn lines<T: AsRef<str>>(&mut self, rows: &[Vec<T>]) -> String {
        for row in rows {
            self.widths.resize(self.widths.len().max(row.len()), 0);
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.as_ref().chars().count());
            }
        }
        let line = |row: &Vec<T>| {
            let cells = row.iter().zip(&self.widths).map(|(cell, &width)| format!("{:width$}   ", cell.as_ref()));
            cells.collect::<String>().trim_end().to_owned() + "\n"
        };
        rows.iter().map(line).collect()
    }
}

/// Rows under a header; nothing where there is no row.
pub(crate) fn columns(header: &[&str], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut all = vec![header.iter().map(|&title| title.to_owned()).collect()];
    all.extend(rows);
    Columns::default().lines(&all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_later_rows_keep_to_them() {
        let mut columns = Columns::default();
        assert_eq!(columns.lines(&[vec!["NAME", "READY"], vec!["a", "True"]]), "NAME   READY\na      True\n");
        assert_eq!(columns.lines(&[vec!["b", "False"]]), "b      False\n");
        assert_eq!(columns.lines(&[vec!["longer", "x"]]), "longer   x\n");
    }

    #[test]
    fn no_rows_need_no_header() {
        assert_eq!(super::columns(&["A"], Vec::new()), "");
    }
}
