//! Matrix products of activations with weights in file layout: shapes, and what is done to a result before it is stored. Does not
//! own the inner loops, which are the kernels of `table.rs`, nor how workers share the rows, which is `split.rs`.

use crate::Cpu;
use crate::activation::Activation;
use crate::aligned::Aligned;
use crate::blocks::DType;
use crate::quantize::Activations;
use crate::table::{BATCH_ROWS, Batch, Kernels, Sums};
use std::fmt;
use std::ops::Range;

/// The most activation rows that one call of a `DotRows` kernel takes.
pub(crate) const ROWS_MAX: usize = 8;

/// Weight rows of one call of a kernel for many activation rows.
const BATCH_CHUNK: usize = 256;

/// Jobs that share one fork and join.
const JOBS_MAX: usize = 8;

/// A weight matrix (rows, cols) in a file's own layout, at any alignment; row after row without gaps.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    dtype: DType,
    rows: usize,
    cols: usize,
    row_bytes: usize,
    data: &'a [u8],
}

/// The bytes given do not hold the matrix described.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShapeError {
    /// The type of the weights.
    pub dtype: DType,
    /// Rows of the matrix described.
    pub rows: usize,
    /// Columns of the matrix described.
    pub cols: usize,
    /// Bytes given.
    pub bytes: usize,
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dtype, rows, cols, bytes } = self;
        write!(f, "{bytes} bytes do not hold {rows} rows of {cols} {} weights", dtype.name())
    }
}

impl std::error::Error for ShapeError {}

impl<'a> Matrix<'a> {
    /// `rows` rows of `cols` weights; `data` must be exactly their bytes, and a row at least one block and only whole ones.
    pub fn new(dtype: DType, rows: usize, cols: usize, data: &'a [u8]) -> Result<Self, ShapeError> {
        dtype
            .row_bytes(cols)
            .filter(|bytes| cols > 0 && bytes.checked_mul(rows) == Some(data.len()))
            .map(|row_bytes| Self { dtype, rows, cols, row_bytes, data })
            .ok_or(ShapeError { dtype, rows, cols, bytes: data.len() })
    }

    /// How the weights are stored.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Outputs of the product.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs of the product.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes of all rows.
    pub(crate) fn n_bytes(&self) -> usize {
        self.data.len()
    }

    /// Row `row`. Panics if there is no such row.
    pub(crate) fn row(&self, row: usize) -> &'a [u8] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        self.bytes(row..row + 1)
    }

    /// Rows `range` as they lie in memory. Panics if there are not that many.
    fn bytes(&self, range: Range<usize>) -> &'a [u8] {
        &self.data[range.start * self.row_bytes..range.end * self.row_bytes]
    }
}

/// One product of the shared input with `weight`.
pub struct LinearJob<'a> {
    /// (n, k)
    pub weight: Matrix<'a>,
    /// Added to every row of the result, (n).
    pub bias: Option<&'a [f32]>,
    /// (m, n), row `i` at `i * out_stride`.
    pub out: &'a mut [f32],
    /// At least n.
    pub out_stride: usize,
    /// Add to what `out` holds, as for a residual, instead of overwriting it.
    pub accumulate: bool,
}

impl Cpu {
    /// `out = x · Wᵀ (+ bias)` for each of `jobs`, with the `m` rows that `acts` was last quantized from; one fork and join.
    ///
    /// Panics if a job's shape does not fit the input or its own `out` and `bias`, or if `quantize` was not told of its type.
    pub fn linear(&self, acts: &Activations, m: usize, jobs: &mut [LinearJob<'_>]) {
        assert!(m <= acts.rows(), "{m} rows of {}", acts.rows());
        for jobs in jobs.chunks_mut(JOBS_MAX) {
            let mut products = [None; JOBS_MAX];
            for (product, job) in products.iter_mut().zip(jobs) {
                *product = Some(self.product(acts, m, job));
            }
            self.linear_once(acts, m, &products);
        }
    }

    fn linear_once(&self, acts: &Activations, m: usize, products: &[Option<Product<'_>>; JOBS_MAX]) {
        let weights = products.map(|product| product.map(|product| product.weight));
        self.split(m, BATCH_CHUNK, &weights, |job, range, scratch| {
            let Some(Product { weight, kernels, bias, out, accumulate }) = products[job] else {
                return;
            };
            let [first, _] = &mut scratch.products;
            first.start(kernels, &weight, range.clone(), acts, m, &mut scratch.panel);
            for rows in blocks_of_rows(m) {
                let tile = first.rows(kernels, &weight, range.clone(), acts, rows.clone());
                for (i, tile) in rows.zip(tile.rows()) {
                    // SAFETY: chunks do not overlap, so nobody else has columns `range` of this job's `out`; `product`
                    // checked that it has `m` rows of `weight.rows()` columns.
                    let out = unsafe { out.row(i, range.clone()) };
                    if accumulate {
                        out.iter_mut().zip(tile).for_each(|(out, y)| *out += y);
                    } else {
                        out.copy_from_slice(tile);
                    }
                    if let Some(bias) = bias {
                        out.iter_mut().zip(&bias[range.clone()]).for_each(|(out, b)| *out += b);
                    }
                }
            }
        });
    }

    /// `out[m, n] = act(x · gateᵀ) * (x · upᵀ)`, the first half of a gated feed-forward layer. Panics as `linear` does.
    pub fn gate_up(&self, acts: &Activations, m: usize, gate: Matrix<'_>, up: Matrix<'_>, act: Activation, out: &mut [f32]) {
        assert!(m <= acts.rows(), "{m} rows of {}", acts.rows());
        let n = gate.rows;
        assert!(up.rows == n, "gate has {n} rows and up {}", up.rows);
        assert!(out.len() >= m * n, "out holds {} of {m} x {n}", out.len());
        let (gate_kernels, up_kernels) = (self.check(acts, m, &gate), self.check(acts, m, &up));
        let out = Out { ptr: out.as_mut_ptr(), stride: n };
        // Two sums of half as many rows take the same place in the cache.
        self.split(m, BATCH_CHUNK / 2, &[Some(gate)], |_, range, scratch| {
            let [gates, ups] = &mut scratch.products;
            gates.start(gate_kernels, &gate, range.clone(), acts, m, &mut scratch.panel);
            ups.start(up_kernels, &up, range.clone(), acts, m, &mut scratch.panel);
            for rows in blocks_of_rows(m) {
                let gates = gates.rows(gate_kernels, &gate, range.clone(), acts, rows.clone());
                let ups = ups.rows(up_kernels, &up, range.clone(), acts, rows.clone());
                for (i, (gate, up)) in rows.zip(gates.rows().zip(ups.rows())) {
                    // SAFETY: chunks do not overlap, so nobody else has columns `range`; `out` is (m, n), as asserted.
                    let out = unsafe { out.row(i, range.clone()) };
                    self.ops.gated(act, gate, up, out);
                }
            }
        });
    }

    fn product<'a>(&self, acts: &Activations, m: usize, job: &mut LinearJob<'a>) -> Product<'a> {
        let n = job.weight.rows;
        assert!(job.out_stride >= n, "rows of {n} at a stride of {}", job.out_stride);
        let needed = m.saturating_sub(1) * job.out_stride + n;
        assert!(m == 0 || job.out.len() >= needed, "out holds {} of {needed}", job.out.len());
        assert!(job.bias.is_none_or(|bias| bias.len() == n), "a bias for other than {n} outputs");
        Product {
            weight: job.weight,
            kernels: self.check(acts, m, &job.weight),
            bias: job.bias,
            out: Out { ptr: job.out.as_mut_ptr(), stride: job.out_stride },
            accumulate: job.accumulate,
        }
    }

    fn check(&self, acts: &Activations, m: usize, weight: &Matrix<'_>) -> Kernels {
        assert!(weight.cols == acts.cols(), "{} columns for {} activations", weight.cols, acts.cols());
        let kernels = self.table.kernels(weight.dtype).for_rows(m, acts.work());
        assert!(acts.has(kernels.form), "not quantized for {}", weight.dtype.name());
        kernels
    }
}

/// What workers need of a [`LinearJob`].
#[derive(Clone, Copy)]
struct Product<'a> {
    weight: Matrix<'a>,
    kernels: Kernels,
    bias: Option<&'a [f32]>,
    out: Out,
    accumulate: bool,
}

/// A result that several workers write, each its own columns.
#[derive(Clone, Copy)]
struct Out {
    ptr: *mut f32,
    stride: usize,
}

// SAFETY: the pointer is only dereferenced in `row`, whose callers hold disjoint columns.
unsafe impl Send for Out {}
// SAFETY: as above.
unsafe impl Sync for Out {}

impl Out {
    /// Columns `cols` of row `i`.
    ///
    /// # Safety
    /// They lie within the slice this was made of, which is still borrowed, and nobody else reads or writes them meanwhile.
    unsafe fn row<'a>(self, i: usize, cols: Range<usize>) -> &'a mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(i * self.stride + cols.start), cols.len()) }
    }
}

/// The activation rows in blocks of [`BATCH_ROWS`].
fn blocks_of_rows(m: usize) -> impl Iterator<Item = Range<usize>> {
    (0..m).step_by(BATCH_ROWS).map(move |start| start..m.min(start + BATCH_ROWS))
}

/// A worker's own buffers. They grow when a larger product than ever before comes, and stay.
#[derive(Default)]
pub(crate) struct Scratch {
    panel: Aligned<u16>,
    products: [Products; 2],
}

/// The products of some weight rows with all activation rows, finished a block of activation rows at a time.
#[derive(Default)]
struct Products {
    sums: Aligned<f32>,
    tile: Aligned<f32>,
}

impl Products {
    /// Does what is done for all activation rows at once.
    fn start(
        &mut self,
        kernels: Kernels,
        weight: &Matrix<'_>,
        range: Range<usize>,
        acts: &Activations,
        m: usize,
        panel: &mut Aligned<u16>,
    ) {
        if let Some(batch) = kernels.batch {
            // SAFETY: the kernels come from the table of an `Isa`, and those exist only if the machine has them.
            unsafe { (batch.run)(weight.dtype, weight.bytes(range), weight.cols, acts, m, panel, &mut self.sums) };
        }
    }

    /// `x_i · w_r` for activation rows `rows`, which start at a multiple of [`BATCH_ROWS`], and weight rows `range`.
    fn rows(&mut self, kernels: Kernels, weight: &Matrix<'_>, range: Range<usize>, acts: &Activations, rows: Range<usize>) -> Tile<'_> {
        let n = range.len();
        let unpack = match kernels.batch {
            Some(Batch { sums: Sums::Rows(multiple), .. }) => {
                let stride = n.next_multiple_of(multiple);
                return Tile { sums: &self.sums[rows.start * stride..rows.end * stride], stride, n };
            }
            Some(Batch { sums: Sums::Tiles(unpack), .. }) => Some(unpack),
            None => None,
        };
        let tile = self.tile.at_least(rows.len() * n);
        if let Some(unpack) = unpack {
            // SAFETY: the kernels come from the table of an `Isa`, and those exist only if the machine has them.
            unsafe { unpack(&self.sums, rows.start, n, tile) };
        } else {
            let w = weight.bytes(range);
            for (start, tile) in rows.clone().step_by(ROWS_MAX).zip(tile.chunks_mut(ROWS_MAX * n)) {
                let rows = start..rows.end.min(start + ROWS_MAX);
                // SAFETY: as above.
                unsafe { (kernels.dot_rows)(weight.dtype, w, weight.cols, acts, rows, tile) };
            }
        }
        Tile { sums: tile, stride: n, n }
    }
}

/// Products of some activation rows with `n` weight rows.
struct Tile<'a> {
    sums: &'a [f32],
    stride: usize,
    n: usize,
}

impl<'a> Tile<'a> {
    /// Those of each activation row.
    fn rows(self) -> impl Iterator<Item = &'a [f32]> {
        self.sums.chunks_exact(self.stride).map(move |row| &row[..self.n])
    }
}
