//! A group of ranks that runs steps.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use plan::ids::RankId;
use thiserror::Error;

use super::answer::Expected;
use super::members::Members;
use crate::coordinator::ranks::RankGroup;
use crate::fabric::framing::{Broken, Fan};
use crate::protocol::{Batch, Commit, SequenceWork, Step, StepDone, StepExtent};
use crate::scheduler::RankCache;

/// A step was not finished: a rank is gone, and with it the group.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{rank} was lost in step {number}: {reason}")]
pub struct RankLost {
    /// The rank that is gone.
    pub rank: RankId,
    /// The number of the step that it did not finish.
    pub number: u64,
    /// The reason, in words for people.
    pub reason: String,
}

/// Every rank's step connection, and what is known of its KV cache. Steps may be sent before the answers of those before them
/// are there; ranks run them one after the other.
#[derive(Debug)]
pub struct Group {
    generation: u64,
    caches: Vec<RankCache>,
    expected: Expected,
    fan: Fan,
    /// The oldest first.
    under_way: VecDeque<Unanswered>,
    /// When the last answers were there.
    answered: Instant,
    members: Arc<Members>,
}

/// A step that is not answered.
#[derive(Debug)]
struct Unanswered {
    number: u64,
    sent: Instant,
    /// What each rank computes, `[ranks]`.
    work: Vec<Vec<SequenceWork>>,
    /// The length that its answer can have, `[ranks]`, bytes.
    most_bytes: Vec<usize>,
    /// Tokens of all ranks.
    tokens: usize,
}

/// What a group is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub generation: u64,
    /// Of each rank, `[ranks]`.
    pub caches: Vec<RankCache>,
    pub expected: Expected,
    /// To each rank.
    pub fan: Fan,
}

impl Group {
    pub(super) fn new(parts: Parts, members: Arc<Members>) -> Self {
        let Parts { generation, caches, expected, fan } = parts;
        let (under_way, answered) = (VecDeque::new(), Instant::now());
        Self { generation, caches, expected, fan, under_way, answered, members }
    }

    fn try_send(&mut self, number: u64, batches: Vec<Batch>, commits: &[Commit]) -> Result<(), RankLost> {
        let generation = self.generation;
        let (sent, tokens) = (Instant::now(), batches.iter().map(Batch::tokens).sum());
        let (extent, mut work) = (StepExtent::of_ranks(&batches), Vec::with_capacity(batches.len()));
        for (rank, batch) in batches.into_iter().enumerate() {
            let step = Step { generation, number, commits: commits.into(), extent, batch };
            let lost = |Broken { error, .. }| RankLost { rank: rank.into(), number, reason: error.to_string() };
            self.fan.send(rank, &step).map_err(lost)?;
            work.push(step.batch.work);
        }
        let most_bytes = work.iter().map(|work| self.expected.most_bytes(work)).collect();
        self.under_way.push_back(Unanswered { number, sent, work, most_bytes, tokens });
        Ok(())
    }

    fn try_receive(&mut self) -> Result<Vec<StepDone>, RankLost> {
        let Unanswered { number, sent, work, most_bytes, tokens } =
            self.under_way.pop_front().expect("a step is under way");
        let (generation, expected) = (self.generation, self.expected);
        let lost = |rank: usize, reason: String| RankLost { rank: rank.into(), number, reason };
        // A rank begins with a step when it has answered the one before.
        let limit = self.members.settings.step_deadline;
        let deadline = sent.max(self.answered) + limit;
        let answers: Vec<StepDone> = self.fan.gather(&most_bytes, deadline).map_err(|Broken { place, error }| {
            let (late, seconds) = (Instant::now() >= deadline, limit.as_secs_f32());
            let reason = || {
                format!("no answer within {seconds} s (step-deadline-seconds); it hangs, or waits for a rank that does")
            };
            lost(place, if late { reason() } else { error.to_string() })
        })?;
        self.answered = Instant::now();
        for (rank, (done, work)) in answers.iter().zip(&work).enumerate() {
            if (done.generation, done.number) != (generation, number) {
                let reason = format!("it answered step {} of generation {} instead", done.number, done.generation);
                return Err(lost(rank, reason));
            }
            if let Some(reason) = expected.wrong(done, work, tokens, self.answered - sent) {
                return Err(lost(rank, format!("it answered wrongly: {reason}")));
            }
        }
        match expected.wrong_sum(&answers, tokens) {
            // Nobody can tell whose count is wrong; whoever it is, none of them is believed.
            Some(reason) => Err(lost(0, format!("it or another rank answered wrongly: {reason}"))),
            None => Ok(answers),
        }
    }

    fn or_lose<T>(&self, result: Result<T, RankLost>) -> Result<T, RankLost> {
        if let Err(RankLost { rank, reason, .. }) = &result {
            self.members.lose_group(self.generation, *rank, reason);
        }
        result
    }
}

impl RankGroup for Group {
    fn generation(&self) -> u64 {
        self.generation
    }

    fn caches(&self) -> Vec<RankCache> {
        self.caches.clone()
    }

    fn send(&mut self, number: u64, batches: Vec<Batch>, commits: &[Commit]) -> Result<(), RankLost> {
        assert_eq!(batches.len(), self.fan.len(), "one batch for each rank");
        let sent = self.try_send(number, batches, commits);
        self.or_lose(sent)
    }

    fn receive(&mut self) -> Result<Vec<StepDone>, RankLost> {
        let received = self.try_receive();
        self.or_lose(received)
    }
}

impl Drop for Group {
    /// A group that is given up ends on every rank, and ranks that register again are heard as lost.
    fn drop(&mut self) {
        self.fan.close();
    }
}
