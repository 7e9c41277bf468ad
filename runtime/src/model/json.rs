//! JSON as Python writes and reads it: with a byte order mark, with numbers that JSON does not have (`NaN`, `Infinity`,
//! and those that f64 does not hold), and with keys that are there twice, of which the first is told.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A document, and what is not plain about it.
#[derive(Debug)]
pub struct Document {
    /// What it says; a number that f64 does not hold is the text that Python writes for it, as in `"Infinity"`, and of a
    /// key that is there twice the last value counts.
    pub value: Value,
    /// The first key that is there twice.
    pub twice: Option<String>,
}

/// Reads a document.
///
/// # Errors
/// If it is no JSON, or is nested deeper than 128 times.
pub fn parse(json: &[u8]) -> Result<Document, serde_json::Error> {
    let json = without_mark(json);
    let json = finite(json);
    let twice = RefCell::new(None);
    let mut reader = serde_json::Deserializer::from_slice(&json);
    let value = Node { twice: &twice }.deserialize(&mut reader)?;
    reader.end()?;
    Ok(Document { value, twice: twice.into_inner() })
}

/// `json` without a byte order mark.
#[must_use]
pub fn without_mark(json: &[u8]) -> &[u8] {
    json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json)
}

/// `json` with a text in the place of each number that f64 does not hold.
fn finite(json: &[u8]) -> Cow<'_, [u8]> {
    let (mut written, mut kept, mut at) = (Vec::new(), 0, 0);
    while at < json.len() {
        match json[at] {
            b'"' => at = end_of_text(json, at),
            b'-' | b'0'..=b'9' | b'N' | b'I' => {
                let end = at + json[at..].iter().take_while(|&&byte| belongs_to_a_number(byte)).count();
                if let Some(name) = not_finite(&json[at..end]) {
                    written.extend_from_slice(&json[kept..at]);
                    written.extend_from_slice(name.as_bytes());
                    kept = end;
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    if kept == 0 {
        return Cow::Borrowed(json);
    }
    written.extend_from_slice(&json[kept..]);
    Cow::Owned(written)
}

/// Where the text that begins at `start` has ended.
fn end_of_text(json: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < json.len() && json[at] != b'"' {
        at += if json[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(json.len())
}

const fn belongs_to_a_number(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

fn not_finite(number: &[u8]) -> Option<&'static str> {
    match number {
        b"NaN" => return Some("\"NaN\""),
        b"Infinity" => return Some("\"Infinity\""),
        b"-Infinity" => return Some("\"-Infinity\""),
        _ => {}
    }
    // Only what JSON too would call a number: the rest is for the parser to refuse.
    if !number.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'e' | b'E' | b'+' | b'-' | b'.')) {
        return None;
    }
    let value: f64 = std::str::from_utf8(number).ok()?.parse().ok()?;
    match value {
        f64::INFINITY => Some("\"Infinity\""),
        f64::NEG_INFINITY => Some("\"-Infinity\""),
        _ => None,
    }
}

/// Reads a value.
struct Node<'a> {
    twice: &'a RefCell<Option<String>>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Node { twice: self.twice })? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(Node { twice: self.twice })?;
            if object.insert(key.clone(), value).is_some() {
                self.twice.borrow_mut().get_or_insert(key);
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn value(text: &str) -> Value {
        parse(text.as_bytes()).unwrap().value
    }

    #[test]
    fn numbers_that_only_python_writes_are_texts() {
        assert_eq!(value("NaN"), json!("NaN"));
        assert_eq!(
            value(r#"{"a": Infinity, "b": [-Infinity, 1e999, -1e999, 1.5], "c": "Infinity \" NaN", "NaN": -0.5e-3}"#),
            json!({"a": "Infinity", "b": ["-Infinity", "Infinity", "-Infinity", 1.5], "c": "Infinity \" NaN", "NaN": -0.5e-3})
        );
        let huge = format!("[{}, {}]", "9".repeat(400), "9".repeat(30));
        assert_eq!(value(&huge), json!(["Infinity", 1e30]));
        for text in [
            "nan",
            "Nan",
            "-NaN",
            "+Infinity",
            "[Infinit]",
            "infinity",
            "1e",
            "01",
            "\"\\",
            "\"a",
            "{\"a\": NaN",
            "--1",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn everything_else_is_read_as_by_serde_json() {
        let text = r#"{"a": [1, -2, 0.1, 1e-5, 18446744073709551615], "b": {"c": null, "d": true}, "e": "\u00e9\n\\"}"#;
        assert_eq!(value(text), serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(value(&format!("\u{feff}{text}")), value(text));
        assert!(parse(b"{} x").is_err());
        assert!(parse("[".repeat(100_000).as_bytes()).is_err());
        assert!(parse(&[0xff, 0xfe, 0]).is_err());
    }

    #[test]
    fn a_key_that_is_there_twice_is_told() {
        let document = parse(br#"{"a": {"b": 1, "b": 2}, "a": 3, "c": {"b": 1}}"#).unwrap();
        assert_eq!((document.twice.as_deref(), document.value["a"].clone()), (Some("b"), json!(3)));
        assert_eq!(parse(br#"{"a": {"b": 1}, "b": 2}"#).unwrap().twice, None);
    }
}
