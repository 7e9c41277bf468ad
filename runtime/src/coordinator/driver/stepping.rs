//! The driver's steps: ranks have the next one before the tokens of the last are known, so that they wait for nobody.

use std::time::Instant;

use super::{Driver, RankGroup as _, Ranks, SequenceError, Update};
use crate::coordinator::live::{Step, Tokens};
use crate::experts::rebalance::Event;
use crate::protocol::{Batch, StepDone};
use crate::scheduler::Output;

/// Steps that ranks have and have not answered: the one that they run and the one that they go on with. More would only make
/// who comes new wait for longer.
pub(super) const STEPS_UNDER_WAY: usize = 2;

/// A step that is not answered.
pub(super) struct UnderWay {
    number: u64,
    sent: Instant,
    /// The scheduler made it, and hears what it gives.
    scheduled: bool,
}

impl<R: Ranks> Driver<R> {
    /// Sends the next step, if there is work; experts that move while there is none get one without.
    pub(super) fn send_step(&mut self) -> bool {
        let Some(group) = &mut self.group else { return false };
        let rebalancer = &mut self.settings.rebalancer;
        let batches = self.scheduler.next_batches();
        let scheduled = batches.is_some();
        let is_wanted = scheduled || self.under_way.is_empty() && rebalancer.pending_transactions() > 0;
        if !is_wanted {
            return false;
        }
        let batches = batches.unwrap_or_else(|| vec![Batch::default(); rebalancer.map().shape().ranks]);
        self.steps += 1;
        let (number, sent) = (self.steps, Instant::now());
        self.last_step = sent;
        if let Err(lost) = group.send(number, batches, &rebalancer.commits_for(number)) {
            let generation = group.generation();
            self.lose(generation, &lost.to_string());
            return false;
        }
        self.under_way.push_back(UnderWay { number, sent, scheduled });
        true
    }

    /// Waits for the answers to the oldest step, if one is under way, and does what follows from them.
    pub(super) fn receive_step(&mut self) {
        let Some(group) = &mut self.group else { return };
        let Some(UnderWay { number, sent, scheduled }) = self.under_way.pop_front() else { return };
        match group.receive() {
            Ok(mut answers) => {
                let begun = sent.max(std::mem::replace(&mut self.answered, Instant::now()));
                let (took, is_heard) = (self.answered - begun, self.live.is_heard(self.answered));
                self.metrics.stepped(took, &answers);
                let mut tokens = Tokens::default();
                if scheduled {
                    self.emit(&mut answers, is_heard.then_some(&mut tokens));
                }
                let now = self.started.elapsed();
                self.tell_rebalancer(Event::StepDone { number, now, answers: &answers });
                if is_heard {
                    self.live.stepped(Step { at: self.answered, took, answers, tokens });
                }
            }
            Err(lost) => {
                let generation = group.generation();
                self.lose(generation, &lost.to_string());
            }
        }
    }

    /// Gives what a step gave to those who wait for it, and tells how long it took where that is wanted.
    fn emit(&mut self, answers: &mut [StepDone], mut took: Option<&mut Tokens>) {
        let now = self.answered;
        let outputs = answers.iter_mut().map(|answer| std::mem::take(&mut answer.outputs)).collect();
        let mut updates = Vec::new();
        for Output { sequence, prompt_scores, token, finish, no_numbers } in self.scheduler.take(outputs) {
            if no_numbers {
                self.end(sequence, SequenceError::NoNumbers);
                continue;
            }
            let Some(reader) = self.readers.waiting.get_mut(&sequence) else { continue };
            if token.is_some() {
                let last = reader.last_token.replace(now);
                let after = now - last.unwrap_or(reader.submitted);
                match last {
                    None => self.metrics.first_token(now, after),
                    Some(_) => self.metrics.next_token(now, after),
                }
                if let Some(Tokens { first, next }) = took.as_deref_mut() {
                    if last.is_none() { first } else { next }.push(after);
                }
            }
            if token.is_none() && prompt_scores.is_empty() && finish.is_none() {
                continue;
            }
            let update = reader.updates.address(Update::Output { prompt_scores, token, finish });
            if update.is_err() || finish.is_some() {
                self.readers.waiting.remove(&sequence);
                self.scheduler.abort(sequence);
            }
            updates.extend(update);
        }
        self.readers.post.send(updates);
    }
}
