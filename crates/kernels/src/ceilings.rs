//! What this machine can at most do, measured the way the kernels work: bytes read and bytes multiplied per second.
//! Benchmarks report kernels and whole models as a share of these.

use crate::Cpu;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

impl Cpu {
    /// Bytes per second that all workers read together from `bytes`, which should be far larger than the caches.
    pub fn read_ceiling(&self, bytes: &[u8]) -> f64 {
        let read = self.table.read;
        let start = Instant::now();
        self.pool.run(|worker: usize, n_workers: usize| {
            let share = bytes.len() / n_workers;
            // SAFETY: the table is that of an `Isa`, and those exist only if the machine has them.
            std::hint::black_box(unsafe { read(&bytes[worker * share..(worker + 1) * share]) });
        });
        bytes.len() as f64 / start.elapsed().as_secs_f64()
    }

    /// Eight-bit multiplications and additions per second that all workers do together, on registers only.
    pub fn int8_ceiling(&self) -> f64 {
        let multiply = self.table.multiply;
        let done = AtomicUsize::new(0);
        let start = Instant::now();
        self.pool.run(|_, _| {
            // SAFETY: the table is that of an `Isa`, and those exist only if the machine has them.
            done.fetch_add(unsafe { multiply(500_000) }, Ordering::Relaxed);
        });
        done.into_inner() as f64 / start.elapsed().as_secs_f64()
    }
}
