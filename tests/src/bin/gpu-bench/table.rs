//! Lines of all stages as one table: a part for each stage and kind of figure, with a column for each of its members.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

/// What a part is of: its columns, and its rows under them.
#[derive(Debug, Default)]
struct Part {
    head: String,
    columns: Vec<String>,
    rows: Vec<Map<String, Value>>,
}

pub fn print(lines: &Path) -> Result<()> {
    let text = std::fs::read_to_string(lines).with_context(|| format!("cannot read {}", lines.display()))?;
    for line in table(&text) {
        println!("{line}");
    }
    Ok(())
}

/// The lines of the table. A line that is no figure is left out: who was ended while it wrote leaves half of one.
fn table(text: &str) -> Vec<String> {
    let mut parts: Vec<Part> = Vec::new();
    for line in text.lines() {
        let Ok(Value::Object(mut figure)) = serde_json::from_str(line) else { continue };
        let emulated = figure.shift_remove("on").map(|on| format!("{}: ", cell(&on))).unwrap_or_default();
        let stage = figure.shift_remove("stage").map(|stage| cell(&stage)).unwrap_or_default();
        let columns: Vec<String> = figure.keys().cloned().collect();
        let head = format!("{emulated}{stage}");
        if let Some(part) = parts.iter_mut().find(|part| part.head == head && part.columns == columns) {
            part.rows.push(figure);
        } else {
            parts.push(Part { head, columns, rows: vec![figure] });
        }
    }
    parts.iter().flat_map(Part::lines).collect()
}

impl Part {
    fn lines(&self) -> Vec<String> {
        let row = |row: &Map<String, Value>| self.columns.iter().map(|name| cell(&row[name])).collect();
        let mut cells: Vec<Vec<String>> = vec![self.columns.clone()];
        cells.extend(self.rows.iter().map(row));
        let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(
                    |(place, (cell, &width))| {
                        if place == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                    },
                )
                .collect();
            format!("{} | {}", self.head, cells.join(" | "))
        };
        cells.iter().map(line).collect()
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_one_kind_stand_under_each_other_and_every_line_says_what_is_emulated() {
        let text = r#"{"on":"emulated","stage":"ceilings","what":"read","GB/s":4321.0}
{"on":"emulated","stage":"ceilings","what":"a copy","GB/s":12.5}
{"stage":"steps","what":"commit","slots":1,"us":null}
a word of a library
{"stage":"steps","wh"#;
        assert_eq!(
            table(text),
            [
                "emulated: ceilings | what   |   GB/s",
                "emulated: ceilings | read   | 4321.0",
                "emulated: ceilings | a copy |   12.5",
                "steps | what   | slots | us",
                "steps | commit |     1 |  -",
            ]
        );
    }
}
