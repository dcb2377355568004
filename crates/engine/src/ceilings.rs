//! What this machine can at most read and multiply, so that measurements can be told as a share of it.

use downshift_kernels::{Cpu, Isa};

/// Far more than the caches hold.
const BYTES: usize = 256 << 20;

/// Short runs of each kind; the best counts, since what disturbs them only slows them down.
const RUNS: usize = 10;

/// The most that the CPU kernels could reach here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceilings {
    /// Bytes a second read from memory by all workers together.
    pub read_bytes_per_second: f64,
    /// Eight-bit multiplications and additions a second, on registers only.
    pub int8_ops_per_second: f64,
}

impl Ceilings {
    /// Measures both with `threads` workers and the kernels that sessions use. Takes a quarter of a second and 256 MiB.
    pub fn measure(threads: usize) -> Self {
        let cpu = Cpu::new(Isa::from_env(), threads);
        let bytes = vec![1; BYTES];
        let best = |run: &dyn Fn() -> f64| (0..RUNS).map(|_| run()).fold(0.0, f64::max);
        Self { read_bytes_per_second: best(&|| cpu.read_ceiling(&bytes)), int8_ops_per_second: best(&|| cpu.int8_ceiling()) }
    }

    /// The higher of both figures of two measurements.
    pub fn max(self, other: Self) -> Self {
        Self {
            read_bytes_per_second: self.read_bytes_per_second.max(other.read_bytes_per_second),
            int8_ops_per_second: self.int8_ops_per_second.max(other.int8_ops_per_second),
        }
    }
}
