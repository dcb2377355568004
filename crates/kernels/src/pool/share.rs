//! Dividing `0..total` among workers: evenly, by whoever asks, or evenly at first and by whoever asks at the end.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::Line;

/// The contiguous part of `0..total` that is `worker`'s when `n_workers` share evenly, in multiples of `unit` except
/// at the end.
pub fn share(total: usize, unit: usize, worker: usize, n_workers: usize) -> Range<usize> {
    let units = total.div_ceil(unit);
    let at = |w: usize| (units * w / n_workers * unit).min(total);
    at(worker)..at(worker + 1)
}

/// Hands out `0..total` in ranges of `size`, each once, to whichever worker asks: for cores of uneven speed.
pub struct Chunks {
    next: Line<AtomicUsize>,
    total: usize,
    size: usize,
}

impl Chunks {
    /// Ranges of `size` items (at least 1), the last one shorter.
    pub fn new(total: usize, size: usize) -> Self {
        Self { next: Line(AtomicUsize::new(0)), total, size: size.max(1) }
    }

    /// The next range, or `None` when all are taken.
    pub fn take(&self) -> Option<Range<usize>> {
        // A load first, so that asking again after the end cannot wrap the counter.
        if self.next.0.load(Ordering::Relaxed) >= self.total {
            return None;
        }
        let start = self.next.0.fetch_add(self.size, Ordering::Relaxed);
        (start < self.total).then(|| start..self.total.min(start + self.size))
    }
}

/// A contiguous share of work for each worker, who walks through it from the front; who is done takes from the ends of what
/// others have left. So each reads straight down memory, and none waits long for another.
pub struct Shares {
    /// What is left of each worker's share, start and end in 32 bits each.
    left: Box<[Line<AtomicU64>]>,
}

/// A share nobody has taken from yet.
const WHOLE: u64 = u64::MAX;

impl Shares {
    /// For at most so many workers, at least one.
    pub fn new(n_workers: usize) -> Self {
        Self { left: (0..n_workers.max(1)).map(|_| Line(AtomicU64::new(WHOLE))).collect() }
    }

    /// Begins another job: every share is whole again.
    pub fn reset(&mut self) {
        self.left.iter_mut().for_each(|left| *left.0.get_mut() = WHOLE);
    }

    /// The next range for `worker` of `n_workers`: at most `most` items and at most half of what is left of a share, so that the
    /// last ones are short. `whole(worker)` is a worker's share, the same at each call of one job, with less than 2^32 - 1
    /// items. `None` when all is taken. Panics if there are more workers than it was made for.
    pub fn take(&self, worker: usize, n_workers: usize, most: usize, whole: impl Fn(usize) -> Range<usize>) -> Option<Range<usize>> {
        let victims = (0..n_workers).map(|i| (worker + i) % n_workers);
        victims.filter_map(|victim| self.take_from(victim, victim == worker, most, &whole)).next()
    }

    fn take_from(&self, owner: usize, from_front: bool, most: usize, whole: &impl Fn(usize) -> Range<usize>) -> Option<Range<usize>> {
        let cell = &self.left[owner].0;
        let mut packed = cell.load(Ordering::Relaxed);
        loop {
            let left = if packed == WHOLE { whole(owner) } else { unpack(packed) };
            if left.is_empty() {
                return None;
            }
            let n = (left.len() / 2).clamp(1, most.max(1));
            let (taken, rest) = if from_front {
                (left.start..left.start + n, left.start + n..left.end)
            } else {
                (left.end - n..left.end, left.start..left.end - n)
            };
            match cell.compare_exchange_weak(packed, pack(rest), Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(taken),
                Err(now) => packed = now,
            }
        }
    }
}

fn pack(range: Range<usize>) -> u64 {
    (range.start as u64) << 32 | range.end as u64
}

fn unpack(packed: u64) -> Range<usize> {
    (packed >> 32) as usize..(packed & u64::from(u32::MAX)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_and_shares_cover_everything_once() {
        for (total, size) in [(0, 4), (1, 4), (16, 4), (17, 4), (5, 0)] {
            let chunks = Chunks::new(total, size);
            let mut seen = Vec::new();
            while let Some(range) = chunks.take() {
                seen.extend(range);
            }
            assert_eq!(seen, (0..total).collect::<Vec<_>>());
            let shared: Vec<usize> = (0..3).flat_map(|w| share(total, size.max(1), w, 3)).collect();
            assert_eq!(shared, seen);
        }
    }

    #[test]
    fn an_owner_walks_from_the_front_in_ever_shorter_ranges_and_who_is_done_takes_from_the_end() {
        let mut shares = Shares::new(2);
        let whole = |worker| share(20, 1, worker, 2);
        let take = |worker| shares.take(worker, 2, 4, whole);
        assert_eq!([take(0), take(0), take(0)], [Some(0..4), Some(4..7), Some(7..8)]);
        assert_eq!([take(0), take(0), take(0)], [Some(8..9), Some(9..10), Some(16..20)]);
        assert_eq!([take(1), take(0), take(1)], [Some(10..13), Some(15..16), Some(13..14)]);
        assert_eq!([take(0), take(1), take(0)], [Some(14..15), None, None]);
        shares.reset();
        assert_eq!(shares.take(1, 2, 4, whole), Some(10..14));
    }

    #[test]
    fn every_item_is_taken_once_however_many_take() {
        for n_workers in [1, 2, 5] {
            let shares = Shares::new(n_workers);
            let taken: Vec<AtomicUsize> = (0..1000).map(|_| AtomicUsize::new(0)).collect();
            std::thread::scope(|scope| {
                for worker in 0..n_workers {
                    let (shares, taken) = (&shares, &taken);
                    scope.spawn(move || {
                        while let Some(range) = shares.take(worker, n_workers, 7, |worker| share(1000, 1, worker, n_workers)) {
                            taken[range].iter().for_each(|item| assert_eq!(item.fetch_add(1, Ordering::Relaxed), 0));
                        }
                    });
                }
            });
            assert!(taken.iter().all(|item| item.load(Ordering::Relaxed) == 1));
        }
    }
}
