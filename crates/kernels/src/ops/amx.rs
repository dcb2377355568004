//! AVX-512 with the tile registers of AMX: the two products of many query rows on bfloat16.
//!
//! Every number is split into a high and a low bfloat16, and the three products that matter are added in f32: keys and
//! values in f16 are exact in two parts, queries and weights are off by 2^-17. Dimensions that are no multiple of 32, a
//! tile's depth, take the kernels of VNNI.
//!
//! Operands lie in parts of 2 KiB, 32 of depth by 16 rows: a tile of high parts, then one of low parts. In those of the
//! left side a tile is (row, depth), in those of the right side (pair of depths, row, 2).

use std::arch::asm;
use std::arch::x86_64::*;

use super::{OpsTable, STRIP, vnni};
use crate::arch::amx::Configured;
use crate::arch::avx512_vnni::transpose::transposed;
use crate::kv::{KV_BLOCK, KvType};

pub(super) static TABLE: OpsTable = OpsTable { name: "amx", pack_queries, widen_keys, widen_values, score_tile, mix_tile, ..vnni::TABLE };

/// Depth of a tile.
const DEPTH: usize = 32;
/// Rows of a tile.
const ROWS: usize = 16;
/// f32 that a part takes the place of.
const PART: usize = DEPTH * ROWS;

/// The upper halves of two vectors of 16 f32, the second on top: they are truncated to bfloat16.
#[target_feature(enable = "avx512f,avx512bw")]
fn upper_halves(a: __m512i, b: __m512i) -> __m512i {
    const ODD: [i16; 32] = {
        let mut odd = [0; 32];
        let mut i = 0;
        while i < 32 {
            odd[i] = 2 * i as i16 + 1;
            i += 1;
        }
        odd
    };
    // SAFETY: 64 bytes are 32 i16.
    let odd = unsafe { _mm512_loadu_si512(ODD.as_ptr().cast()) };
    _mm512_permutex2var_epi16(a, odd, b)
}

/// A number that is rounded to bfloat16 by truncating it: half a unit is added.
#[target_feature(enable = "avx512f,avx512bw")]
fn rounded(x: __m512i) -> __m512i {
    _mm512_add_epi32(x, _mm512_set1_epi32(0x8000))
}

/// What rounding to bfloat16 leaves of a number, itself to be truncated. Truncating in the first place would leave twice as
/// much, always of the same sign, and the product of two such rests is left out.
#[target_feature(enable = "avx512f,avx512bw")]
fn rest(x: __m512i) -> __m512i {
    let high = _mm512_and_si512(rounded(x), _mm512_set1_epi32(0xffff_0000_u32 as i32));
    rounded(_mm512_castps_si512(_mm512_sub_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(high))))
}

/// Truncated to bfloat16, `a` in the lower and `b` in the upper half of each lane.
#[target_feature(enable = "avx512f,avx512bw")]
fn interleaved(a: __m512i, b: __m512i) -> __m512i {
    _mm512_or_si512(_mm512_srli_epi32::<16>(a), _mm512_and_si512(b, _mm512_set1_epi32(0xffff_0000_u32 as i32)))
}

/// 16 elements of a stored row, as bits of f32.
///
/// # Safety
/// As of `vnni::widened`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn widened(kind: KvType, row: *const u8, at: usize) -> __m512i {
    // SAFETY: by the contract.
    _mm512_castps_si512(unsafe { vnni::widened(kind, row, at) })
}

#[target_feature(enable = "avx512f,avx512bw")]
fn pack_queries(dim: usize, qt: &mut [f32]) {
    if !dim.is_multiple_of(DEPTH) {
        // SAFETY: AMX implies the table's instructions.
        return unsafe { (vnni::TABLE.pack_queries)(dim, qt) };
    }
    for part in qt.chunks_exact_mut(PART) {
        let part = part.as_mut_ptr();
        right_part(part, part, DEPTH);
    }
}

/// One part of a right side from `n` rows of 16 f32, in place if `to` is `from`; the rest of the depth is zero.
#[target_feature(enable = "avx512f,avx512bw")]
fn right_part(to: *mut f32, from: *const f32, n: usize) {
    let mut rows = [_mm512_setzero_si512(); DEPTH];
    for (i, row) in rows[..n].iter_mut().enumerate() {
        // SAFETY: the callers have `n` rows at `from`.
        *row = unsafe { _mm512_loadu_si512(from.add(i * STRIP).cast()) };
    }
    for (i, pair) in rows.as_chunks::<2>().0.iter().enumerate() {
        // SAFETY: the callers have room for a part at `to`.
        unsafe {
            _mm512_storeu_si512(to.add(i * STRIP).cast(), interleaved(rounded(pair[0]), rounded(pair[1])));
            _mm512_storeu_si512(to.add(PART / 2 + i * STRIP).cast(), interleaved(rest(pair[0]), rest(pair[1])));
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn widen_keys(kind: KvType, dim: usize, rows: &[u8], out: &mut [f32]) {
    if !dim.is_multiple_of(DEPTH) {
        // SAFETY: AMX implies the table's instructions.
        return unsafe { (vnni::TABLE.widen_keys)(kind, dim, rows, out) };
    }
    let row_bytes = kind.row_bytes(dim);
    let n_steps = dim / DEPTH;
    assert!(out.len() >= KV_BLOCK * dim && rows.len() <= KV_BLOCK * row_bytes);
    for (j, row) in rows.chunks_exact(row_bytes).enumerate() {
        for step in 0..n_steps {
            // SAFETY: the row has 32 elements for each step; key j < KV_BLOCK has 64 bytes in each of the two tiles of part
            // (j / 16, step), and the parts of all keys take KV_BLOCK * dim f32.
            unsafe {
                let (a, b) = (widened(kind, row.as_ptr(), step * DEPTH), widened(kind, row.as_ptr(), step * DEPTH + 16));
                let to = out.as_mut_ptr().add((j / ROWS * n_steps + step) * PART + j % ROWS * STRIP);
                _mm512_storeu_si512(to.cast(), upper_halves(rounded(a), rounded(b)));
                _mm512_storeu_si512(to.add(PART / 2).cast(), upper_halves(rest(a), rest(b)));
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn widen_values(kind: KvType, dim: usize, rows: &[u8], out: &mut [f32]) {
    if !dim.is_multiple_of(DEPTH) {
        // SAFETY: AMX implies the table's instructions.
        return unsafe { (vnni::TABLE.widen_values)(kind, dim, rows, out) };
    }
    let row_bytes = kind.row_bytes(dim);
    let n_keys = rows.len() / row_bytes;
    let n_steps = n_keys.div_ceil(DEPTH);
    assert!(out.len() >= KV_BLOCK * dim && n_keys <= KV_BLOCK);
    for step in 0..n_steps {
        for block in 0..dim / ROWS {
            let zero = _mm512_setzero_si512();
            let (mut high, mut low) = ([zero; 16], [zero; 16]);
            for (i, (high, low)) in high.iter_mut().zip(&mut low).enumerate() {
                let key = step * DEPTH + 2 * i;
                // SAFETY: keys below `n_keys` have a row of `dim` elements.
                let of = |key: usize| unsafe {
                    if key < n_keys { widened(kind, rows.as_ptr().add(key * row_bytes), block * ROWS) } else { zero }
                };
                let (a, b) = (of(key), of(key + 1));
                *high = interleaved(rounded(a), rounded(b));
                *low = interleaved(rest(a), rest(b));
            }
            // SAFETY: dim / 16 blocks of n_steps <= 2 parts take at most KV_BLOCK * dim f32.
            let to = unsafe { out.as_mut_ptr().add((block * n_steps + step) * PART) };
            for (i, (high, low)) in transposed(high).into_iter().zip(transposed(low)).enumerate() {
                // SAFETY: as above; row i < 16 has 64 bytes in each tile.
                unsafe {
                    _mm512_storeu_si512(to.add(i * STRIP).cast(), high);
                    _mm512_storeu_si512(to.add(PART / 2 + i * STRIP).cast(), low);
                }
            }
        }
    }
}

#[target_feature(enable = "avx512f")]
fn score_tile(dim: usize, n_keys: usize, k: &[f32], qt: &[f32], st: &mut [f32]) {
    if !dim.is_multiple_of(DEPTH) {
        // SAFETY: AMX implies the table's instructions.
        return unsafe { (vnni::TABLE.score_tile)(dim, n_keys, k, qt, st) };
    }
    let n_strips = st.len() / (KV_BLOCK * STRIP);
    assert!(k.len() >= KV_BLOCK * dim && n_keys <= KV_BLOCK && qt.len() == n_strips * dim * STRIP);
    let tiles = Tiles::new();
    for strip in (0..n_strips).step_by(2) {
        let second = (strip + 1).min(n_strips - 1);
        // Keys of the last pair of tiles beyond `n_keys` are whatever the buffer holds; their scores are not read.
        for block in (0..n_keys.div_ceil(ROWS)).step_by(2) {
            // SAFETY: 64 keys have four blocks of parts of `dim`, and a strip has one; st has 64 rows a strip.
            unsafe {
                let a = [block, block + 1].map(|block| k.as_ptr().add(block * ROWS * dim));
                let b = [strip, second].map(|strip| qt.as_ptr().add(strip * dim * STRIP));
                let c = [strip, second].map(|strip| st.as_mut_ptr().add((strip * KV_BLOCK + block * ROWS) * STRIP));
                tiles.multiply(a, b, c, dim / DEPTH, true);
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
fn mix_tile(dim: usize, keys: std::ops::Range<usize>, v: &[f32], pt: &[f32], factor: &[f32], ot: &mut [f32]) {
    if !dim.is_multiple_of(DEPTH) {
        // SAFETY: AMX implies the table's instructions.
        return unsafe { (vnni::TABLE.mix_tile)(dim, keys, v, pt, factor, ot) };
    }
    let n_strips = ot.len() / (dim * STRIP);
    let n_steps = keys.len().div_ceil(DEPTH);
    assert!(v.len() >= KV_BLOCK * dim && keys.end <= KV_BLOCK && factor.len() == n_strips * STRIP);
    assert!(ot.len() == n_strips * dim * STRIP && pt.len() == n_strips * KV_BLOCK * STRIP);
    let tiles = Tiles::new();
    let mut weights = [[0f32; KV_BLOCK * STRIP]; 2];
    for strip in (0..n_strips).step_by(2) {
        let second = (strip + 1).min(n_strips - 1);
        for (strip, weights) in (strip..=second).zip(&mut weights) {
            for (step, part) in weights.as_chunks_mut::<PART>().0[..n_steps].iter_mut().enumerate() {
                let first = keys.start + step * DEPTH;
                let from = pt[(strip * KV_BLOCK + first) * STRIP..].as_ptr();
                right_part(part.as_mut_ptr(), from, DEPTH.min(keys.end - first));
            }
            // SAFETY: 16 factors and all rows of this strip are there, by the lengths asserted.
            unsafe {
                let factor = _mm512_loadu_ps(factor.as_ptr().add(strip * STRIP));
                for row in ot[strip * dim * STRIP..(strip + 1) * dim * STRIP].as_chunks_mut::<STRIP>().0 {
                    _mm512_storeu_ps(row.as_mut_ptr(), _mm512_mul_ps(factor, _mm512_loadu_ps(row.as_ptr())));
                }
            }
        }
        for block in (0..dim / ROWS).step_by(2) {
            // SAFETY: v has dim / 16 blocks of n_steps parts, an even number; ot has dim rows a strip.
            unsafe {
                let a = [block, block + 1].map(|block| v.as_ptr().add(block * n_steps * PART));
                let b = [0, second - strip].map(|i| weights[i].as_ptr());
                let c = [strip, second].map(|strip| ot.as_mut_ptr().add((strip * dim + block * ROWS) * STRIP));
                tiles.multiply(a, b, c, n_steps, false);
            }
        }
    }
}

/// The tiles of this thread, while they are configured.
struct Tiles {
    _configured: Configured,
}

impl Tiles {
    fn new() -> Self {
        Self { _configured: Configured::new() }
    }

    /// `c[j] (+)= a · b[j]` over `steps` parts, for two strips j: 32 rows of 16 f32 at each c, the first 16 from `a[0]` and
    /// the next from `a[1]`. Twice the same strip is computed twice and stored twice alike.
    ///
    /// # Safety
    /// `steps > 0`, and the pointers have as many parts, and the 32 rows.
    unsafe fn multiply(&self, a: [*const f32; 2], b: [*const f32; 2], c: [*mut f32; 2], steps: usize, fresh: bool) {
        // SAFETY: `steps` > 0 rounds read a part of 2 KiB at each operand; tiles are 16 rows of 64 bytes, 64 bytes apart.
        // Every register written is declared.
        unsafe {
            asm!(
                "test {fresh:e}, {fresh:e}",
                "jz 2f",
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "jmp 3f",
                "2:",
                "tileloadd tmm0, [{c0} + {stride}]",
                "tileloadd tmm1, [{c1} + {stride}]",
                "tileloadd tmm2, [{c0} + {stride} + 1024]",
                "tileloadd tmm3, [{c1} + {stride} + 1024]",
                "3:",
                "tileloadd tmm4, [{a0} + {stride}]",
                "tileloadd tmm6, [{b0} + {stride}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b1} + {stride}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{a1} + {stride}]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tileloadd tmm6, [{b0} + {stride} + 1024]",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "tileloadd tmm7, [{b1} + {stride} + 1024]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm4, [{a0} + {stride} + 1024]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tileloadd tmm6, [{b0} + {stride}]",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "tileloadd tmm7, [{b1} + {stride}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{a1} + {stride} + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a0}, 2048",
                "add {a1}, 2048",
                "add {b0}, 2048",
                "add {b1}, 2048",
                "dec {steps}",
                "jnz 3b",
                "tilestored [{c0} + {stride}], tmm0",
                "tilestored [{c1} + {stride}], tmm1",
                "tilestored [{c0} + {stride} + 1024], tmm2",
                "tilestored [{c1} + {stride} + 1024], tmm3",
                fresh = in(reg) u32::from(fresh), stride = in(reg) 64_usize,
                a0 = inout(reg) a[0] => _, a1 = inout(reg) a[1] => _,
                b0 = inout(reg) b[0] => _, b1 = inout(reg) b[1] => _,
                c0 = in(reg) c[0], c1 = in(reg) c[1], steps = inout(reg) steps => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}
