//! From a template's source to tokens, with the whitespace rules of Python's Jinja under `trim_blocks` and
//! `lstrip_blocks`, as transformers sets them.

use super::JinjaError;

/// A piece of the source.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// Text between tags.
    Data(String),
    /// `{{`
    VariableBegin,
    /// `}}`
    VariableEnd,
    /// `{%`
    BlockBegin,
    /// `%}`
    BlockEnd,
    /// An identifier or a keyword.
    Name(String),
    /// A string, unescaped.
    Text(String),
    /// A whole number.
    Integer(i128),
    /// A number with a point or an exponent.
    Float(f64),
    /// An operator or a bracket.
    Operator(&'static str),
}

/// Longer ones first.
const OPERATORS: [&str; 27] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".",
    ":", "|", ",", ";", "!",
];

/// What begins in the source where text ends.
#[derive(Clone, Copy, PartialEq)]
enum Tag {
    Variable,
    Block,
    Comment,
}

/// A sign beside a delimiter.
#[derive(Clone, Copy, PartialEq)]
enum Sign {
    None,
    Minus,
    Plus,
}

pub(super) struct Lexer<'s> {
    source: &'s str,
    at: usize,
    line: usize,
    tokens: Vec<(Token, usize)>,
    /// What was read last ended a line.
    line_starting: bool,
}

/// The tokens of a source, each with its line.
pub(super) fn tokens(source: &str) -> Result<Vec<(Token, usize)>, JinjaError> {
    let normal = source.replace("\r\n", "\n").replace('\r', "\n");
    let normal = normal.strip_suffix('\n').unwrap_or(&normal);
    let mut lexer = Lexer { source: normal, at: 0, line: 1, tokens: Vec::new(), line_starting: true };
    lexer.run()?;
    Ok(lexer.tokens)
}

impl Lexer<'_> {
    fn run(&mut self) -> Result<(), JinjaError> {
        while let Some((length, tag)) = self.next_tag() {
            let text = &self.source[self.at..self.at + length];
            let start = self.at + length;
            if let Some((sign, end)) = self.raw_begin(start).filter(|_| tag == Tag::Block) {
                let kept = self.kept(text, tag, sign);
                self.push_data(text, kept);
                self.advance_to(end);
                self.raw()?;
                continue;
            }
            let sign = sign_at(&self.source[start + 2..]);
            let kept = self.kept(text, tag, sign);
            self.push_data(text, kept);
            self.advance_to(start + 2 + usize::from(sign != Sign::None));
            match tag {
                Tag::Comment => self.comment()?,
                Tag::Variable => self.inside(Token::VariableBegin, Token::VariableEnd)?,
                Tag::Block => self.inside(Token::BlockBegin, Token::BlockEnd)?,
            }
        }
        let rest = self.source[self.at..].to_owned();
        self.push(Token::Data(rest));
        Ok(())
    }

    /// Bytes of text before the next tag.
    fn next_tag(&self) -> Option<(usize, Tag)> {
        let rest = &self.source[self.at..];
        rest.match_indices('{').find_map(|(index, _)| match rest.as_bytes().get(index + 1)? {
            b'{' => Some((index, Tag::Variable)),
            b'%' => Some((index, Tag::Block)),
            b'#' => Some((index, Tag::Comment)),
            _ => None,
        })
    }

    /// What is left of the text before a tag.
    fn kept<'t>(&self, text: &'t str, tag: Tag, sign: Sign) -> &'t str {
        if sign == Sign::Minus {
            return text.trim_end_matches(is_space);
        }
        if sign == Sign::Plus || tag == Tag::Variable {
            return text;
        }
        let line = text.rfind('\n').map_or(0, |index| index + 1);
        let begins_line = line > 0 || self.line_starting;
        if begins_line && text[line..].chars().all(is_space) { &text[..line] } else { text }
    }

    fn push_data(&mut self, text: &str, kept: &str) {
        self.push(Token::Data(kept.to_owned()));
        self.advance_to(self.at + text.len());
    }

    fn push(&mut self, token: Token) {
        if token != Token::Data(String::new()) {
            self.tokens.push((token, self.line));
        }
    }

    fn advance_to(&mut self, end: usize) {
        let read = &self.source[self.at..end];
        self.line += read.matches('\n').count();
        if let Some(last) = read.chars().next_back() {
            self.line_starting = last == '\n';
        }
        self.at = end;
    }

    /// The end of `{% raw %}` at `start`, if it is one.
    fn raw_begin(&self, start: usize) -> Option<(Sign, usize)> {
        let rest = self.source[start..].strip_prefix("{%")?;
        let sign = sign_at(rest);
        let rest = &rest[usize::from(sign != Sign::None)..];
        let rest = rest.trim_start_matches(is_space).strip_prefix("raw")?.trim_start_matches(is_space);
        let rest = match rest.strip_prefix("-%}") {
            Some(rest) => rest.trim_start_matches(is_space),
            None => rest.strip_prefix("%}")?,
        };
        Some((sign, self.source.len() - rest.len()))
    }

    fn raw(&mut self) -> Result<(), JinjaError> {
        let rest = &self.source[self.at..];
        let found = rest.match_indices("{%").find_map(|(index, _)| {
            let after = &rest[index + 2..];
            let sign = sign_at(after);
            let after = after[usize::from(sign != Sign::None)..].trim_start_matches(is_space);
            let after = after.strip_prefix("endraw")?.trim_start_matches(is_space);
            Some((index, sign, block_end(after)?))
        });
        let Some((length, sign, after)) = found else { return self.unended("a raw block has no end") };
        let text = &rest[..length];
        let end = self.source.len() - after.len();
        let kept = self.kept(text, Tag::Block, sign);
        self.push_data(text, kept);
        self.advance_to(end);
        Ok(())
    }

    fn comment(&mut self) -> Result<(), JinjaError> {
        let rest = &self.source[self.at..];
        let Some(length) = rest.find("#}") else { return self.unended("a comment has no end") };
        let after = &rest[length + 2..];
        let after = match rest.as_bytes().get(length.wrapping_sub(1)) {
            Some(b'-') if length > 0 => after.trim_start_matches(is_space),
            Some(b'+') if length > 0 => after,
            _ => after.strip_prefix('\n').unwrap_or(after),
        };
        self.advance_to(self.source.len() - after.len());
        Ok(())
    }

    /// The tokens of a tag up to its end.
    fn inside(&mut self, begin: Token, end: Token) -> Result<(), JinjaError> {
        let is_block = end == Token::BlockEnd;
        self.push(begin);
        let mut open: Vec<&str> = Vec::new();
        loop {
            let rest = &self.source[self.at..];
            if open.is_empty() {
                let after = if is_block { block_end(rest) } else { variable_end(rest) };
                if let Some(after) = after {
                    let line_end = self.source.len() - after.len();
                    self.push(end);
                    self.advance_to(line_end);
                    return Ok(());
                }
            }
            let Some(first) = rest.chars().next() else { return Err(self.error("a tag has no end")) };
            if is_space(first) {
                let spaces = rest.len() - rest.trim_start_matches(is_space).len();
                self.advance_to(self.at + spaces);
                continue;
            }
            let (token, length) = self.token(rest, first)?;
            if let Token::Operator(operator) = token {
                match operator {
                    "{" => open.push("}"),
                    "(" => open.push(")"),
                    "[" => open.push("]"),
                    "}" | ")" | "]" if open.pop() != Some(operator) => {
                        return Err(self.error(&format!("unexpected {operator}")));
                    }
                    _ => {}
                }
            }
            self.push(token);
            self.advance_to(self.at + length);
        }
    }

    fn token(&self, rest: &str, first: char) -> Result<(Token, usize), JinjaError> {
        if first.is_ascii_digit() {
            let after_point = self.source[..self.at].ends_with('.');
            return number(rest, after_point).ok_or_else(|| self.error("a number that is too large"));
        }
        if first == '_' || first.is_alphabetic() {
            let length = rest.find(|char: char| char != '_' && !char.is_alphanumeric()).unwrap_or(rest.len());
            return Ok((Token::Name(rest[..length].to_owned()), length));
        }
        if first == '"' || first == '\'' {
            return self.string(rest, first);
        }
        let operator = OPERATORS.iter().find(|operator| rest.starts_with(**operator) && **operator != "!");
        operator
            .map(|operator| (Token::Operator(operator), operator.len()))
            .ok_or_else(|| self.error(&format!("unexpected {first:?}")))
    }

    /// A string as Python's `unicode-escape` reads it.
    fn string(&self, rest: &str, quote: char) -> Result<(Token, usize), JinjaError> {
        let mut text = String::new();
        let mut chars = rest.char_indices().skip(1);
        while let Some((index, char)) = chars.next() {
            if char == quote {
                return Ok((Token::Text(text), index + 1));
            }
            if char != '\\' {
                text.push(char);
                continue;
            }
            let Some((at, escape)) = chars.next() else { break };
            let simple = match escape {
                '\n' => Some(""),
                '\\' => Some("\\"),
                '\'' => Some("'"),
                '"' => Some("\""),
                'a' => Some("\u{7}"),
                'b' => Some("\u{8}"),
                'f' => Some("\u{c}"),
                'n' => Some("\n"),
                'r' => Some("\r"),
                't' => Some("\t"),
                'v' => Some("\u{b}"),
                _ => None,
            };
            if let Some(simple) = simple {
                text.push_str(simple);
                continue;
            }
            let (digits, radix, skip) = match escape {
                'x' => (2, 16, 1),
                'u' => (4, 16, 1),
                'U' => (8, 16, 1),
                '0'..='7' => {
                    let digits = rest[at..].chars().take(3).take_while(|char| ('0'..='7').contains(char)).count();
                    (digits, 8, 0)
                }
                'N' => return Err(self.unsupported("\\N in a string")),
                other => {
                    text.push('\\');
                    text.push(other);
                    continue;
                }
            };
            let code = rest.get(at + skip..at + skip + digits).and_then(|code| u32::from_str_radix(code, radix).ok());
            let Some(char) = code.and_then(char::from_u32) else {
                return Err(self.error("an escape in a string that is no character"));
            };
            text.push(char);
            for _ in 0..digits + skip - 1 {
                chars.next();
            }
        }
        Err(self.error("a string has no end"))
    }

    /// What has no end is an error, unless nothing of it is there.
    fn unended(&self, reason: &str) -> Result<(), JinjaError> {
        if self.at == self.source.len() { Ok(()) } else { Err(self.error(reason)) }
    }

    fn error(&self, reason: &str) -> JinjaError {
        JinjaError::Syntax { line: self.line, reason: reason.to_owned() }
    }

    fn unsupported(&self, what: &str) -> JinjaError {
        JinjaError::Unsupported { line: self.line, what: what.to_owned() }
    }
}

fn sign_at(rest: &str) -> Sign {
    match rest.as_bytes().first() {
        Some(b'-') => Sign::Minus,
        Some(b'+') => Sign::Plus,
        _ => Sign::None,
    }
}

/// What follows the end of a block, if `rest` begins with one.
fn block_end(rest: &str) -> Option<&str> {
    if let Some(after) = rest.strip_prefix("-%}") {
        return Some(after.trim_start_matches(is_space));
    }
    if let Some(after) = rest.strip_prefix("+%}") {
        return Some(after);
    }
    let after = rest.strip_prefix("%}")?;
    Some(after.strip_prefix('\n').unwrap_or(after))
}

fn variable_end(rest: &str) -> Option<&str> {
    match rest.strip_prefix("-}}") {
        Some(after) => Some(after.trim_start_matches(is_space)),
        None => rest.strip_prefix("}}"),
    }
}

/// A number and its length; `None` if it does not fit.
fn number(rest: &str, after_point: bool) -> Option<(Token, usize)> {
    let digits = |text: &str, radix: u32| -> usize {
        // Underscores are allowed between digits.
        let mut length = 0;
        for (index, char) in text.char_indices() {
            match char {
                '_' if index > 0 => {}
                char if char.is_digit(radix) => length = index + 1,
                _ => break,
            }
        }
        length
    };
    let lower = rest.get(..2).unwrap_or("").to_ascii_lowercase();
    let radix = match lower.as_str() {
        "0x" => 16,
        "0o" => 8,
        "0b" => 2,
        _ => 10,
    };
    if radix != 10 {
        let length = digits(&rest[2..], radix);
        if length > 0 {
            let text = rest[2..2 + length].replace('_', "");
            return i128::from_str_radix(&text, radix).ok().map(|value| (Token::Integer(value), 2 + length));
        }
    }
    let whole = digits(rest, 10);
    let mut length = whole;
    if !after_point {
        if rest[length..].starts_with('.') {
            let fraction = digits(&rest[length + 1..], 10);
            length += if fraction > 0 { 1 + fraction } else { 0 };
        }
        if rest[length..].starts_with(['e', 'E']) {
            let sign = usize::from(rest[length + 1..].starts_with(['+', '-']));
            let exponent = digits(&rest[length + 1 + sign..], 10);
            length += if exponent > 0 { 1 + sign + exponent } else { 0 };
        }
    }
    let text = rest[..length].replace('_', "");
    if length > whole {
        return text.parse().ok().map(|value| (Token::Float(value), length));
    }
    if whole > 1 && text.starts_with('0') && text.bytes().any(|byte| byte != b'0') {
        // Python's Jinja reads the zero alone, and then a second number, which is no expression.
        return Some((Token::Integer(0), 1));
    }
    text.parse().ok().map(|value| (Token::Integer(value), length))
}

/// What Python's `str.isspace` takes as whitespace.
pub(super) const fn is_space(char: char) -> bool {
    matches!(
        char,
        '\t'..='\r'
            | '\x1c'..='\x20'
            | '\u{85}'
            | '\u{a0}'
            | '\u{1680}'
            | '\u{2000}'..='\u{200a}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{202f}'
            | '\u{205f}'
            | '\u{3000}'
    )
}
