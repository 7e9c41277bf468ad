//! Figures and numbers as people read them. Pure.

pub(crate) use plan::words::counted;
use plan::words::several;

/// 1234567 as 1.23 MB.
pub(crate) fn bytes(bytes: f64) -> String {
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
pub(crate) fn scale(bytes: f64) -> (f64, &'static str) {
    let units = [("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    let fitting = units.into_iter().find(|&(_, size)| bytes >= size);
    fitting.map_or((bytes, "B"), |(unit, size)| (bytes / size, unit))
}

pub(crate) fn or_unknown(number: Option<f64>) -> String {
    number.map_or_else(|| "-".to_owned(), bytes)
}

/// 0.0123 as 1.23 %.
pub(crate) fn percent(fraction: f64) -> String {
    format!("{:.2} %", fraction * 100.0)
}

/// 0.0123 s as 12.3 ms.
pub(crate) fn seconds(seconds: f64) -> String {
    if seconds < 0.0 {
        return format!("-{}", self::seconds(-seconds));
    }
    match seconds {
        ..0.001 => format!("{:.0} us", seconds * 1e6),
        ..0.1 => format!("{:.1} ms", seconds * 1e3),
        ..1.0 => format!("{:.0} ms", seconds * 1e3),
        ..100.0 => format!("{seconds:.2} s"),
        _ => format!("{seconds:.0} s"),
    }
}

/// 1 copy, 1 to 2 copies.
pub(crate) fn range(fewest: usize, most: usize, what: &str) -> String {
    if fewest == most { counted(most, what) } else { format!("{fewest} to {}", counted(most, what)) }
}

/// `layer 3`, `layers 0 to 2 and 5`: runs of numbers are told by their ends.
pub(crate) fn numbered(numbers: &[usize], what: &str) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let told = |&(first, last): &(usize, usize)| match last - first {
        0 => first.to_string(),
        1 => format!("{first} and {last}"),
        _ => format!("{first} to {last}"),
    };
    let what = if numbers.len() == 1 { what.to_owned() } else { several(what) };
    format!("{what} {}", listed(&runs.iter().map(told).collect::<Vec<_>>()))
}

/// `a`, `a and b`, `a, b and c`.
pub(crate) fn listed(items: &[String]) -> String {
    match items {
        [] => "none".to_owned(),
        [one] => one.clone(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_three_digits_and_a_unit() {
        let shown = [0.0, 999.0, 1234.0, 44_040_192.0, 650.4e9, 1e13].map(bytes);
        assert_eq!(shown, ["0 B", "999 B", "1.23 kB", "44.0 MB", "650 GB", "10.0 TB"]);
        assert_eq!((or_unknown(None), percent(0.012_34)), ("-".to_owned(), "1.23 %".to_owned()));
    }

    #[test]
    fn a_range_has_the_number_of_its_end() {
        assert_eq!(
            [range(1, 1, "copy"), range(2, 2, "copy"), range(1, 2, "copy")],
            ["1 copy", "2 copies", "1 to 2 copies"]
        );
    }

    #[test]
    fn numbers_are_told_by_their_runs() {
        let told = |numbers: &[usize]| numbered(numbers, "layer");
        assert_eq!(
            [told(&[3]), told(&[0, 1, 2, 5]), told(&[1, 2])],
            ["layer 3", "layers 0 to 2 and 5", "layers 1 and 2"]
        );
        assert_eq!(told(&[0, 2, 4]), "layers 0, 2 and 4");
        assert_eq!(listed(&[]), "none");
    }
}
