//! Requests that a group serves.

use std::collections::BTreeMap;

use plan::ids::RankId;
use runtime::protocol::{Batch, Sampling, SequenceId, SequenceWork, Tokens};

use super::{BLOCK_TOKENS, BLOCKS, Deployment, Setup};

/// A request that is being served.
#[derive(Clone)]
pub struct Sequence {
    id: SequenceId,
    rank: RankId,
    blocks: Vec<u32>,
    sampling: Sampling,
    /// Prompt, then what was sampled.
    pub tokens: Vec<u32>,
    prompt: usize,
    /// Tokens whose KV is in the cache.
    cached: usize,
}

impl Sequence {
    /// The `number`th of a deployment's sequences.
    pub fn new(setup: &Setup, number: u32, prompt: Vec<u32>, temperature: f32) -> Self {
        let (rank, place) = (number % setup.ranks as u32, number / setup.ranks as u32);
        assert!(place < setup.sequences_per_rank);
        let sampling = Sampling { temperature, top_p: 1.0, top_k: 0, seed: number.into(), logprob: false };
        Self {
            id: SequenceId(number.into()),
            rank: RankId(rank),
            blocks: (place * BLOCKS..(place + 1) * BLOCKS).collect(),
            sampling,
            prompt: prompt.len(),
            tokens: prompt,
            cached: 0,
        }
    }

    /// What was sampled so far.
    pub fn output(&self) -> &[u32] {
        &self.tokens[self.prompt..]
    }

    /// Forgets its KV, as a lost group does.
    pub fn forget(&mut self) {
        self.cached = 0;
    }

    fn step(&self) -> SequenceWork {
        let blocks = |tokens: usize| (tokens as u32).div_ceil(BLOCK_TOKENS) as usize;
        SequenceWork {
            sequence: self.id,
            begins: (self.cached == 0).then_some(self.sampling),
            position: self.cached as u32,
            tokens: Tokens::Given(self.tokens[self.cached..].to_vec()),
            blocks: self.blocks[blocks(self.cached)..blocks(self.tokens.len())].to_vec(),
            sample: true,
            score: Vec::new(),
            top_logprobs: 0,
        }
    }
}

/// A whole prompt, of which nothing is asked, in the first places of a rank's cache.
pub fn prefill(number: u64, tokens: Vec<u32>) -> SequenceWork {
    SequenceWork {
        sequence: SequenceId(number),
        begins: Some(Sampling { temperature: 0.0, top_p: 1.0, top_k: 0, seed: 0, logprob: false }),
        position: 0,
        blocks: (0..(tokens.len() as u32).div_ceil(BLOCK_TOKENS)).collect(),
        tokens: Tokens::Given(tokens),
        sample: false,
        score: Vec::new(),
        top_logprobs: 0,
    }
}

/// One step of every sequence; false if the group was lost in it.
pub fn advance(deployment: &mut Deployment, sequences: &mut [Sequence]) -> bool {
    let mut batches = vec![Batch::default(); deployment.setup.ranks];
    for sequence in sequences.iter() {
        batches[sequence.rank.index()].work.push(sequence.step());
    }
    let Some(answers) = deployment.step(batches) else { return false };
    let outputs = answers.iter().flat_map(|answer| &answer.outputs);
    let tokens: BTreeMap<SequenceId, u32> =
        outputs.filter_map(|output| Some((output.sequence, output.token.as_ref()?.token))).collect();
    for sequence in sequences {
        sequence.cached = sequence.tokens.len();
        sequence.tokens.push(tokens[&sequence.id]);
    }
    true
}
