//! Regular expressions of tokenizers. They are written for Oniguruma, as transformers' tokenizers read them; here another
//! engine reads them, which takes some of what they say otherwise without a word. Those parts are written in its way, or
//! refused by name.

use serde_json::Value;

/// What Oniguruma takes as a character of a word: beside letters, marks and digits some numbers of Latin-1, and no joiner.
const WORD: &str = r"[[\w\u{B2}\u{B3}\u{B9}\u{BC}-\u{BE}]--[\u{200C}\u{200D}]]";
const NO_WORD: &str = r"[^[\w\u{B2}\u{B3}\u{B9}\u{BC}-\u{BE}]--[\u{200C}\u{200D}]]";

/// Where a line begins and ends: after a line feed that is not the last character, and before each or at the very end.
const LINE_BEGINS: &str = r"(?:\A|(?<=\n)(?!\z))";
const LINE_ENDS: &str = r"(?=\n|\z)";

/// Two letters that are one character in other cases, which Oniguruma matches where case does not matter.
const FOLDED: [&str; 6] = ["ss", "st", "ff", "fi", "fl", "\u{df}"];

/// Sets that Oniguruma takes as they are even where case does not matter.
const CASED: [&str; 7] = ["\\p{ll", "\\p{lu", "\\p{lt", "\\p{lower", "\\p{upper", "[:lower", "[:upper"];

/// Writes the expressions of a part of `tokenizer.json` in the way of the engine that is used here. Whether any changed.
///
/// # Errors
/// What they use that is not supported.
pub(super) fn translate_all(part: &mut Value) -> Result<bool, &'static str> {
    let mut changed = false;
    match part {
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(expression) if name == "Regex" => {
                        let translated = translated(expression)?;
                        changed |= translated != *expression;
                        *expression = translated;
                    }
                    value => changed |= translate_all(value)?,
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                changed |= translate_all(item)?;
            }
        }
        _ => {}
    }
    Ok(changed)
}

/// One expression in the way of the engine that is used here.
fn translated(expression: &str) -> Result<String, &'static str> {
    let mut reader = Reader { rest: expression, out: String::with_capacity(expression.len()), depth: 0 };
    while let Some(char) = reader.next() {
        match char {
            '\\' => reader.escape()?,
            '[' => reader.bracket()?,
            ']' => {
                reader.depth = reader.depth.saturating_sub(1);
                reader.out.push(']');
            }
            _ if reader.depth > 0 => reader.in_class(char)?,
            '^' => reader.out.push_str(LINE_BEGINS),
            '$' => reader.out.push_str(LINE_ENDS),
            '(' => reader.group()?,
            '{' => reader.count()?,
            other => reader.out.push(other),
        }
    }
    Ok(reader.out)
}

/// Where a group ends that is open where a text begins; at the end of the text if that is hard to see.
fn end_of_group(text: &str) -> usize {
    let end = text.find(')').unwrap_or(text.len());
    if text[..end].contains(['(', '[', '\\']) { text.len() } else { end }
}

struct Reader<'e> {
    rest: &'e str,
    out: String,
    /// Brackets that are open.
    depth: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let char = self.rest.chars().next()?;
        self.rest = &self.rest[char.len_utf8()..];
        Some(char)
    }

    fn escape(&mut self) -> Result<(), &'static str> {
        let inside = self.depth > 0;
        match self.next() {
            Some('w') => self.out.push_str(WORD),
            Some('W') => self.out.push_str(NO_WORD),
            Some('b') if !inside => {
                let boundary = format!("(?:(?<={WORD})(?!{WORD})|(?<!{WORD})(?={WORD}))");
                self.out.push_str(&boundary);
            }
            Some('B') if !inside => {
                let no_boundary = format!("(?:(?<={WORD})(?={WORD})|(?<!{WORD})(?!{WORD}))");
                self.out.push_str(&no_boundary);
            }
            Some('Z') if !inside => return Err(r"an expression with \Z"),
            Some('G') if !inside => return Err(r"an expression with \G"),
            Some('K') if !inside => return Err(r"an expression with \K"),
            char => {
                self.out.push('\\');
                self.out.extend(char);
            }
        }
        Ok(())
    }

    /// A set, or a named one within a set.
    fn bracket(&mut self) -> Result<(), &'static str> {
        if self.depth == 0 || !self.rest.starts_with(':') {
            self.depth += 1;
            self.out.push('[');
            if self.rest.starts_with('^') {
                self.rest = &self.rest[1..];
                self.out.push('^');
            }
            // What stands first is no end.
            if self.rest.starts_with(']') {
                self.rest = &self.rest[1..];
                self.out.push_str(r"\]");
            }
            return Ok(());
        }
        let Some((name, rest)) = self.rest[1..].split_once(":]") else { return Err("a set that begins with [:") };
        self.rest = rest;
        let (not, name) = name.strip_prefix('^').map_or(("", name), |name| ("^", name));
        let set = match name {
            "alpha" => r"\p{Alphabetic}",
            "alnum" => r"\p{Alphabetic}\p{Nd}",
            "ascii" => r"\x00-\x7F",
            "blank" => r"\p{Zs}\t",
            "cntrl" => r"\p{Cc}",
            "digit" => r"\p{Nd}",
            "lower" => r"\p{Lowercase}",
            "punct" => r"\p{P}\p{S}",
            "space" => r"\s",
            "upper" => r"\p{Uppercase}",
            "word" => r"[\w--[\u{200C}\u{200D}]]",
            "xdigit" => "0-9A-Fa-f",
            _ => return Err("a named set other than [:alpha:] and the like"),
        };
        self.out.extend(["[", not, set, "]"]);
        Ok(())
    }

    fn in_class(&mut self, char: char) -> Result<(), &'static str> {
        // They mean sets without, or with one of two, to the engine here, and characters to Oniguruma.
        if matches!(char, '-' | '~') && self.rest.starts_with(char) {
            return Err("a set with -- or ~~");
        }
        self.out.push(char);
        Ok(())
    }

    fn group(&mut self) -> Result<(), &'static str> {
        self.out.push('(');
        let Some(flags) = self.rest.strip_prefix('?') else { return Ok(()) };
        let (flags, after) = flags.split_at(flags.find(|char: char| !"imsx-".contains(char)).unwrap_or(flags.len()));
        let on = flags.split('-').next().unwrap_or_default();
        // The group, or all that follows.
        let within = if after.starts_with(':') { &after[..end_of_group(after)] } else { after }.to_lowercase();
        if flags.contains(['m', 's', 'x']) {
            return Err("an expression with the flags m, s or x");
        }
        if on.contains('i') && FOLDED.iter().any(|pair| within.contains(pair)) {
            return Err("an expression without case in which two letters may be one character");
        }
        if on.contains('i') && CASED.iter().any(|set| within.contains(set)) {
            return Err("an expression without case with a set of one case");
        }
        Ok(())
    }

    /// How often something is repeated.
    fn count(&mut self) -> Result<(), &'static str> {
        self.out.push('{');
        let Some((count, after)) = self.rest.split_once('}') else { return Ok(()) };
        if count.is_empty() || !count.chars().all(|char| char.is_ascii_digit() || char == ',') {
            return Ok(());
        }
        if count.starts_with(',') {
            return Err("an expression with {,n}");
        }
        if after.starts_with('+') || (after.starts_with('?') && !count.contains(',')) {
            return Err("an expression with {n}+ or {n}?");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_both_engines_read_alike_is_left_as_it_is() {
        for expression in [
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            r"[!-/:-~]?[A-Za-z]++|[\u4e00-\u9fff]{2,}?|(?<=a)b(?:c)(?>d)\d\x{e9}\p{Han}[a-z&&[^x]]",
            r"[\p{Lu}\p{Lt}]*[\p{Ll}\p{Lm}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[\p{Lu}]+(?i:'s)?first",
            " ?[^(\\s|[.,!?\u{2026}\u{3002}])]+",
        ] {
            assert_eq!(translated(expression).as_deref(), Ok(expression));
        }
    }

    #[test]
    fn what_means_something_else_is_written_otherwise_or_refused() {
        assert_eq!(translated(r"\w+|[^\w\s]"), Ok(format!(r"{WORD}+|[^{WORD}\s]")));
        assert_eq!(translated(r"^\^[$^]$"), Ok(format!(r"{LINE_BEGINS}\^[$^]{LINE_ENDS}")));
        assert_eq!(translated("[[:^digit:]x]").as_deref(), Ok(r"[[^\p{Nd}]x]"));
        assert_eq!(translated("[]a]").as_deref(), Ok(r"[\]a]"));
        for refused in [
            r"a\Z",
            r"\G",
            "[a--b]",
            "(?m).",
            "(?s:.)",
            "(?-m:.)",
            r"\d{1,3}+",
            r"\d{2}?",
            "x{,3}",
            "(?i)ss",
            "(?i:Fi)",
            r"(?i)THE|\p{Ll}",
            "[[:print:]]",
        ] {
            assert!(translated(refused).is_err(), "{refused}");
        }
    }
}
