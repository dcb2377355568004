//! CPU kernels on plain slices, picked at run time.
//!
//! [`Cpu`] owns a table of kernels and the workers that run them; products are in `matmul.rs`, their input in
//! `quantize.rs`, and how workers share them in `split.rs`.
//! What a format means is written once, in `scalar/`; `arch/` has the fast versions of it.
//! Does not own files, models or devices.
#![allow(unsafe_code, reason = "SIMD and disjoint writes by several workers live here; every block is argued")]

pub mod activation;
mod aligned;
mod arch;
pub mod attention;
mod blocks;
mod ceilings;
mod isa;
pub mod kv;
mod matmul;
pub mod norm;
pub mod ops;
pub mod pool;
mod quantize;
pub mod rope;
mod scalar;
pub mod softmax;
mod split;
mod table;

pub use activation::Activation;
pub use blocks::DType;
pub use isa::Isa;
pub use matmul::{LinearJob, Matrix, ShapeError};
pub use quantize::{Activations, Work};

use matmul::Scratch;
use ops::Ops;
use pool::{Pool, Shares, share};
use std::sync::Mutex;
use table::KernelTable;

/// Activations that one worker quantizes faster than several do together: it takes about two microseconds for them.
const QUANTIZE_ALONE: usize = 1 << 12;

/// The kernels of one instruction set and the workers to run them on.
pub struct Cpu {
    isa: Isa,
    table: &'static KernelTable,
    ops: Ops,
    pool: Pool,
    scratch: Vec<Mutex<Scratch>>,
    /// Of the job that runs.
    shares: Mutex<Shares>,
}

impl Cpu {
    /// Kernels of `isa` on `threads` workers (at least one), the calling thread included.
    pub fn new(isa: Isa, threads: usize) -> Self {
        let pool = Pool::new(threads);
        let scratch = (0..pool.threads()).map(|_| Mutex::default()).collect();
        Self { isa, table: KernelTable::of(isa), ops: Ops::of(isa), scratch, shares: Mutex::new(Shares::new(pool.threads())), pool }
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The float operations.
    pub fn ops(&self) -> Ops {
        self.ops
    }

    /// The workers.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Prepares whatever forms of the `m` rows of `k` activations in `acts` the kernels for weights of `dtypes` read.
    /// Panics if `acts` was not last filled with at least `m` rows of `k`.
    pub fn quantize(&self, acts: &mut Activations, m: usize, k: usize, dtypes: impl Iterator<Item = DType>) {
        assert!(m <= acts.rows() && k == acts.cols(), "{m} x {k} of {} x {}", acts.rows(), acts.cols());
        for dtype in dtypes {
            let form = self.table.kernels(dtype).for_rows(m, acts.work()).form;
            if acts.has(form) {
                continue;
            }
            let shared = &*acts;
            let fill = |rows| {
                // SAFETY: the table is that of an `Isa`, and those exist only if the machine has them; `acts` is borrowed
                // mutably, and the ranges given below do not overlap.
                unsafe { (self.table.quantize)(shared, rows, form) }
            };
            if m == 1 || m * k < QUANTIZE_ALONE {
                fill(0..m);
            } else {
                self.pool.run(|worker: usize, n_workers: usize| fill(share(m, form.rows_together(), worker, n_workers)));
            }
            acts.add(form);
        }
    }

    /// Row `row` of `weight` as f32, as for an embedding. Panics if there is no such row or `out` is not as long as it.
    pub fn dequantize_row(&self, weight: &Matrix<'_>, row: usize, out: &mut [f32]) {
        assert!(out.len() == weight.cols(), "{} columns into {}", weight.cols(), out.len());
        scalar::dequantize(weight.dtype())(weight.row(row), out);
    }
}
