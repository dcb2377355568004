//! A tensor of a file as a matrix: its shape checked, its bytes where they are.

use downshift_kernels::{Cpu, DType, Matrix};

use super::Bytes;
use super::gguf::Gguf;
use crate::error::Error;

/// Rows of weights in the layout of the file, which stays mapped as long as this lives.
#[derive(Clone, Debug)]
pub struct HostMatrix {
    dtype: DType,
    rows: usize,
    cols: usize,
    bytes: Bytes,
}

impl HostMatrix {
    /// The tensor `name` as `(rows, cols)`; a tensor of one dimension is one row.
    ///
    /// # Errors
    /// [`Error::Tensor`] for a missing tensor or another shape, [`Error::UnsupportedType`] for an element type without kernels.
    pub fn from_gguf(gguf: &Gguf, name: &str, rows: usize, cols: usize) -> Result<Self, Error> {
        let expected = || format!("{rows} rows of {cols}");
        let Some(info) = gguf.tensor(name) else {
            return Err(Error::Tensor { name: name.to_owned(), found: "nothing".into(), expected: expected() });
        };
        let found_cols = info.dims[0];
        let found_rows: u64 = info.dims[1..].iter().product();
        if (found_rows, found_cols) != (rows as u64, cols as u64) {
            return Err(Error::Tensor { name: name.to_owned(), found: format!("{found_rows} rows of {found_cols}"), expected: expected() });
        }
        let dtype = DType::from_ggml(info.ggml_type).ok_or_else(|| Error::UnsupportedType {
            name: name.to_owned(),
            found: info.layout().map_or_else(|| format!("number {}", info.ggml_type), |layout| layout.name.to_owned()),
        })?;
        let bytes = gguf.tensor_bytes(info)?;
        Matrix::new(dtype, rows, cols, &bytes).map_err(|error| Error::Tensor {
            name: name.to_owned(),
            found: error.to_string(),
            expected: expected(),
        })?;
        Ok(Self { dtype, rows, cols, bytes })
    }

    /// How elements are stored.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The rows as they are in the file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What the kernels multiply.
    pub fn view(&self) -> Matrix<'_> {
        Matrix::new(self.dtype, self.rows, self.cols, &self.bytes).expect("the shape was checked when the matrix was made")
    }

    /// One row, widened.
    pub fn row(&self, cpu: &Cpu, row: usize) -> Vec<f32> {
        let mut out = vec![0.0; self.cols];
        cpu.dequantize_row(&self.view(), row, &mut out);
        out
    }
}
