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
    /// Tokens that its rank was given, or told to go on from.
    sent: usize,
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
            sent: 0,
        }
    }

    /// What was sampled so far.
    pub fn output(&self) -> &[u32] {
        &self.tokens[self.prompt..]
    }

    /// Forgets its KV, as a lost group does.
    pub fn forget(&mut self) {
        self.sent = 0;
    }

    /// Its next step, which need not wait for the token that the one before gives.
    fn step(&mut self) -> SequenceWork {
        let blocks = |tokens: usize| (tokens as u32).div_ceil(BLOCK_TOKENS) as usize;
        let (begins, position) = (self.sent == 0, self.sent);
        let tokens = if begins { Tokens::Given(self.tokens.clone()) } else { Tokens::Chosen };
        self.sent += tokens.count();
        SequenceWork {
            sequence: self.id,
            begins: begins.then_some(self.sampling),
            position: position as u32,
            tokens,
            blocks: self.blocks[blocks(position)..blocks(self.sent)].to_vec(),
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

/// One step of every sequence, alone; false if the group was lost in it.
pub fn advance(deployment: &mut Deployment, sequences: &mut [Sequence]) -> bool {
    go_on(deployment, sequences, 1)
}

/// One step of every sequence, while ranks have the one after it already, as those of the product do; false if the group was lost.
pub fn advance_ahead(deployment: &mut Deployment, sequences: &mut [Sequence]) -> bool {
    go_on(deployment, sequences, 2)
}

fn go_on(deployment: &mut Deployment, sequences: &mut [Sequence], under_way: usize) -> bool {
    while deployment.under_way() < under_way {
        let mut batches = vec![Batch::default(); deployment.setup.ranks];
        for sequence in sequences.iter_mut() {
            batches[sequence.rank.index()].work.push(sequence.step());
        }
        if !deployment.send(batches) {
            return false;
        }
    }
    let Some(answers) = deployment.receive() else { return false };
    let outputs = answers.iter().flat_map(|answer| &answer.outputs);
    let tokens: BTreeMap<SequenceId, u32> =
        outputs.filter_map(|output| Some((output.sequence, output.token.as_ref()?.token))).collect();
    for sequence in sequences {
        sequence.tokens.push(tokens[&sequence.id]);
    }
    true
}
