//! The input of a matrix product: rows of f32 activations, and the quantized or packed forms that kernels read instead.
//! Owns their layout. Does not choose a form; that is `table.rs`.

use crate::aligned::Aligned;

/// How a kernel wants its activations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// As they are.
    F32,
}

impl Form {
    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Reusable buffers for the activations of one input, planned for at most `max_rows` rows of `max_cols`.
/// Nothing is allocated after [`Activations::new`], and buffers that no kernel of this machine reads are never touched.
pub struct Activations {
    max_rows: usize,
    max_cols: usize,
    rows: usize,
    cols: usize,
    forms: u8,
    f32: Aligned<f32>,
}

impl Activations {
    /// Buffers for `max_rows` rows of `max_cols`.
    pub fn new(max_rows: usize, max_cols: usize) -> Self {
        Self {
            max_rows,
            max_cols,
            rows: 0,
            cols: 0,
            forms: 0,
            f32: Aligned::zeroed(max_rows * max_cols),
        }
    }

    /// The rows to fill, (rows, cols) without gaps. What was quantized before is forgotten.
    /// Panics if this is more than was planned.
    pub fn f32_mut(&mut self, rows: usize, cols: usize) -> &mut [f32] {
        assert!(
            rows <= self.max_rows && cols <= self.max_cols,
            "activations planned for {} x {}, asked for {rows} x {cols}",
            self.max_rows,
            self.max_cols
        );
        (self.rows, self.cols) = (rows, cols);
        self.forms = Form::F32.bit();
        &mut self.f32[..rows * cols]
    }

    /// The rows last filled, (rows, cols).
    pub fn f32(&self) -> &[f32] {
        &self.f32[..self.rows * self.cols]
    }

    /// Bytes reserved (resident only once touched).
    pub fn bytes(&self) -> usize {
        self.f32.len() * size_of::<f32>()
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    pub(crate) fn has(&self, form: Form) -> bool {
        self.forms & form.bit() != 0
    }

    pub(crate) fn f32_row(&self, row: usize) -> &[f32] {
        &self.f32[row * self.cols..(row + 1) * self.cols]
    }
}
