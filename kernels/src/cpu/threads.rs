//! Work split over the rank's threads. How it is split never changes a result.

use std::sync::Arc;

use rayon::ThreadPool;
use rayon::prelude::*;

use super::scratch::{Lent, Scratch};

/// Multiply-adds below which a second thread costs more than it saves: waking it takes some ten microseconds.
const SPLIT_WORK: usize = 400_000;
/// Pieces for each thread, so that one that is held up is relieved by the others.
const PIECES: usize = 4;

/// The threads of a rank; the thread that made it is one of them.
#[derive(Debug)]
pub(crate) struct Threads {
    count: usize,
    pool: Option<ThreadPool>,
    scratch: Arc<Scratch>,
}

impl Threads {
    /// Starts `count - 1` threads, that use this scratch.
    pub fn new(count: usize, scratch: Arc<Scratch>) -> Result<Self, rayon::ThreadPoolBuildError> {
        let build = || {
            rayon::ThreadPoolBuilder::new()
                .num_threads(count)
                .use_current_thread()
                .thread_name(|thread| format!("compute-{thread}"))
                .build()
        };
        let pool = (count > 1).then(build).transpose()?;
        if let Some(pool) = &pool {
            // Each has then started, and what the pool keeps for a thread is not made in the first step.
            pool.broadcast(|_| ());
        }
        Ok(Self { count, pool, scratch })
    }

    /// In how many pieces to split `work` multiply-adds.
    pub fn pieces(&self, work: usize) -> usize {
        if self.count == 1 || work < SPLIT_WORK { 1 } else { (self.count * PIECES).min(2 * work / SPLIT_WORK) }
    }

    /// Rows of each piece when `rows` rows of `work` multiply-adds are split; a multiple of 8 unless it is all.
    pub fn rows(&self, rows: usize, work: usize) -> usize {
        match self.pieces(rows * work) {
            1 => rows.max(1),
            pieces => rows.div_ceil(pieces).next_multiple_of(8),
        }
    }

    /// Does `work` for all parts of something, which `halve` splits in two as long as there is a point to it.
    pub fn each<T: Send>(
        &self,
        whole: T,
        halve: impl Fn(T) -> (T, Option<T>) + Sync,
        work: impl Fn(T, &mut Lent) + Sync,
    ) {
        let Some(pool) = &self.pool else { return self.lend(|scratch| work(whole, scratch)) };
        match halve(whole) {
            (whole, None) => self.lend(|scratch| work(whole, scratch)),
            (first, Some(second)) => pool.install(|| {
                rayon::join(|| self.parts(first, &halve, &work), || self.parts(second, &halve, &work));
            }),
        }
    }

    fn parts<T: Send>(
        &self,
        part: T,
        halve: &(impl Fn(T) -> (T, Option<T>) + Sync),
        work: &(impl Fn(T, &mut Lent) + Sync),
    ) {
        match halve(part) {
            (part, None) => self.lend(|scratch| work(part, scratch)),
            (first, Some(second)) => {
                rayon::join(|| self.parts(first, halve, work), || self.parts(second, halve, work));
            }
        }
    }

    /// Does `work(first_row, rows)` for pieces of `out`, `rows` rows of `width` at a time.
    pub fn each_rows<T: Send>(
        &self,
        out: &mut [T],
        width: usize,
        rows: usize,
        work: impl Fn(usize, &mut [T]) + Send + Sync,
    ) {
        match &self.pool {
            Some(pool) if out.len() > rows * width => pool.install(|| {
                out.par_chunks_mut(rows * width)
                    .with_max_len(1)
                    .enumerate()
                    .for_each(|(piece, out)| work(piece * rows, out));
            }),
            _ => work(0, out),
        }
    }

    /// Lends the calling thread its scratch. Whoever has it asks for no other, and puts off no work of his to other threads.
    pub fn lend<T>(&self, work: impl FnOnce(&mut Lent) -> T) -> T {
        let thread = self.pool.as_ref().and_then(ThreadPool::current_thread_index).unwrap_or(0);
        work(&mut self.scratch.of(thread))
    }
}
