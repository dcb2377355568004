//! The kernels of each instruction set: one static table an [`Isa`], one entry a format.
//! Does not own threads or shapes; that is `matmul.rs`.

use crate::blocks::DType;
use crate::isa::{Isa, Tier};
use crate::quantize::{Activations, Form};
use crate::scalar;
use std::ops::Range;

/// Products of a few activation rows (at most `matmul::ROWS_MAX`) with consecutive weight rows:
/// `(dtype, w, k, acts, rows, out)`, `out[i, r] = x_i · w_r`, `out` being (rows, rows of w).
///
/// # Safety
/// The machine must have the instruction set of the table that the function is taken from. Shapes are checked inside.
pub(crate) type DotRows = unsafe fn(DType, &[u8], usize, &Activations, Range<usize>, &mut [f32]);

/// The kernels of one format in one instruction set.
#[derive(Clone, Copy)]
pub(crate) struct Kernels {
    pub(crate) form: Form,
    pub(crate) dot_rows: DotRows,
}

/// The kernels of one instruction set.
pub(crate) struct KernelTable {
    kernels: fn(DType) -> Kernels,
}

impl KernelTable {
    pub(crate) fn of(isa: Isa) -> &'static Self {
        match isa.0 {
            Tier::Scalar => &SCALAR,
        }
    }

    /// The kernels for weights of this type.
    pub(crate) fn kernels(&self, dtype: DType) -> Kernels {
        (self.kernels)(dtype)
    }
}

static SCALAR: KernelTable = KernelTable {
    kernels: |_| Kernels {
        form: Form::F32,
        dot_rows: scalar::dot_rows,
    },
};
