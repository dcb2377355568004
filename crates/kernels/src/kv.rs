//! The key-value pool of one layer: blocks of 64 positions, addressed through a sequence's block table.
//! Owns the layout and writing rows into it. Does not own memory or which block belongs to whom; reading is `attention`.

use std::ops::Range;

use crate::ops::Ops;

/// Positions in a block of the pool.
pub const KV_BLOCK: usize = 64;

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvType {
    /// IEEE half precision.
    F16,
    /// ggml's Q8_0 along the head dimension: per 32 elements an f16 scale and 32 signed bytes.
    Q8_0,
}

impl KvType {
    /// Elements a row is padded to, with zeros: kernels then have no tails.
    pub const fn padded(self, dim: usize) -> usize {
        match self {
            Self::F16 => dim.next_multiple_of(16),
            Self::Q8_0 => dim.next_multiple_of(32),
        }
    }

    /// Bytes of one head's row of `dim` elements, padding included.
    pub const fn row_bytes(self, dim: usize) -> usize {
        match self {
            Self::F16 => self.padded(dim) * 2,
            Self::Q8_0 => self.padded(dim) / 32 * 34,
        }
    }
}

/// Shape of one layer's pool. Keys lie as `[n_blocks][n_kv_heads][64][k_row_bytes]`, values likewise, so that the
/// keys of one head in one block are one contiguous run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvLayout {
    /// Storage of an element.
    pub kind: KvType,
    /// Key-value heads.
    pub n_kv_heads: usize,
    /// Elements of a key row of one head.
    pub k_dim: usize,
    /// Elements of a value row of one head.
    pub v_dim: usize,
}

impl KvLayout {
    /// Bytes of the keys of one block, all heads.
    pub const fn k_block_bytes(&self) -> usize {
        self.n_kv_heads * self.k_run_bytes()
    }

    /// Bytes of the values of one block, all heads.
    pub const fn v_block_bytes(&self) -> usize {
        self.n_kv_heads * self.v_run_bytes()
    }

    /// Bytes of the keys of one head in one block.
    pub(crate) const fn k_run_bytes(&self) -> usize {
        KV_BLOCK * self.kind.row_bytes(self.k_dim)
    }

    /// Bytes of the values of one head in one block.
    pub(crate) const fn v_run_bytes(&self) -> usize {
        KV_BLOCK * self.kind.row_bytes(self.v_dim)
    }
}

/// One layer of the pool, to read.
#[derive(Clone, Copy, Debug)]
pub struct KvLayer<'a> {
    /// Its shape.
    pub layout: KvLayout,
    /// Keys, whole blocks.
    pub k: &'a [u8],
    /// Values, as many blocks.
    pub v: &'a [u8],
}

impl KvLayer<'_> {
    /// Blocks in this layer, complete in both keys and values.
    pub fn n_blocks(&self) -> usize {
        let k = self.k.len() / self.layout.k_block_bytes().max(1);
        k.min(self.v.len() / self.layout.v_block_bytes().max(1))
    }

    /// The keys of `head` in `block`: positions `keys` of it.
    pub(crate) fn k_rows(&self, block: u32, head: usize, keys: Range<usize>) -> &[u8] {
        let row = self.layout.kind.row_bytes(self.layout.k_dim);
        let run = block as usize * self.layout.k_block_bytes() + head * self.layout.k_run_bytes();
        &self.k[run + keys.start * row..run + keys.end * row]
    }

    /// The values of `head` in `block`: positions `keys` of it.
    pub(crate) fn v_rows(&self, block: u32, head: usize, keys: Range<usize>) -> &[u8] {
        let row = self.layout.kind.row_bytes(self.layout.v_dim);
        let run = block as usize * self.layout.v_block_bytes() + head * self.layout.v_run_bytes();
        &self.v[run + keys.start * row..run + keys.end * row]
    }
}

/// One layer of the pool, to write.
#[derive(Debug)]
pub struct KvLayerMut<'a> {
    /// Its shape.
    pub layout: KvLayout,
    /// Keys, whole blocks.
    pub k: &'a mut [u8],
    /// Values, as many blocks.
    pub v: &'a mut [u8],
}

impl Ops {
    /// Stores one position: `k_row` (n_kv_heads, k_dim) and `v_row` (n_kv_heads, v_dim) into `slot` (0..64) of `block`.
    /// Values beyond f16's range become infinite, as in ggml. Panics if a row has another length or `block` or `slot`
    /// is out of range.
    pub fn kv_append(&self, layer: &mut KvLayerMut<'_>, block: u32, slot: usize, k_row: &[f32], v_row: &[f32]) {
        let KvLayout { kind, n_kv_heads, k_dim, v_dim } = layer.layout;
        assert!(slot < KV_BLOCK, "slot {slot} of a block of {KV_BLOCK}");
        assert_eq!(k_row.len(), n_kv_heads * k_dim, "length of the key row");
        assert_eq!(v_row.len(), n_kv_heads * v_dim, "length of the value row");
        let (k_at, v_at) = (block as usize * layer.layout.k_block_bytes(), block as usize * layer.layout.v_block_bytes());
        let k_block = &mut layer.k[k_at..k_at + layer.layout.k_block_bytes()];
        let v_block = &mut layer.v[v_at..v_at + layer.layout.v_block_bytes()];
        self.store_heads(kind, k_dim, slot, k_row, k_block);
        self.store_heads(kind, v_dim, slot, v_row, v_block);
    }

    fn store_heads(&self, kind: KvType, dim: usize, slot: usize, rows: &[f32], block: &mut [u8]) {
        let row_bytes = kind.row_bytes(dim);
        for (row, run) in rows.chunks_exact(dim).zip(block.chunks_exact_mut(KV_BLOCK * row_bytes)) {
            self.narrow(kind, row, &mut run[slot * row_bytes..(slot + 1) * row_bytes]);
        }
    }
}

impl Ops {
    /// One head's row to storage.
    #[allow(unsafe_code)]
    pub(crate) fn narrow(&self, kind: KvType, row: &[f32], out: &mut [u8]) {
        // SAFETY: an `Ops` exists only for an instruction set this machine has.
        unsafe { (self.table.narrow)(kind, row, out) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::scalar;
    use crate::ops::test_data::random;

    #[test]
    fn stored_rows_read_back_within_the_precision_of_their_type() {
        for ops in Ops::available() {
            for dim in [1, 8, 31, 32, 64, 80, 96, 128, 256] {
                for (kind, bound) in [(KvType::F16, 1.0 / 2048.0), (KvType::Q8_0, 0.5 / 127.0 + 1.0 / 2048.0)] {
                    let layout = KvLayout { kind, n_kv_heads: 3, k_dim: dim, v_dim: dim + 1 };
                    let mut k = vec![0xff; 2 * layout.k_block_bytes()];
                    let mut v = vec![0xff; 2 * layout.v_block_bytes()];
                    let (k_row, v_row) = (random(3 * dim, 1, 4.0), random(3 * (dim + 1), 2, 4.0));
                    let mut layer = KvLayerMut { layout, k: &mut k, v: &mut v };
                    ops.kv_append(&mut layer, 1, 63, &k_row, &v_row);
                    let layer = KvLayer { layout, k: &k, v: &v };
                    assert_eq!(layer.n_blocks(), 2);
                    for head in 0..3 {
                        for (row, stored, dim) in
                            [(&k_row, layer.k_rows(1, head, 63..64), dim), (&v_row, layer.v_rows(1, head, 63..64), dim + 1)]
                        {
                            let mut back = vec![9.0; kind.padded(dim)];
                            scalar::widen(kind, stored, &mut back);
                            for (i, &wide) in back.iter().enumerate() {
                                let exact = if i < dim { row[head * dim + i] } else { 0.0 };
                                assert!((wide - exact).abs() <= 4.0 * bound, "{} {kind:?} {dim}: {wide} for {exact}", ops.name());
                            }
                        }
                        assert!(layer.k_rows(1, head, 62..63).iter().all(|&b| b == 0xff), "neighbour touched");
                    }
                }
            }
        }
    }

    #[test]
    fn every_instruction_set_stores_the_same_bytes() {
        let scalar = Ops::available()[0];
        for ops in Ops::available() {
            for dim in [1, 7, 8, 16, 31, 40, 64, 128] {
                let mut row = random(dim, 4, 1.0);
                row[0] = 7e4;
                row[dim - 1] = 1e-7;
                for kind in [KvType::F16, KvType::Q8_0] {
                    let (mut expected, mut out) = (vec![0; kind.row_bytes(dim)], vec![1; kind.row_bytes(dim)]);
                    scalar.narrow(kind, &row, &mut expected);
                    ops.narrow(kind, &row, &mut out);
                    assert_eq!(out, expected, "{} {kind:?} {dim}", ops.name());
                }
            }
        }
    }
}
