//! What is found of a condition, and the condition that it becomes.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::api::conditions::{Reason, Type};
use crate::report::Facts;
use crate::words;

/// Conditions hold 32 KiB of message; nobody reads more than this.
const LONGEST_MESSAGE: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    True,
    False,
    Unknown,
}

/// Whether a condition holds, why, and in which words.
pub(super) struct Finding {
    truth: Truth,
    reason: Reason,
    message: String,
    /// From here on the message is of somebody who may word the same anew each time.
    foreign_from: usize,
}

impl Finding {
    /// With the words of somebody else at the end.
    pub fn because(mut self, words: &str) -> Self {
        self.foreign_from = self.message.len();
        self.message.push_str(words);
        self
    }

    /// Its message, or the one of before if that said the same.
    fn message_after(&self, before: Option<&Condition>) -> String {
        let cut = |text: &str| text.chars().take(LONGEST_MESSAGE).collect::<String>();
        let (own, foreign) = self.message.split_at(self.foreign_from);
        let reason: &str = self.reason.into();
        let said = before.filter(|before| before.reason == reason).map(|before| before.message.as_str());
        match said.and_then(|said| said.strip_prefix(own)) {
            Some(rest) if !foreign.is_empty() && words::say_the_same(rest, &cut(foreign)) => format!("{own}{rest}"),
            _ => cut(&self.message),
        }
    }
}

pub(super) fn finding(truth: Truth, reason: Reason, message: impl Into<String>) -> Finding {
    let message = message.into();
    Finding { truth, reason, foreign_from: message.len(), message }
}

pub(super) fn yes(reason: Reason, message: impl Into<String>) -> Finding {
    finding(Truth::True, reason, message)
}

pub(super) fn no(reason: Reason, message: impl Into<String>) -> Finding {
    finding(Truth::False, reason, message)
}

pub(super) fn unknown(reason: Reason, message: impl Into<String>) -> Finding {
    finding(Truth::Unknown, reason, message)
}

/// A finding as a condition: its time is that of the last change of its status.
pub(super) fn dated(facts: &Facts<'_>, kind: Type, finding: &Finding) -> Condition {
    let kind: &str = kind.into();
    let reason: &str = finding.reason.into();
    let status = match finding.truth {
        Truth::True => "True",
        Truth::False => "False",
        Truth::Unknown => "Unknown",
    };
    let before =
        facts.previous.conditions.iter().find(|condition| condition.type_ == kind && condition.status == status);
    // Whole seconds, as the API server keeps them: a time that is read back must equal the one that was written.
    let now = Timestamp::from_second(facts.observed.now.as_second()).unwrap_or(facts.observed.now);
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: finding.message_after(before),
        last_transition_time: before.map_or(Time(now), |before| before.last_transition_time.clone()),
        observed_generation: facts.deployment.metadata.generation,
    }
}
