//! What one step computes, as the host prepares it, and what it leaves for the host.

use std::borrow::Cow;

use crate::backend::HeadShape;
use crate::error::DeviceError;
use crate::host::list;
use crate::routing::LayerRouting;
use crate::times::StepTimes;

/// Best tokens that can be told beside one row of logits.
pub const MOST_BEST: usize = 20;

/// The most that a step has; memory for it is made before the first one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepLimits {
    /// Tokens of all its sequences together.
    pub tokens: usize,
    /// Cache blocks of all its sequences together.
    pub blocks: usize,
    /// Tokens of a block.
    pub block_tokens: usize,
    /// Rows of logits that are answered at once.
    pub logit_rows: usize,
    /// Length of a row of logits.
    pub vocabulary: usize,
    /// Length of a row of activations between layers.
    pub hidden: usize,
    /// Widest feed-forward network that every token goes through.
    pub intermediate: usize,
    /// Heads of attention.
    pub heads: HeadShape,
}

/// Consecutive tokens of one sequence within a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Number of tokens, each one row of the batch.
    pub tokens: u32,
    /// Position of the first of them in its sequence.
    pub position: u32,
    /// Where the sequence's blocks begin in [`StepArea::blocks`]: from position 0 to at least the last of the tokens.
    pub first_block: u32,
}

/// How a token is drawn from a row of logits. Equal logits and settings draw the equal token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// 0 takes the best.
    pub temperature: f32,
    /// In (0, 1]; 1 is off.
    pub top_p: f32,
    /// 0 is off.
    pub top_k: u32,
    /// Where in the distribution, in [0, 1).
    pub uniform: f64,
}

/// What is asked of the logits of one row of the batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Asked {
    /// The row.
    pub row: u32,
    /// Draw a token.
    pub draw: Option<Draw>,
    /// The logit of this token.
    pub score: Option<u32>,
    /// How many best tokens; at most [`MOST_BEST`].
    pub best: u32,
    /// The sum that makes probabilities of logits.
    pub sum: bool,
}

impl Asked {
    /// Nothing of a row but its logits.
    #[must_use]
    pub const fn nothing(row: u32) -> Self {
        Self { row, draw: None, score: None, best: 0, sum: false }
    }
}

/// A token and its logit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scored {
    /// The token.
    pub token: u32,
    /// Its logit.
    pub logit: f32,
}

/// What a row of logits gave.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sampled {
    /// Whether tokens can be chosen by these logits: none is NaN or plus infinity, and one is more than minus infinity. Where
    /// they cannot, the rest says nothing.
    pub is_ordered: bool,
    /// The largest.
    pub largest: f32,
    /// Logarithm of the sum of `e^(logit - largest)`, if it was asked for.
    pub log_sum: f64,
    /// The token that was drawn.
    pub drawn: Scored,
    /// The logit of the token to score.
    pub score: f32,
}

impl Sampled {
    /// Log-probability of a token with this logit; minus infinity for one that cannot come.
    #[must_use]
    pub fn logprob(&self, logit: f32) -> f32 {
        (f64::from(logit - self.largest) - self.log_sum) as f32
    }
}

/// Everything that a step needs from the host, in one place that is reused by every step and goes to the device whole.
#[derive(Clone, Debug, Default)]
pub struct StepArea {
    /// The token of each row.
    pub ids: Vec<u32>,
    /// Its position in its sequence.
    pub positions: Vec<u32>,
    /// What its sequence is called where copies of experts are chosen.
    pub sequences: Vec<u32>,
    /// The sequences, in the order of their rows.
    pub spans: Vec<Span>,
    /// Cache blocks of all sequences, one after the other.
    pub blocks: Vec<u32>,
    /// What is asked of which rows, rows ascending.
    pub asked: Vec<Asked>,
    /// Layers whose routing changes before the step.
    pub changes: Vec<LayerRouting>,
    /// Tokens that operations are prepared for, where they are to be the same in steps that are not: at least as many as there are, and as
    /// much as is asked. No result depends on it.
    pub bucket: Option<usize>,
}

impl StepArea {
    /// An empty one with room for the largest step.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn with_room(limits: &StepLimits) -> Result<Self, DeviceError> {
        let &StepLimits { tokens, blocks, .. } = limits;
        Ok(Self {
            ids: list(tokens)?,
            positions: list(tokens)?,
            sequences: list(tokens)?,
            spans: list(tokens)?,
            blocks: list(blocks)?,
            asked: list(tokens)?,
            changes: Vec::new(),
            bucket: None,
        })
    }

    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        let Self { ids, positions, sequences, spans, blocks, asked, changes, bucket } = self;
        for list in [ids, positions, sequences, blocks] {
            list.clear();
        }
        spans.clear();
        asked.clear();
        changes.clear();
        *bucket = None;
    }

    /// Rows that operations are prepared to be asked of.
    #[must_use]
    pub fn most_asked(&self) -> usize {
        self.bucket.unwrap_or(self.asked.len())
    }

    /// Adds a sequence's next tokens, which become the next rows. `blocks` are those of the sequence from position 0 on.
    pub fn push(&mut self, sequence: u32, position: u32, tokens: &[u32], blocks: &[u32]) {
        self.spans.push(Span { tokens: tokens.len() as u32, position, first_block: self.blocks.len() as u32 });
        self.ids.extend_from_slice(tokens);
        self.positions.extend((position..).take(tokens.len()));
        self.sequences.resize(self.ids.len(), sequence);
        self.blocks.extend_from_slice(blocks);
    }
}

/// What a step left for the host.
#[derive(Clone, Debug)]
pub struct Collected<'a> {
    /// For each of what was asked, in its order.
    pub sampled: Cow<'a, [Sampled]>,
    /// Best tokens of each, best first, [`MOST_BEST`] places for each; as many of them are filled as were asked for and the
    /// vocabulary has.
    pub best: Cow<'a, [Scored]>,
    /// (token, expert) pairs that this rank computed in each of its slots, `[layers, slots]`.
    pub pairs: Cow<'a, [u32]>,
    /// How long the device was at what it was told to take the time of.
    pub times: StepTimes,
}
