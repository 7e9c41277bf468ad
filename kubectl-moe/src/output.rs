//! How results are printed: kubectl's `-o`, with the same words everywhere.

use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;

/// How a result is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    #[default]
    Table,
    /// For people, with more columns
    Wide,
    /// For programs
    Json,
    /// For programs and people
    Yaml,
    /// Names only
    Name,
}

impl Output {
    /// Whether a table has all that is known.
    pub fn is_wide(self) -> bool {
        self == Self::Wide
    }

    /// A document in this form; `table` makes it text for people, `name` its name.
    pub fn print<T: Serialize>(
        self,
        document: &T,
        table: impl FnOnce(&T) -> String,
        name: impl FnOnce(&T) -> String,
    ) -> String {
        match self {
            Self::Table | Self::Wide => table(document),
            Self::Json => json(document),
            Self::Yaml => yaml(document),
            Self::Name => name(document) + "\n",
        }
    }
}

/// A result as indented JSON.
pub(crate) fn json<T: Serialize>(document: &T) -> String {
    with_rows(&serde_json::to_string_pretty(document).expect("a result is plain data")) + "\n"
}

/// A result as YAML.
pub(crate) fn yaml<T: Serialize>(document: &T) -> String {
    // By way of JSON, so that both have the same names, numbers and order.
    let value: Value = serde_json::to_value(document).expect("a result is plain data");
    serde_saphyr::to_string(&value).expect("a result is plain data")
}

/// Indented JSON with each list of numbers on one line. A line that ends with a bracket is in no text: texts have no lines.
fn with_rows(json: &str) -> String {
    let mut parts = json.split("[\n");
    let mut rows = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let of_numbers =
            |list: &&str| list.chars().all(|one| one.is_ascii_digit() || one.is_whitespace() || one == ',');
        match part.split_once(']').filter(|(list, _)| of_numbers(list)) {
            Some((list, rest)) => {
                let numbers: Vec<&str> = list.split(',').map(str::trim).collect();
                rows.extend(["[", &numbers.join(", "), "]", rest]);
            }
            None => rows.extend(["[\n", part]),
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_of_numbers_are_on_one_line_and_nothing_else_changes() {
        let value = json!({"a": [[1, 2], [3]], "text": "x: [\n 1,\n 2]", "empty": [], "mixed": [{"b": [4, 5]}]});
        let rows = with_rows(&serde_json::to_string_pretty(&value).unwrap());
        assert_eq!(serde_json::from_str::<Value>(&rows).unwrap(), value);
        assert!(rows.contains("[1, 2]") && rows.contains("\"b\": [4, 5]"), "{rows}");
    }

    #[test]
    fn yaml_says_what_json_says() {
        let value = json!({
            "policy": "off", "version": "1.0", "none": null, "list": [[1, 2]], "text": "a: b\n- c # d", "empty": "", "ratio": 0.5,
            "bytes": u64::MAX, "small": 1e-9, "date": "2026-01-01", "number": "12", "truth": "yes", "nested": [{"a": []}],
        });
        assert_eq!(serde_saphyr::from_str::<Value>(&yaml(&value)).unwrap(), value, "{}", yaml(&value));
    }
}
