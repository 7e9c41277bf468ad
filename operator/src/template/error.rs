//! Why a template is refused, in one sentence that names the field and what to do.

use thiserror::Error;

/// Longest part of a name or value that a message repeats.
const LONGEST: usize = 40;
/// Longest words of the reader that a message repeats.
const LONGEST_WORDS: usize = 120;

/// Why a template is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// It is no pod.
    #[error("{at} cannot be read: {problem}")]
    Unreadable {
        /// The field.
        at: String,
        /// What the reader says.
        problem: String,
    },
    /// A field that pods do not have.
    #[error("{at} is no field that this operator knows of pods: correct its name, or leave it out")]
    Unknown {
        /// The field.
        at: String,
    },
    /// A field that is taken away.
    #[error("{at} is null: a template adds to pods and changes them, it takes nothing away; leave it out")]
    Null {
        /// The field.
        at: String,
    },
    /// A field that is not for users.
    #[error("{at} cannot be set: {instead}")]
    Owned {
        /// The field.
        at: String,
        /// Why, or what to do instead.
        instead: &'static str,
    },
    /// A field whose value cannot be.
    #[error("{at} is {value:?}: {problem}")]
    Value {
        /// The field.
        at: String,
        /// What it is.
        value: String,
        /// What is wrong with that.
        problem: &'static str,
    },
    /// A field that has to be there.
    #[error("{at} is missing: {why}")]
    Missing {
        /// The field.
        at: String,
        /// What it is needed for.
        why: &'static str,
    },
    /// Two entries of one list that are one.
    #[error("{at} is there twice: remove one of them")]
    Twice {
        /// The entry.
        at: String,
    },
}

impl TemplateError {
    pub(super) fn unreadable(at: String, problem: &str) -> Self {
        Self::Unreadable { at, problem: cut(problem, LONGEST_WORDS) }
    }

    pub(super) fn owned(at: String, instead: &'static str) -> Self {
        Self::Owned { at, instead }
    }

    pub(super) fn value(at: String, value: &str, problem: &'static str) -> Self {
        Self::Value { at, value: shorten(value), problem }
    }
}

/// A name or value as messages repeat it.
pub(super) fn shorten(text: &str) -> String {
    cut(text, LONGEST)
}

fn cut(text: &str, most: usize) -> String {
    let shown = |c: char| if plan::words::is_hidden(c) { ' ' } else { c };
    let start: String = text.chars().take(most).map(shown).collect();
    if text.chars().nth(most).is_some() { format!("{start}...") } else { start }
}
