//! Chat templates, rendered as transformers renders them: Jinja with Python's values, text and errors, inside its
//! immutable sandbox. Whatever Python's Jinja has and this has not is refused by name, never rendered otherwise; and a
//! template that runs away ends in bounded time and memory.
//!
//! Other engines of the language differ where Python does not raise an error, in how `none`, `true`, lists and numbers
//! are written, in what compares equal, or in what an empty iterator is, and so give other prompts without a word.

mod ast;
mod budget;
mod call;
mod clock;
mod comparison;
mod filters;
mod format;
mod functions;
mod given;
mod items;
mod lexer;
mod loops;
mod operators;
mod parser;
mod percent;
mod render;
mod sorting;
mod spec;
mod strings;
mod tests;
mod value;
mod writing;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod rare;

pub use self::budget::IsLate;
pub use self::given::{Given, Names};
use jiff::Zoned;
use thiserror::Error;

/// Why a template gives no text.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum JinjaError {
    /// It is no template.
    #[error("line {line}: {reason}")]
    Syntax {
        /// The line.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// It uses what is not done.
    #[error("line {line}: {what} is not supported")]
    Unsupported {
        /// The line.
        line: usize,
        /// What it uses.
        what: String,
    },
    /// It failed while it was rendered.
    #[error("line {line}: {reason}")]
    Failed {
        /// The line.
        line: usize,
        /// Why, in Python's words where they are known.
        reason: String,
    },
    /// It refused what it was given, in its own words.
    #[error("{0}")]
    Raised(String),
    /// It takes more than any template needs.
    #[error("it runs away: more {0} than a template may take")]
    Limit(&'static str),
    /// It gives more text than the context holds.
    #[error("more text than the model's context can hold")]
    TooLong,
}

impl JinjaError {
    fn failed(reason: impl Into<String>) -> Self {
        Self::Failed { line: 0, reason: reason.into() }
    }

    fn unsupported(what: impl Into<String>) -> Self {
        Self::Unsupported { line: 0, what: what.into() }
    }

    /// The same, in a line, unless it says one.
    fn at(self, in_line: usize) -> Self {
        match self {
            Self::Failed { line: 0, reason } => Self::Failed { line: in_line, reason },
            Self::Unsupported { line: 0, what } => Self::Unsupported { line: in_line, what },
            other => other,
        }
    }
}

/// A template that was parsed.
#[derive(Debug)]
pub struct Template(ast::Template);

impl Template {
    /// Parses a source.
    ///
    /// # Errors
    /// If it is no template, or uses what is not done.
    pub fn parse(source: &str) -> Result<Self, JinjaError> {
        parser::parse(source).map(Self)
    }

    /// The text that it gives for `variables`, of which the first of a name counts, at most `longest` bytes. `now` is what `strftime_now` tells; `is_late`,
    /// which is asked again and again, ends it.
    ///
    /// # Errors
    /// If it fails, refuses the variables, or takes too much.
    pub fn render(
        &self,
        variables: Vec<(String, Given)>,
        longest: usize,
        now: &Zoned,
        is_late: IsLate<'_>,
    ) -> Result<String, JinjaError> {
        render::render(&self.0, variables, longest, now, is_late)
    }
}
