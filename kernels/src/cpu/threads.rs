//! Work split over the rank's threads. How it is split never changes a result.

use rayon::ThreadPool;
use rayon::prelude::*;

/// Multiply-adds below which a second thread costs more than it saves: waking it takes some ten microseconds.
const SPLIT_WORK: usize = 400_000;
/// Pieces for each thread, so that one that is held up is relieved by the others.
const PIECES: usize = 4;

/// The threads of a rank; the thread that made it is one of them.
#[derive(Debug)]
pub(crate) struct Threads {
    count: usize,
    pool: Option<ThreadPool>,
}

impl Threads {
    /// Starts `count - 1` threads.
    pub fn new(count: usize) -> Result<Self, rayon::ThreadPoolBuildError> {
        let build = || {
            rayon::ThreadPoolBuilder::new()
                .num_threads(count)
                .use_current_thread()
                .thread_name(|thread| format!("compute-{thread}"))
                .build()
        };
        let pool = (count > 1).then(build).transpose()?;
        Ok(Self { count, pool })
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

    /// Does every piece.
    pub fn each<T: Send>(&self, pieces: Vec<T>, work: impl Fn(T) + Send + Sync) {
        match &self.pool {
            Some(pool) if pieces.len() > 1 => pool.install(|| pieces.into_par_iter().with_max_len(1).for_each(work)),
            _ => pieces.into_iter().for_each(work),
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
}
