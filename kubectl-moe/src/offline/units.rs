//! Figures as people read them.

/// 1234567 as 1.23 MB.
pub(super) fn bytes(bytes: f64) -> String {
    let (scaled, unit) = scale(bytes);
    let decimals = if unit == "B" || scaled >= 100.0 {
        0
    } else if scaled >= 10.0 {
        1
    } else {
        2
    };
    format!("{scaled:.decimals$} {unit}")
}

/// A number of bytes in the largest unit of which it has at least one.
pub(super) fn scale(bytes: f64) -> (f64, &'static str) {
    let units = [("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    let fitting = units.into_iter().find(|&(_, size)| bytes >= size);
    fitting.map_or((bytes, "B"), |(unit, size)| (bytes / size, unit))
}

pub(super) fn or_unknown(number: Option<f64>) -> String {
    number.map_or_else(|| "-".to_owned(), bytes)
}

/// 0.0123 as 1.23 %.
pub(super) fn percent(fraction: f64) -> String {
    format!("{:.2} %", fraction * 100.0)
}

/// 1 window, 2 windows.
pub(super) fn counted(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_three_digits_and_a_unit() {
        let shown = [0.0, 999.0, 1234.0, 44_040_192.0, 650.4e9, 1e13].map(bytes);
        assert_eq!(shown, ["0 B", "999 B", "1.23 kB", "44.0 MB", "650 GB", "10.0 TB"]);
        assert_eq!((or_unknown(None), percent(0.012_34)), ("-".to_owned(), "1.23 %".to_owned()));
        assert_eq!([counted(1, "node"), counted(0, "node")], ["1 node", "0 nodes"]);
    }
}
