//! Groups of ranks that compute as a model would, and keep what is in their caches.

mod admission;
mod alone;
mod losses;
mod steps;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::*;
use crate::protocol::{Sampling, SequenceStep, Sequences, TokenScore, Tokens};

const STOP: u32 = 7;

fn sampling() -> Sampling {
    Sampling { temperature: 0.0, top_p: 1.0, top_k: 0, seed: 0, logprob: false }
}

fn asks(prompt: &[u32], max_tokens: u32) -> NewSequence {
    NewSequence {
        prompt: prompt.into(),
        length: Length::Asked(max_tokens),
        stop_tokens: Arc::from([STOP]),
        sampling: sampling(),
        score_prompt: false,
        top_logprobs: 0,
    }
}

/// The token that follows `token` at `position`, as a stand-in for a model.
fn follows(token: u32, position: u32) -> u32 {
    token.wrapping_mul(31).wrapping_add(position * 17) % 97
}

/// Computes a batch like a rank with a KV cache: remembers what is written where, and fails if a sequence reads a
/// position that it did not write.
#[derive(Default)]
struct FakeRank {
    known: Sequences,
    written: BTreeMap<(u32, u32), (SequenceId, u32)>,
}

impl FakeRank {
    fn run(&mut self, batch: Batch, block_tokens: u32) -> Vec<SequenceOutput> {
        let steps = self.known.next(batch).unwrap();
        let outputs = self.compute(&steps, block_tokens);
        self.known.computed(steps, &outputs);
        outputs
    }

    fn compute(&mut self, steps: &[SequenceStep], block_tokens: u32) -> Vec<SequenceOutput> {
        let held: Vec<u32> = steps.iter().flat_map(|step| step.blocks.clone()).collect();
        assert_eq!(held.len(), held.iter().collect::<BTreeSet<_>>().len(), "a block is used by one sequence: {held:?}");
        steps.iter().map(|step| self.sequence(step, block_tokens)).collect()
    }

    fn sequence(&mut self, step: &SequenceStep, block_tokens: u32) -> SequenceOutput {
        let end = step.position + step.tokens.len() as u32;
        assert_eq!(step.blocks.len() as u32, end.div_ceil(block_tokens));
        let place = |position: u32| (step.blocks[(position / block_tokens) as usize], position % block_tokens);
        for (position, &token) in (step.position..).zip(&step.tokens) {
            self.written.insert(place(position), (step.sequence, token));
        }
        for position in 0..end {
            let found = self.written.get(&place(position)).map(|&(sequence, _)| sequence);
            assert_eq!(found, Some(step.sequence), "position {position} was overwritten or never computed");
        }
        let score = |token: u32| TokenScore { token, logprob: -1.0, top: Vec::new() };
        let last = *step.tokens.last().expect("a step has tokens");
        SequenceOutput {
            sequence: step.sequence,
            token: step.sample.map(|_| score(follows(last, end))),
            scores: step.score.iter().map(|wanted| wanted.map(score)).collect(),
            no_numbers: false,
        }
    }
}

/// What a sequence must give, computed alone.
fn alone(request: &NewSequence) -> (Vec<u32>, Finish) {
    let Length::Asked(max_tokens) = request.length else { panic!("its length is not known") };
    let mut tokens = request.prompt.to_vec();
    for _ in 0..max_tokens {
        tokens.push(follows(*tokens.last().expect("not empty"), tokens.len() as u32));
        if tokens.last() == Some(&STOP) {
            return (tokens[request.prompt.len()..].to_vec(), Finish::Stop);
        }
    }
    (tokens[request.prompt.len()..].to_vec(), Finish::Length)
}

struct Group {
    scheduler: Scheduler,
    ranks: Vec<FakeRank>,
    size: RankCache,
    limits: Limits,
    /// Steps that may be under way at a time.
    depth: usize,
    /// What ranks gave and the scheduler has not heard yet, the oldest first.
    under_way: VecDeque<Vec<Vec<SequenceOutput>>>,
    given: BTreeMap<SequenceId, Vec<u32>>,
    scored: BTreeMap<SequenceId, Vec<u32>>,
    finished: BTreeMap<SequenceId, Finish>,
    started: Vec<SequenceId>,
}

impl Group {
    fn new(ranks: usize, size: RankCache, limits: Limits) -> Self {
        let mut scheduler = Scheduler::new(limits);
        assert_eq!(scheduler.form(&vec![size; ranks]), []);
        let ranks = (0..ranks).map(|_| FakeRank::default()).collect();
        Self {
            scheduler,
            ranks,
            size,
            limits,
            depth: 1,
            under_way: VecDeque::new(),
            given: BTreeMap::new(),
            scored: BTreeMap::new(),
            finished: BTreeMap::new(),
            started: Vec::new(),
        }
    }

    /// Sends a step, if one may be and there is work, and hears of the oldest one when nothing more can be sent.
    fn step(&mut self) -> bool {
        let batches = self.scheduler.next_batches();
        let is_sent = batches.is_some();
        if let Some(batches) = batches {
            self.send(batches);
        }
        if !is_sent || self.under_way.len() == self.depth {
            let Some(outputs) = self.under_way.pop_front() else { return false };
            self.take(outputs);
        }
        true
    }

    fn send(&mut self, batches: Vec<Batch>) {
        for batch in &batches {
            assert!(batch.tokens() <= self.limits.step_tokens, "{batch:?}");
        }
        let sequences = batches.iter().flat_map(|batch| &batch.work).map(|work| work.sequence);
        let new: BTreeSet<SequenceId> = sequences.filter(|id| !self.started.contains(id)).collect();
        self.started.extend(new);
        let block_tokens = self.size.block_tokens;
        let outputs = self.ranks.iter_mut().zip(batches).map(|(rank, batch)| rank.run(batch, block_tokens)).collect();
        self.under_way.push_back(outputs);
    }

    fn take(&mut self, outputs: Vec<Vec<SequenceOutput>>) {
        for output in self.scheduler.take(outputs) {
            let id = output.sequence;
            assert!(!self.finished.contains_key(&id), "{id:?} gave something after its end");
            self.given.entry(id).or_default().extend(output.token.iter().map(|token| token.token));
            self.scored.entry(id).or_default().extend(output.prompt_scores.iter().map(|score| score.token));
            self.finished.extend(output.finish.map(|finish| (id, finish)));
        }
    }

    fn lose_a_rank(&mut self) {
        assert_eq!(self.lose(), []);
        assert!(self.scheduler.next_batches().is_none());
        self.form();
    }

    /// Whatever is under way is lost; gives who ends with it.
    fn lose(&mut self) -> Vec<SequenceId> {
        self.under_way.clear();
        self.scheduler.lose()
    }

    fn form(&mut self) {
        self.scheduler.form(&vec![self.size; self.ranks.len()]);
        self.ranks.iter_mut().for_each(|rank| *rank = FakeRank::default());
    }

    fn run_to_the_end(&mut self, steps_at_most: usize) {
        for _ in 0..=steps_at_most {
            if !self.step() {
                assert!(self.scheduler.is_idle(), "sequences are left without work");
                return;
            }
        }
        panic!("not done after {steps_at_most} steps");
    }
}

const LIMITS: Limits = Limits { queued: 64, running_per_rank: 4, step_tokens: 8 };
const SIZE: RankCache = RankCache { blocks: 8, block_tokens: 4 };
