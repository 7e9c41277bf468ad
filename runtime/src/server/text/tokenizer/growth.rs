//! How much longer a normalizer can make a text. The texts that a file may put in have no bound, and a few that are put in
//! after one another make gigabytes of a kilobyte.

use serde_json::Value;

/// How many times as long a text gets at most, as the normalizer that a part of `tokenizer.json` describes says. What
/// composes, decomposes or maps characters is left out: Unicode bounds it.
pub fn growth(normalizer: &Value) -> usize {
    let text = |value: &Value| value.as_str().map_or(0, str::len);
    match normalizer["type"].as_str() {
        Some("Sequence") => {
            let parts = normalizer["normalizers"].as_array().into_iter().flatten();
            parts.map(growth).fold(1, usize::saturating_mul)
        }
        Some("Replace") => {
            let content = text(&normalizer["content"]);
            match text(&normalizer["pattern"]["String"]) {
                // An expression can match nothing, before every byte.
                0 => content.saturating_add(1),
                replaced => content.div_ceil(replaced).max(1),
            }
        }
        Some("Prepend") => text(&normalizer["prepend"]).saturating_add(1),
        // Spaces around what is Chinese.
        Some("BertNormalizer") => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_grows_by_what_is_put_in_for_each_of_its_parts_one_after_another() {
        let replace =
            |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
        let string = |text: &str| json!({"String": text});
        let sequence = |normalizers: &[Value]| json!({"type": "Sequence", "normalizers": normalizers});
        let double = replace(string("a"), "aa");
        for (normalizer, times) in [
            (Value::Null, 1),
            (json!({"type": "NFC"}), 1),
            (replace(string(" "), "\u{2581}"), 3),
            (replace(string("``"), "\""), 1),
            (replace(json!({"Regex": " {2,}"}), " "), 2),
            (json!({"type": "Prepend", "prepend": "\u{2581}"}), 4),
            (sequence(&[json!({"type": "NFKC"}), replace(string("a"), &"b".repeat(100_000))]), 100_000),
            (sequence(&vec![double; 80]), usize::MAX),
        ] {
            assert_eq!(growth(&normalizer), times, "{normalizer}");
        }
    }
}
