//! Numbers and text in a given width and form, as `%` and `str.format` share them.

use super::JinjaError;
use super::budget::Budget;

/// Digits after the point that are taken at most: more say nothing of a number.
const MOST_DIGITS: usize = 400;

/// How something is written.
#[derive(Clone, Debug, Default)]
pub(super) struct Spec {
    pub fill: Option<char>,
    /// One of `<`, `>`, `^` and `=`, which puts the fill after the sign.
    pub align: Option<char>,
    /// `+`, a space, or `-` for negative numbers alone.
    pub sign: Option<char>,
    pub alternate: bool,
    pub width: usize,
    /// Between thousands.
    pub grouping: Option<char>,
    pub precision: Option<usize>,
}

impl Spec {
    /// Fills text up to the width. `default` is how it is aligned where nothing says.
    pub fn pad(&self, sign: &str, body: &str, default: char, budget: &mut Budget) -> Result<String, JinjaError> {
        let length = sign.chars().count() + body.chars().count();
        let fill = self.fill.unwrap_or(' ');
        let missing = self.width.saturating_sub(length);
        budget.text(sign.len() + body.len() + missing.saturating_mul(fill.len_utf8()))?;
        let filled = |count: usize| fill.to_string().repeat(count);
        Ok(match self.align.unwrap_or(default) {
            '<' => format!("{sign}{body}{}", filled(missing)),
            '^' => format!("{}{sign}{body}{}", filled(missing / 2), filled(missing - missing / 2)),
            '=' => format!("{sign}{}{body}", filled(missing)),
            _ => format!("{}{sign}{body}", filled(missing)),
        })
    }

    fn sign_of(&self, negative: bool) -> String {
        match (negative, self.sign) {
            (true, _) => "-".to_owned(),
            (false, Some(sign @ ('+' | ' '))) => sign.to_string(),
            (false, _) => String::new(),
        }
    }

    /// A whole number in base 2, 8, 10 or 16.
    pub fn integer(&self, value: i128, kind: char, budget: &mut Budget) -> Result<String, JinjaError> {
        let size = value.unsigned_abs();
        let (digits, prefix) = match kind {
            'b' => (format!("{size:b}"), "0b"),
            'o' => (format!("{size:o}"), "0o"),
            'x' => (format!("{size:x}"), "0x"),
            'X' => (format!("{size:X}"), "0X"),
            _ => (size.to_string(), ""),
        };
        let digits = match self.precision {
            Some(least) => {
                budget.text(least)?;
                format!("{}{digits}", "0".repeat(least.saturating_sub(digits.len())))
            }
            None => digits,
        };
        let every = if prefix.is_empty() { 3 } else { 4 };
        let digits = self.grouped(&digits, every);
        let prefix = if self.alternate { prefix } else { "" };
        self.pad(&format!("{}{prefix}", self.sign_of(value < 0)), &digits, '>', budget)
    }

    fn grouped(&self, digits: &str, every: usize) -> String {
        let Some(separator) = self.grouping else { return digits.to_owned() };
        let mut grouped = String::new();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(every) {
                grouped.push(separator);
            }
            grouped.push(digit);
        }
        grouped
    }

    /// A number with a point: `e`, `f`, `g` or `%`, upper case for upper case.
    pub fn float(&self, value: f64, kind: char, budget: &mut Budget) -> Result<String, JinjaError> {
        let precision = self.precision.unwrap_or(6);
        if precision > MOST_DIGITS {
            return Err(JinjaError::unsupported(format!("more than {MOST_DIGITS} digits after a point")));
        }
        let size = if kind == '%' { value.abs() * 100.0 } else { value.abs() };
        let mut body = if size.is_nan() {
            "nan".to_owned()
        } else if size.is_infinite() {
            "inf".to_owned()
        } else {
            match kind.to_ascii_lowercase() {
                'e' => exponential(size, precision),
                'g' => general(size, precision, self.alternate),
                _ => format!("{size:.precision$}"),
            }
        };
        if self.alternate && precision == 0 && !body.contains('.') {
            body.push('.');
        }
        if kind.is_ascii_uppercase() {
            body = body.to_ascii_uppercase();
        }
        if self.grouping.is_some() && size.is_finite() {
            let whole = body.find(|char: char| !char.is_ascii_digit()).unwrap_or(body.len());
            body = format!("{}{}", self.grouped(&body[..whole], 3), &body[whole..]);
        }
        if kind == '%' {
            body.push('%');
        }
        self.pad(&self.sign_of(value.is_sign_negative() && !value.is_nan()), &body, '>', budget)
    }
}

fn exponential(value: f64, precision: usize) -> String {
    let text = format!("{value:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}

fn general(value: f64, precision: usize, keep_zeros: bool) -> String {
    let precision = precision.max(1);
    let text = format!("{value:.*e}", precision - 1);
    let exponent: i32 = text.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0);
    let stripped = |text: &str| {
        if keep_zeros || !text.contains('.') {
            return text.to_owned();
        }
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    if exponent < -4 || exponent >= precision as i32 {
        let text = exponential(value, precision - 1);
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "+00"));
        return format!("{}e{exponent}", stripped(digits));
    }
    stripped(&format!("{value:.*}", (precision as i32 - 1 - exponent).max(0) as usize))
}
