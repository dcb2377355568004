//! AVX-512 with VNNI: the two products of many query rows on 16-bit integers, which multiply-add twice as many of them as of f32.
//!
//! Every vector along a sum is scaled so that no sum of products can leave 32 bits. For scores both sides get a length (root of
//! the sum of squares) of 2^15: by Cauchy and Schwarz their product stays below 2^30. For the mix, the weights of a query add up
//! to 2^15, and values are below 2^15. What rounding leaves is about what it leaves in f16, in which keys and values are stored.
//!
//! Neighbours along the sum lie in the halves of one lane: elements of a key or query, and keys of a value or weight.

use std::arch::x86_64::*;
use std::ops::Range;

use super::transpose::transpose_blocks;
use super::{OpsTable, STRIP, avx512};
use crate::arch::avx512_vnni::words::{dpwssd, factors, paired};
use crate::kv::{KV_BLOCK, KvType};

pub(super) static TABLE: OpsTable = OpsTable {
    name: "avx512vnni",
    transpose: transpose_blocks,
    pack_queries,
    widen_keys,
    widen_values,
    score_tile,
    mix_tile,
    ..avx512::TABLE
};

/// Rows of the left side in registers: with four strips they make 16 accumulators of 32. Divides `KV_BLOCK` and padded dimensions.
const HEIGHT: usize = 4;
/// Strips of the right side in registers.
const STRIPS: usize = 4;
/// Keys that share a lane with their neighbour.
const KEY_PAIRS: usize = KV_BLOCK / 2;

/// 16 elements of a stored row.
///
/// # Safety
/// Element `at` of the row at `row` and the 15 after it are readable; `at` is a multiple of 16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
pub(super) unsafe fn widened(kind: KvType, row: *const u8, at: usize) -> __m512 {
    // SAFETY: f16 take two bytes each; a block of Q8_0 is a scale of two bytes and 32 of one.
    unsafe {
        match kind {
            KvType::F16 => _mm512_cvtph_ps(_mm256_loadu_si256(row.add(2 * at).cast())),
            KvType::Q8_0 => {
                let block = row.add(at / 32 * 34);
                let d = _mm512_cvtph_ps(_mm256_set1_epi16(block.cast::<i16>().read_unaligned()));
                let q = _mm512_cvtepi8_epi32(_mm_loadu_si128(block.add(2 + at % 32).cast()));
                _mm512_mul_ps(d, _mm512_cvtepi32_ps(q))
            }
        }
    }
}

/// Of a strip of `dim` rows, the first half becomes pairs of rows; the factors back are the row after it.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn pack_queries(dim: usize, qt: &mut [f32]) {
    assert!(dim.is_multiple_of(STRIP));
    for strip in qt.chunks_exact_mut(dim * STRIP) {
        let strip = strip.as_mut_ptr();
        // SAFETY: rows below `dim` of 16; a pair is written where nothing is read any more.
        unsafe {
            let row = |i: usize| _mm512_loadu_ps(strip.add(i * STRIP));
            let mut squares = [_mm512_setzero_ps(); 2];
            for i in 0..dim {
                squares[i % 2] = _mm512_fmadd_ps(row(i), row(i), squares[i % 2]);
            }
            let (to, back) = factors(_mm512_sqrt_ps(_mm512_add_ps(squares[0], squares[1])));
            for i in 0..dim / 2 {
                let pair = paired(_mm512_mul_ps(to, row(2 * i)), _mm512_mul_ps(to, row(2 * i + 1)));
                _mm512_storeu_si512(strip.add(i * STRIP).cast(), pair);
            }
            _mm512_storeu_ps(strip.add(dim / 2 * STRIP), back);
        }
    }
}

/// Rows of `dim / 2` pairs, then the factors back of 64 keys.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
fn widen_keys(kind: KvType, dim: usize, rows: &[u8], out: &mut [f32]) {
    let row_bytes = kind.row_bytes(dim);
    let n_keys = rows.len() / row_bytes;
    assert!(dim.is_multiple_of(STRIP) && n_keys <= KV_BLOCK && out.len() >= KV_BLOCK * dim);
    let (rows, out) = (rows.as_ptr(), out.as_mut_ptr());
    let mut to = [0f32; KV_BLOCK];
    // SAFETY: `n_keys` rows of `dim` elements; 64 rows of half as many f32 and 64 factors fit in `out`, and 64 in `to`.
    unsafe {
        for (key, to) in to[..n_keys].iter_mut().enumerate() {
            let mut squares = _mm512_setzero_ps();
            for at in (0..dim).step_by(STRIP) {
                let x = widened(kind, rows.add(key * row_bytes), at);
                squares = _mm512_fmadd_ps(x, x, squares);
            }
            *to = _mm512_reduce_add_ps(squares);
        }
        for i in (0..KV_BLOCK).step_by(STRIP) {
            let (factor, back) = factors(_mm512_sqrt_ps(_mm512_loadu_ps(to.as_ptr().add(i))));
            _mm512_storeu_ps(to.as_mut_ptr().add(i), factor);
            _mm512_storeu_ps(out.add(KV_BLOCK * dim / 2 + i), back);
        }
        for (key, to) in to[..n_keys].iter().enumerate() {
            for at in (0..dim).step_by(STRIP) {
                let x = _mm512_mul_ps(_mm512_set1_ps(*to), widened(kind, rows.add(key * row_bytes), at));
                let words = _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(x));
                _mm256_storeu_si256(out.add((key * dim + at) / 2).cast(), words);
            }
        }
    }
}

/// Rows of `dim` pairs, one for two keys, then the factors back of each column.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn widen_values(kind: KvType, dim: usize, rows: &[u8], out: &mut [f32]) {
    let row_bytes = kind.row_bytes(dim);
    let n_keys = rows.len() / row_bytes;
    assert!(dim.is_multiple_of(STRIP) && n_keys <= KV_BLOCK && out.len() >= KV_BLOCK * dim);
    let (rows, out) = (rows.as_ptr(), out.as_mut_ptr());
    for at in (0..dim).step_by(STRIP) {
        // SAFETY: `n_keys` rows of `dim` elements; 32 rows of as many f32 and one more fit in `out`.
        unsafe {
            let value = |key: usize| widened(kind, rows.add(key * row_bytes), at);
            let mut largest = _mm512_setzero_si512();
            for key in 0..n_keys {
                // As integers, since NaN shall be the largest.
                largest = _mm512_max_epu32(largest, _mm512_castps_si512(_mm512_abs_ps(value(key))));
            }
            let (to, back) = factors(_mm512_castsi512_ps(largest));
            _mm512_storeu_ps(out.add(KEY_PAIRS * dim + at), back);
            for pair in 0..n_keys / 2 {
                let (a, b) = (value(2 * pair), value(2 * pair + 1));
                let pairs = paired(_mm512_mul_ps(to, a), _mm512_mul_ps(to, b));
                _mm512_storeu_si512(out.add(pair * dim + at).cast(), pairs);
            }
            if !n_keys.is_multiple_of(2) {
                let last = paired(_mm512_mul_ps(to, value(n_keys - 1)), _mm512_setzero_ps());
                _mm512_storeu_si512(out.add(n_keys / 2 * dim + at).cast(), last);
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn score_tile(dim: usize, n_keys: usize, k: &[f32], qt: &[f32], st: &mut [f32]) {
    let n_strips = st.len() / (KV_BLOCK * STRIP);
    assert!(dim.is_multiple_of(STRIP) && n_keys <= KV_BLOCK && k.len() >= KV_BLOCK * dim);
    assert!(qt.len() == n_strips * dim * STRIP && st.len() == n_strips * KV_BLOCK * STRIP);
    for strip in (0..n_strips).step_by(STRIPS) {
        // Keys of the last four beyond `n_keys` are whatever the buffer holds; their scores are not read.
        for key in (0..n_keys).step_by(HEIGHT) {
            // SAFETY: rows of 64 keys and their factors are in `k`, `dim / 2` rows of pairs and one of factors in each strip of
            // `qt`, and 64 rows in each strip of `st`.
            unsafe {
                let product = Product {
                    a: k.as_ptr().add(key * dim / 2),
                    a_strides: (dim / 2, 1),
                    a_back: k.as_ptr().add(KV_BLOCK * dim / 2 + key),
                    depth: dim / 2,
                    b: qt.as_ptr().add(strip * dim * STRIP),
                    b_strip: dim * STRIP,
                    b_back: dim / 2 * STRIP,
                    c: st.as_mut_ptr().add((strip * KV_BLOCK + key) * STRIP),
                    c_strip: KV_BLOCK * STRIP,
                    factor: None,
                };
                product.strips(n_strips - strip);
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn mix_tile(dim: usize, keys: Range<usize>, v: &[f32], pt: &[f32], factor: &[f32], ot: &mut [f32]) {
    let n_strips = ot.len() / (dim * STRIP);
    assert!(dim.is_multiple_of(STRIP) && keys.start <= keys.end && keys.end <= KV_BLOCK && v.len() >= KV_BLOCK * dim);
    assert!(factor.len() == n_strips * STRIP && ot.len() == n_strips * dim * STRIP && pt.len() == n_strips * KV_BLOCK * STRIP);
    let mut weights = [[0f32; (KEY_PAIRS + 1) * STRIP]; STRIPS];
    for strip in (0..n_strips).step_by(STRIPS) {
        for (weights, strip) in weights.iter_mut().zip(strip..n_strips) {
            pair_weights(&pt[(strip * KV_BLOCK + keys.start) * STRIP..(strip * KV_BLOCK + keys.end) * STRIP], weights);
        }
        for d in (0..dim).step_by(HEIGHT) {
            // SAFETY: 32 rows of `dim` pairs and one of factors are in `v`, 32 rows of pairs and one of factors in each strip of
            // `weights`, `dim` rows in each strip of `ot`, and 16 factors for each strip.
            unsafe {
                let product = Product {
                    a: v.as_ptr().add(d),
                    a_strides: (1, dim),
                    a_back: v.as_ptr().add(KEY_PAIRS * dim + d),
                    depth: keys.len().div_ceil(2),
                    b: weights.as_ptr().cast(),
                    b_strip: (KEY_PAIRS + 1) * STRIP,
                    b_back: KEY_PAIRS * STRIP,
                    c: ot.as_mut_ptr().add((strip * dim + d) * STRIP),
                    c_strip: dim * STRIP,
                    factor: Some(factor.as_ptr().add(strip * STRIP)),
                };
                product.strips(n_strips - strip);
            }
        }
    }
}

/// Rows of weights as rows of pairs; the factors back are the last row. Weights are at least 0.
#[target_feature(enable = "avx512f,avx512bw")]
fn pair_weights(rows: &[f32], out: &mut [f32; (KEY_PAIRS + 1) * STRIP]) {
    let rows = rows.as_chunks::<STRIP>().0;
    // SAFETY: rows are 16 f32; there are at most 64 by the type of `out`, so that pairs and factors fit there.
    unsafe {
        let load = |row: &[f32; STRIP]| _mm512_loadu_ps(row.as_ptr());
        let (pairs, last) = rows.as_chunks::<2>();
        assert!(pairs.len() + last.len() <= KEY_PAIRS);
        let mut sums = [_mm512_setzero_ps(); 2];
        for (i, row) in rows.iter().enumerate() {
            sums[i % 2] = _mm512_add_ps(sums[i % 2], load(row));
        }
        let (to, back) = factors(_mm512_add_ps(sums[0], sums[1]));
        for (i, [a, b]) in pairs.iter().enumerate() {
            let pair = paired(_mm512_mul_ps(to, load(a)), _mm512_mul_ps(to, load(b)));
            _mm512_storeu_si512(out.as_mut_ptr().add(i * STRIP).cast(), pair);
        }
        for row in last {
            let pair = paired(_mm512_mul_ps(to, load(row)), _mm512_setzero_ps());
            _mm512_storeu_si512(out.as_mut_ptr().add(pairs.len() * STRIP).cast(), pair);
        }
        _mm512_storeu_ps(out.as_mut_ptr().add(KEY_PAIRS * STRIP), back);
    }
}

/// `C[i][r] = C[i][r] * factor[r] + sum over k of A[i, k] * B[k][r]` for `HEIGHT` rows i, in pairs along k.
#[derive(Clone, Copy)]
struct Product {
    a: *const f32,
    /// Distance of neighbours in i, and of pairs in k.
    a_strides: (usize, usize),
    /// What products of row i are multiplied by.
    a_back: *const f32,
    /// Pairs.
    depth: usize,
    /// Strips of rows of 16 pairs.
    b: *const f32,
    b_strip: usize,
    /// Where in a strip the factors for columns are.
    b_back: usize,
    /// Strips of rows of 16.
    c: *mut f32,
    c_strip: usize,
    /// C is overwritten if there is none.
    factor: Option<*const f32>,
}

impl Product {
    /// The first `n` strips, at most `STRIPS`.
    ///
    /// # Safety
    /// The pointers have what the fields say, in as many strips.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn strips(&self, n: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            match n {
                1 => self.run::<1>(),
                2 => self.run::<2>(),
                3 => self.run::<3>(),
                _ => self.run::<STRIPS>(),
            }
        }
    }

    /// # Safety
    /// The pointers have what the fields say, in `N` strips.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn run<const N: usize>(&self) {
        // SAFETY: all offsets are within what the caller grants.
        unsafe {
            let mut acc = [[_mm512_setzero_si512(); N]; HEIGHT];
            let (mut a, mut b) = (self.a, self.b);
            for _ in 0..self.depth {
                let mut columns = [_mm512_setzero_si512(); N];
                for (n, columns) in columns.iter_mut().enumerate() {
                    *columns = _mm512_loadu_si512(b.add(n * self.b_strip).cast());
                }
                for (i, acc) in acc.iter_mut().enumerate() {
                    let pair = _mm512_set1_epi32(a.add(i * self.a_strides.0).cast::<i32>().read());
                    for (acc, columns) in acc.iter_mut().zip(&columns) {
                        *acc = dpwssd(*acc, pair, *columns);
                    }
                }
                a = a.add(self.a_strides.1);
                b = b.add(STRIP);
            }
            for n in 0..N {
                let b_back = _mm512_loadu_ps(self.b.add(n * self.b_strip + self.b_back));
                let factor = self.factor.map(|factor| _mm512_loadu_ps(factor.add(n * STRIP)));
                for (i, acc) in acc.iter().enumerate() {
                    let c = self.c.add(n * self.c_strip + i * STRIP);
                    let back = _mm512_mul_ps(_mm512_set1_ps(*self.a_back.add(i)), b_back);
                    let sum = _mm512_cvtepi32_ps(acc[n]);
                    _mm512_storeu_ps(
                        c,
                        match factor {
                            Some(factor) => _mm512_fmadd_ps(sum, back, _mm512_mul_ps(factor, _mm512_loadu_ps(c))),
                            None => _mm512_mul_ps(sum, back),
                        },
                    );
                }
            }
        }
    }
}
