//! The paged KV cache and attention over it.
//!
//! A tile is 16 consecutive tokens of a block. Of each head it holds the keys as `[dimension][16]`, so that one vector
//! holds the scores of 16 keys, and the values as `[dimension / 16][16][16]`, so that one vector holds 16 elements of
//! the output. Both are then products like any other (see [`super::product`]): a score is one chain over the dimension,
//! an output element one chain over the keys from position 0 on. So a token's output depends on nothing but its own
//! query and its sequence's keys and values up to its position.

mod tokens;

use super::matrix::F32;
use super::product::accumulate;
use super::simd::{Kernel, LANES, Line, Vector};
use super::untouched::Untouched;
use crate::backend::{CACHE_TILE, CacheShape, HeadShape};
use crate::batch::StepArea;
use crate::error::DeviceError;

pub(crate) use self::tokens::Tokens;

/// Query rows that are taken together.
pub(crate) const QUERY_ROWS: usize = 8;

/// Consecutive tokens of one sequence within a batch.
#[derive(Clone, Copy)]
pub(crate) struct CachedSpan<'a> {
    /// Number of tokens, each one row.
    pub tokens: usize,
    /// Position of the first of them in its sequence.
    pub position: usize,
    /// Cache blocks of the sequence, from position 0 to at least the last of the tokens.
    pub blocks: &'a [u32],
}

/// The sequences of a batch.
pub(crate) fn spans(area: &StepArea) -> impl Iterator<Item = CachedSpan<'_>> + Clone {
    area.spans.iter().map(|span| CachedSpan {
        tokens: span.tokens as usize,
        position: span.position as usize,
        blocks: &area.blocks[span.first_block as usize..],
    })
}

/// Keys and values of one layer.
#[derive(Debug)]
pub struct Cache {
    shape: CacheShape,
    /// `[blocks][tiles][key-value heads][key lines, value lines]`
    lines: Untouched,
}

impl Cache {
    /// # Errors
    /// If the system has no memory for it.
    ///
    /// # Panics
    /// If a block does not hold whole tiles.
    pub(crate) fn new(shape: CacheShape) -> Result<Self, DeviceError> {
        assert!(
            shape.block_tokens > 0 && shape.block_tokens.is_multiple_of(CACHE_TILE),
            "a block of {} tokens does not hold whole tiles of {CACHE_TILE}",
            shape.block_tokens
        );
        let bytes = Self::bytes(shape);
        let count = usize::try_from(bytes).map_err(|_| DeviceError::Memory { bytes })? / size_of::<Line>();
        let lines = Untouched::zeroed(count).map_err(|_| DeviceError::Memory { bytes })?;
        Ok(Self { shape, lines })
    }

    /// Bytes that one takes; more than there ever are where they cannot be counted.
    pub(crate) fn bytes(shape: CacheShape) -> u64 {
        let head = Self::tile_lines(shape.heads) * size_of::<Line>();
        [shape.block_tokens / CACHE_TILE, shape.heads.key_value, head]
            .into_iter()
            .fold(shape.blocks as u64, |bytes, times| bytes.saturating_mul(times as u64))
    }

    pub(crate) const fn heads(&self) -> HeadShape {
        self.shape.heads
    }

    const fn value_groups(heads: HeadShape) -> usize {
        heads.dimension.div_ceil(LANES)
    }

    /// Lines of one tile of one head.
    const fn tile_lines(heads: HeadShape) -> usize {
        heads.dimension + Self::value_groups(heads) * CACHE_TILE
    }

    /// First line of tile `tile` of a sequence.
    #[inline(always)]
    fn tile(&self, blocks: &[u32], tile: usize, head: usize) -> usize {
        let tiles = self.shape.block_tokens / CACHE_TILE;
        let place = blocks[tile / tiles] as usize * tiles + tile % tiles;
        (place * self.shape.heads.key_value + head) * Self::tile_lines(self.shape.heads)
    }

    /// Puts the keys and values of the spans' tokens into their places.
    pub(crate) fn store<'a>(&mut self, projected: &[f32], spans: impl Iterator<Item = CachedSpan<'a>>) {
        let heads = self.shape.heads;
        let HeadShape { query, key_value, dimension } = heads;
        let mut rows = projected.chunks_exact(heads.projected_width());
        for span in spans {
            for (offset, row) in rows.by_ref().take(span.tokens).enumerate() {
                let position = span.position + offset;
                let (tile, token) = (position / CACHE_TILE, position % CACHE_TILE);
                let (_, keys_values) = row.split_at(query * dimension);
                let (keys, values) = keys_values.split_at(key_value * dimension);
                for head in 0..key_value {
                    let start = self.tile(span.blocks, tile, head);
                    let lines = &mut self.lines.lines_mut()[start..start + Self::tile_lines(heads)];
                    let (key_lines, value_lines) = lines.split_at_mut(dimension);
                    for (line, value) in key_lines.iter_mut().zip(&keys[head * dimension..]) {
                        line.0[token] = value.to_bits();
                    }
                    let values = &values[head * dimension..][..dimension];
                    for (group, values) in values.chunks(LANES).enumerate() {
                        let line: &mut [f32; LANES] =
                            bytemuck::cast_mut(&mut value_lines[group * CACHE_TILE + token].0);
                        line[..values.len()].copy_from_slice(values);
                    }
                }
            }
        }
    }
}

/// Attention of consecutive tokens of one sequence, all heads.
pub(crate) struct Attend<'a> {
    pub cache: &'a Cache,
    /// Projections of the tokens.
    pub projected: &'a [f32],
    /// The tokens.
    pub span: CachedSpan<'a>,
    /// At least [`scratch_len`] elements.
    pub scratch: &'a mut [f32],
    /// `[tokens, query heads * dimension]`.
    pub out: &'a mut [f32],
}

/// Scratch that [`Attend`] needs when its last token has position `last`.
pub(crate) const fn scratch_len(last: usize) -> usize {
    (last / CACHE_TILE + 1).saturating_mul(QUERY_ROWS * CACHE_TILE)
}

impl Kernel for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<X: Vector>(mut self, x: X) {
        let HeadShape { query, key_value, .. } = self.cache.shape.heads;
        let group = query / key_value;
        let rows = self.span.tokens * group;
        for head in 0..key_value {
            let mut row = 0;
            while row < rows {
                let left = rows - row;
                if X::TILE_ROWS >= 8 && left >= 8 {
                    self.tile::<X, 8>(x, head, row);
                    row += 8;
                } else if X::TILE_ROWS >= 4 && left >= 4 {
                    self.tile::<X, 4>(x, head, row);
                    row += 4;
                } else if X::TILE_ROWS >= 3 && left >= 3 {
                    self.tile::<X, 3>(x, head, row);
                    row += 3;
                } else if X::TILE_ROWS >= 2 && left >= 2 {
                    self.tile::<X, 2>(x, head, row);
                    row += 2;
                } else {
                    self.tile::<X, 1>(x, head, row);
                    row += 1;
                }
            }
        }
    }
}

impl Attend<'_> {
    /// `M` (token, query head) rows of one key head, from `row` on.
    #[inline(always)]
    fn tile<X: Vector, const M: usize>(&mut self, x: X, head: usize, row: usize) {
        let heads = self.cache.shape.heads;
        let HeadShape { query, key_value, dimension } = heads;
        let group = query / key_value;
        let token = |i: usize| (row + i) / group;
        let query_head = |i: usize| head * group + (row + i) % group;
        let lines = self.cache.lines.lines();
        let keys = self.span.position + token(M - 1) + 1;
        let tiles = keys.div_ceil(CACHE_TILE);
        let width = tiles * CACHE_TILE;

        let mut queries: [&[f32]; M] = [&[]; M];
        for (i, slot) in queries.iter_mut().enumerate() {
            let start = token(i) * heads.projected_width() + query_head(i) * dimension;
            *slot = &self.projected[start..start + dimension];
        }
        let scores = &mut self.scratch[..M * width];
        let mut tile = 0;
        while tile < tiles {
            let start = self.cache.tile(self.span.blocks, tile, head);
            let panel = &lines[start..start + dimension];
            if M <= 4 && tile + 1 < tiles {
                let start = self.cache.tile(self.span.blocks, tile + 1, head);
                let mut sums = [[[x.splat(0.0)]; 2]; M];
                accumulate::<X, F32, 1, M, 2>(x, queries, [panel, &lines[start..start + dimension]], &mut sums);
                for (scores, sums) in scores.chunks_exact_mut(width).zip(&sums) {
                    x.store_part(sums[0][0], &mut scores[tile * CACHE_TILE..][..LANES]);
                    x.store_part(sums[1][0], &mut scores[(tile + 1) * CACHE_TILE..][..LANES]);
                }
                tile += 2;
            } else {
                let mut sums = [[[x.splat(0.0)]; 1]; M];
                accumulate::<X, F32, 1, M, 1>(x, queries, [panel], &mut sums);
                for (scores, sums) in scores.chunks_exact_mut(width).zip(&sums) {
                    x.store_part(sums[0][0], &mut scores[tile * CACHE_TILE..][..LANES]);
                }
                tile += 1;
            }
        }

        let scale = 1.0 / (dimension as f32).sqrt();
        let mut inverse = [0.0; M];
        for (i, scores) in scores.chunks_exact_mut(width).enumerate() {
            inverse[i] = softmax(x, scores, self.span.position + token(i) + 1, scale);
        }

        let scores = &self.scratch[..M * width];
        let groups = Cache::value_groups(heads);
        let mut column = 0;
        while column < groups {
            let place = Place { cache: self.cache, lines, blocks: self.span.blocks, head, column, keys };
            if column + 2 <= groups {
                let sums = weighted::<X, M, 2>(x, scores, &place);
                for i in 0..M {
                    let out = &mut self.out[(token(i) * query + query_head(i)) * dimension..][..dimension];
                    for (p, sum) in sums[i].iter().enumerate() {
                        let start = (column + p) * LANES;
                        let end = dimension.min(start + LANES);
                        x.store_part(x.mul(sum[0], x.splat(inverse[i])), &mut out[start..end]);
                    }
                }
                column += 2;
            } else {
                let sums = weighted::<X, M, 1>(x, scores, &place);
                for i in 0..M {
                    let out = &mut self.out[(token(i) * query + query_head(i)) * dimension..][..dimension];
                    let start = column * LANES;
                    x.store_part(x.mul(sums[i][0][0], x.splat(inverse[i])), &mut out[start..]);
                }
                column += 1;
            }
        }
    }
}

/// Where the values are that [`weighted`] adds up.
struct Place<'a> {
    cache: &'a Cache,
    lines: &'a [Line],
    blocks: &'a [u32],
    head: usize,
    column: usize,
    /// Keys that the last of the rows looks at.
    keys: usize,
}

/// The sum of `P` vectors of the values, from column `place.column` on, weighted by `M` rows of probabilities.
#[inline(always)]
fn weighted<X: Vector, const M: usize, const P: usize>(
    x: X,
    probabilities: &[f32],
    place: &Place<'_>,
) -> [[[X::F32; 1]; P]; M] {
    let width = probabilities.len() / M;
    let dimension = place.cache.shape.heads.dimension;
    let mut sums = [[[x.splat(0.0)]; P]; M];
    for tile in 0..width / CACHE_TILE {
        // What lies behind the last key belongs to no one: zero times it need not be zero.
        let depth = CACHE_TILE.min(place.keys - tile * CACHE_TILE);
        let start = place.cache.tile(place.blocks, tile, place.head) + dimension + place.column * CACHE_TILE;
        let values = &place.lines[start..start + P * CACHE_TILE];
        let mut rows: [&[f32]; M] = [&[]; M];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = &probabilities[i * width + tile * CACHE_TILE..][..depth];
        }
        let mut panels: [&[Line]; P] = [&[]; P];
        for (p, panel) in panels.iter_mut().enumerate() {
            *panel = &values[p * CACHE_TILE..][..CACHE_TILE];
        }
        accumulate::<X, F32, 1, M, P>(x, rows, panels, &mut sums);
    }
    sums
}

/// Replaces the first `len` scores by `e^(scale * (score - max))` and the others by 0; returns one over their sum.
#[inline(always)]
fn softmax<X: Vector>(x: X, scores: &mut [f32], len: usize, scale: f32) -> f32 {
    scores[len..].fill(f32::NEG_INFINITY);
    let mut largest = x.splat(f32::NEG_INFINITY);
    for part in scores.chunks_exact(LANES) {
        largest = x.max(largest, x.load_part(part));
    }
    let shift = x.splat(-(x.largest(largest) * scale));
    let scale = x.splat(scale);
    let mut sum = x.splat(0.0);
    for part in scores.chunks_exact_mut(LANES) {
        let value = x.exp(x.fma(x.load_part(part), scale, shift));
        sum = x.add(sum, value);
        x.store_part(value, part);
    }
    1.0 / x.sum(sum)
}
