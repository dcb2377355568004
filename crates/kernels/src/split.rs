//! How the workers share the rows of one or several weights. Does not own what is done with them.
//!
//! Few activation rows: memory is what counts, so each worker walks straight through one contiguous share of the bytes; giving
//! out chunks as workers become free costs 7-12% there. Whoever is done first takes from the ends of what others have left.
//! Many: chunks are taken as workers become free.

use crate::Cpu;
use crate::matmul::{Matrix, Scratch};
use crate::pool::Chunks;
use std::ops::Range;
use std::sync::{PoisonError, TryLockError};

/// Up to so many activation rows reading the weights takes longer than multiplying them.
const FEW_ROWS: usize = 16;

/// Weight rows of the smallest range: their results fill a cache line, so that two workers do not write to one.
const STRIP_ROWS: usize = 16;

/// Strips of one call of a kernel for one activation row: the fewer, the sooner the result leaves the first level cache.
const ONE_ROW_STRIPS: usize = 4;

/// The same for a few, where multiplying counts as well and calls are to be few.
const FEW_ROWS_STRIPS: usize = 64;

impl Cpu {
    /// Calls `f(weight_idx, rows, scratch)` until every row of every weight has been in exactly one call. With many activation
    /// rows `m`, which all are read again for each call, these are `batch_chunk` rows at most.
    pub(crate) fn split(
        &self,
        m: usize,
        batch_chunk: usize,
        weights: &[Option<Matrix<'_>>],
        f: impl Fn(usize, Range<usize>, &mut Scratch) + Sync,
    ) {
        match m {
            0 => {}
            1 => self.split_evenly(&Strips { weights, height: STRIP_ROWS }, ONE_ROW_STRIPS, f),
            2..=FEW_ROWS => self.split_evenly(&Strips { weights, height: STRIP_ROWS }, FEW_ROWS_STRIPS, f),
            _ => self.split_in_chunks(&Strips { weights, height: batch_chunk }, f),
        }
    }

    fn split_evenly(&self, strips: &Strips<'_>, most: usize, f: impl Fn(usize, Range<usize>, &mut Scratch) + Sync) {
        let mut shares = match self.shares.try_lock() {
            Ok(shares) => shares,
            Err(TryLockError::Poisoned(poison)) => poison.into_inner(),
            // Another job has the workers.
            Err(TryLockError::WouldBlock) => {
                let mut scratch = self.scratch[0].lock().unwrap_or_else(PoisonError::into_inner);
                let n = strips.len();
                return (0..n).step_by(most).for_each(|at| strips.rows(at..n.min(at + most), |idx, rows| f(idx, rows, &mut scratch)));
            }
        };
        shares.reset();
        let shares = &*shares;
        self.pool.run(move |worker: usize, n_workers: usize| {
            let mut scratch = self.scratch[worker].lock().unwrap_or_else(PoisonError::into_inner);
            while let Some(range) = shares.take(worker, n_workers, most, |worker| strips.share(worker, n_workers)) {
                strips.rows(range, |idx, rows| f(idx, rows, &mut scratch));
            }
        });
    }

    fn split_in_chunks(&self, strips: &Strips<'_>, f: impl Fn(usize, Range<usize>, &mut Scratch) + Sync) {
        let chunks = Chunks::new(strips.len(), 1);
        self.pool.run(|worker: usize, _| {
            let mut scratch = self.scratch[worker].lock().unwrap_or_else(PoisonError::into_inner);
            while let Some(range) = chunks.take() {
                strips.rows(range, |idx, rows| f(idx, rows, &mut scratch));
            }
        });
    }
}

/// The rows of several weights, one after the other, as strips of `height` rows, the last of each weight lower.
#[derive(Clone, Copy)]
struct Strips<'a> {
    weights: &'a [Option<Matrix<'a>>],
    height: usize,
}

impl Strips<'_> {
    /// How many there are.
    fn len(&self) -> usize {
        self.weights.iter().flatten().map(|weight| self.of(weight)).sum()
    }

    fn of(&self, weight: &Matrix<'_>) -> usize {
        weight.rows().div_ceil(self.height)
    }

    /// Calls `f(weight_idx, rows)` for the rows of strips `range`, once for each weight that has any of them.
    fn rows(&self, range: Range<usize>, mut f: impl FnMut(usize, Range<usize>)) {
        let mut first = 0;
        for (idx, weight) in self.weights.iter().flatten().enumerate() {
            let n = self.of(weight);
            let (start, end) = (range.start.clamp(first, first + n) - first, range.end.clamp(first, first + n) - first);
            if start < end {
                f(idx, start * self.height..weight.rows().min(end * self.height));
            }
            first += n;
        }
    }

    /// The strips of `worker`, so that all read equally many bytes.
    fn share(&self, worker: usize, n_workers: usize) -> Range<usize> {
        let total: usize = self.weights.iter().flatten().map(Matrix::n_bytes).sum();
        let bound = |worker: usize| {
            let mut bytes = (total as u128 * worker as u128 / n_workers as u128) as usize;
            let mut first = 0;
            for weight in self.weights.iter().flatten() {
                if bytes < weight.n_bytes() {
                    return first + bytes / (weight.n_bytes() / weight.rows()) / self.height;
                }
                bytes -= weight.n_bytes();
                first += self.of(weight);
            }
            first
        };
        bound(worker)..bound(worker + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, Isa};
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Every row of every weight, for few and many activation rows, alone and while another job has the workers.
    #[test]
    fn every_row_is_visited_once() {
        let bytes = vec![0; 4096 * 34];
        for shapes in [&[(1, 32)][..], &[(15, 64), (16, 32)], &[(1000, 32), (7, 128), (0, 32), (33, 64)]] {
            let mut weights = [None; 4];
            for (weight, &(rows, cols)) in weights.iter_mut().zip(shapes) {
                *weight = Some(Matrix::new(DType::Q8_0, rows, cols, &bytes[..rows * cols / 32 * 34]).expect("its bytes"));
            }
            for threads in [1, 2, 5] {
                let cpu = Cpu::new(Isa::SCALAR, threads);
                for (m, is_busy) in [(1, false), (3, false), (40, false), (1, true), (3, true)] {
                    let busy = is_busy.then(|| cpu.shares.lock());
                    let visits: Vec<Vec<AtomicU32>> =
                        shapes.iter().map(|&(rows, _)| (0..rows).map(|_| AtomicU32::new(0)).collect()).collect();
                    cpu.split(m, 128, &weights, |idx, rows, _| {
                        visits[idx][rows].iter().for_each(|row| assert_eq!(row.fetch_add(1, Ordering::Relaxed), 0));
                    });
                    assert!(visits.iter().flatten().all(|row| row.load(Ordering::Relaxed) == 1), "{shapes:?}, {threads} threads, m {m}");
                    drop(busy);
                }
            }
        }
    }
}
