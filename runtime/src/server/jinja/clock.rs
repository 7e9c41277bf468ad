//! `strftime`, as glibc writes it in the C locale.

use std::fmt::Write as _;

use jiff::Zoned;
use jiff::fmt::strtime;

use super::JinjaError;
use super::budget::Budget;

/// Directives that mean the same to jiff.
const SAME: &str = "AaBbCdeFGgHhIjklMmnPpRSTtUuVWwYy";

/// `now.strftime(format)` of a time without zone.
pub(super) fn strftime(format: &str, now: &Zoned, budget: &mut Budget) -> Result<String, JinjaError> {
    budget.scratch(format.len())?;
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(char) = chars.next() {
        if char != '%' {
            out.push(char);
            continue;
        }
        budget.step()?;
        budget.fits(out.len())?;
        let mut directive = "%".to_owned();
        let mut kind = chars.next();
        if let Some(flag @ ('-' | '_' | '0' | '^')) = kind {
            directive.push(flag);
            kind = chars.next();
        }
        let whole = match kind {
            Some('%') => {
                out.push('%');
                continue;
            }
            // Without a zone both are empty.
            Some('z' | 'Z') => continue,
            Some('f') => {
                write!(out, "{:06}", now.subsec_nanosecond() / 1000).expect("writing to a string does not fail");
                continue;
            }
            Some('c') => "%a %b %e %H:%M:%S %Y".to_owned(),
            Some('x' | 'D') => "%m/%d/%y".to_owned(),
            Some('X') => "%H:%M:%S".to_owned(),
            Some('r') => "%I:%M:%S %p".to_owned(),
            Some(kind) if SAME.contains(kind) => {
                directive.push(kind);
                directive
            }
            other => {
                let name = other.map_or_else(|| "%".to_owned(), |kind| format!("%{kind}"));
                return Err(JinjaError::unsupported(format!("{name} of strftime_now")));
            }
        };
        let written = strtime::format(whole.as_bytes(), now).map_err(|error| JinjaError::failed(error.to_string()))?;
        out.push_str(&written);
    }
    budget.text(out.len())?;
    Ok(out)
}
