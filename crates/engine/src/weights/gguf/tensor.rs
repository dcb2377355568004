//! One row of a GGUF tensor table.

use super::ggml_type::GgmlType;

/// What a file says about one tensor; checked against the file's length when it was parsed.
#[derive(Debug, Clone)]
pub struct TensorInfo {
    /// The name, unique in all parts of a split file.
    pub name: String,
    /// One to four dimensions in ggml's order: `dims[0]` is the length of a row.
    pub dims: Vec<u64>,
    /// ggml's type id, which may be unknown.
    pub ggml_type: u32,
    pub(super) shard: usize,
    pub(super) start: u64,
    pub(super) size_bytes: Option<u64>,
}

impl TensorInfo {
    /// The type's name and block size, or `None` for an unknown id.
    pub fn layout(&self) -> Option<GgmlType> {
        GgmlType::from_id(self.ggml_type)
    }

    /// Bytes in the file, or `None` where the type is unknown.
    pub fn size_bytes(&self) -> Option<u64> {
        self.size_bytes
    }

    /// The position of its first byte in its file.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Which part of a split file holds it, from 0.
    pub fn shard(&self) -> usize {
        self.shard
    }

    /// The product of `dims`, which was checked not to overflow.
    pub fn n_elements(&self) -> u64 {
        self.dims.iter().product()
    }
}
