//! The kernels of each instruction set: one static table an [`Isa`], one entry a format.
//! Does not own threads or shapes; that is `matmul.rs`.

use crate::aligned::Aligned;
#[cfg(target_arch = "x86_64")]
use crate::arch::{amx, avx2, avx512_vnni};
use crate::blocks::DType;
use crate::isa::{Isa, Tier};
use crate::quantize::{Activations, Form, Work};
use crate::scalar;
use std::ops::Range;

/// Products of a few activation rows (at most `matmul::ROWS_MAX`) with consecutive weight rows:
/// `(dtype, w, k, acts, rows, out)`, `out[i, r] = x_i · w_r`, `out` being (rows, rows of w).
///
/// # Safety
/// The machine must have the instruction set of the table that the function is taken from. Shapes are checked inside.
pub(crate) type DotRows = unsafe fn(DType, &[u8], usize, &Activations, Range<usize>, &mut [f32]);

/// Fills one form of some rows of activations, from a multiple of `Form::rows_together` on.
///
/// # Safety
/// As for [`DotRows`], and nobody else reads or writes that form of these rows.
pub(crate) type Quantize = unsafe fn(&Activations, Range<usize>, Form);

/// Products with consecutive weight rows: `(dtype, w, k, acts, m, panels, sums)`. The buffers grow as needed; `sums` holds the
/// result as [`Batch::sums`] says.
///
/// # Safety
/// As for [`DotRows`].
pub(crate) type RunBatch = unsafe fn(DType, &[u8], usize, &Activations, usize, &mut Aligned<u16>, &mut Aligned<f32>);

/// A kernel that expands weights first, worth it for many activation rows.
#[derive(Clone, Copy)]
pub(crate) struct Batch {
    /// Worth it from here on.
    pub(crate) min_rows: usize,
    /// The same where rows are of [`Work::Decode`].
    pub(crate) min_decode_rows: usize,
    /// How it wants the activations.
    pub(crate) form: Form,
    pub(crate) run: RunBatch,
    pub(crate) sums: Sums,
}

/// How a batch kernel leaves its sums.
#[derive(Clone, Copy)]
pub(crate) enum Sums {
    /// As rows, one for each activation row, of the products with the weight rows, padded to a multiple of so many.
    Rows(usize),
    /// In an order of its own. `(sums, start, n, out)`: the products of up to [`BATCH_ROWS`] activation rows from `start`, a
    /// multiple of that, with `n` weight rows, as rows of `n`; as many as `out` is long.
    ///
    /// # Safety
    /// As for [`DotRows`].
    Tiles(unsafe fn(&[f32], usize, usize, &mut [f32])),
}

/// Activation rows that are finished at a time.
pub(crate) const BATCH_ROWS: usize = 32;

/// The kernels of one format in one instruction set.
#[derive(Clone, Copy)]
pub(crate) struct Kernels {
    /// How the kernel wants the activations.
    pub(crate) form: Form,
    pub(crate) dot_rows: DotRows,
    pub(crate) batch: Option<Batch>,
}

impl Kernels {
    /// The same, with the batch kernel only if it is the one for `m` activation rows.
    pub(crate) fn for_rows(self, m: usize, work: Work) -> Self {
        let batch = self.batch.filter(|batch| {
            m >= match work {
                Work::Prompt => batch.min_rows,
                Work::Decode => batch.min_decode_rows,
            }
        });
        Self { batch, form: batch.map_or(self.form, |batch| batch.form), ..self }
    }
}

/// The kernels of one instruction set.
pub(crate) struct KernelTable {
    pub(crate) kernels: fn(DType) -> Kernels,
    pub(crate) quantize: Quantize,
    /// Reads bytes and returns something that depends on them, as fast as the kernels could.
    pub(crate) read: unsafe fn(&[u8]) -> u64,
    /// Multiplies bytes for so many rounds and returns the multiplications and additions made.
    pub(crate) multiply: unsafe fn(usize) -> usize,
}

impl KernelTable {
    pub(crate) fn of(isa: Isa) -> &'static Self {
        match isa.0 {
            Tier::Scalar => &SCALAR,
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2 => &avx2::TABLE,
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512Vnni => &avx512_vnni::TABLE,
            #[cfg(target_arch = "x86_64")]
            Tier::Amx => &amx::TABLE,
        }
    }

    /// The kernels for weights of this type.
    pub(crate) fn kernels(&self, dtype: DType) -> Kernels {
        (self.kernels)(dtype)
    }
}

static SCALAR: KernelTable = KernelTable {
    kernels: |_| Kernels { form: Form::F32, dot_rows: scalar::dot_rows, batch: None },
    quantize: |_, _, _| {},
    read: |bytes| bytes.as_chunks::<8>().0.iter().fold(0, |sum, b| sum ^ u64::from_le_bytes(*b)),
    multiply: scalar::multiply,
};
