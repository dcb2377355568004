//! Q4_K with a few activation rows: two weight rows at a time, so that the activations are loaded once for both, two blocks of
//! each, whose headers fill a register. What comes after the products then takes the most time, and two rows share it too.

use super::q4_k::Q4K;
use super::super_blocks::{SuperBlock, even_and_odd_lanes, unpack_headers};
use super::{dpwssd, prefetch_block};
use crate::quantize::{Activations, Q8K};
use std::arch::x86_64::*;
use std::array;

const BYTES: usize = Q4K::BYTES;

/// Products of `M` activation rows from `start` on with the rows of `w`.
///
/// # Safety
/// The machine has the features of this module.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn dot<const M: usize>(w: &[u8], k: usize, acts: &Activations, start: usize, out: &mut [f32]) {
    let n_blocks = k / 256;
    let row_bytes = n_blocks * BYTES;
    let n = w.len() / row_bytes;
    assert!(k == acts.cols() && out.len() >= M * n);
    let x: [Q8K<'_>; M] = array::from_fn(|i| acts.q8k_row(start + i));
    for r in (0..n).step_by(2) {
        // A last row without another is a pair with itself.
        let rows = [r, (r + 1).min(n - 1)].map(|r| w[r * row_bytes..][..row_bytes].as_ptr());
        let mut acc = [_mm512_setzero_ps(); M];
        for b in (0..n_blocks).step_by(2) {
            // SAFETY: blocks below `n_blocks` lie within `row_bytes` bytes of both rows; a row of activations has at least
            // `acts.cols()` = `k` columns, padded to a multiple of four blocks.
            unsafe {
                let blocks = rows.map(|row| row.add(b * BYTES));
                if b + 2 <= n_blocks { two::<M, 2>(blocks, b, &x, &mut acc) } else { two::<M, 1>(blocks, b, &x, &mut acc) }
            }
        }
        for (i, pair) in sums(&acc).as_chunks::<2>().0.iter().enumerate().take(M) {
            let both = 2.min(n - r);
            out[i * n + r..][..both].copy_from_slice(&pair[..both]);
        }
    }
}

/// For each of up to four, the sum of the first two of each four lanes, then that of the others.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
#[inline]
fn sums<const M: usize>(acc: &[__m512; M]) -> [f32; 8] {
    let [a, b, c, d] = array::from_fn(|i| acc.get(i).copied().unwrap_or_else(|| _mm512_setzero_ps()));
    let halves = |x, y| _mm512_add_ps(_mm512_shuffle_f32x4::<0b01_00_01_00>(x, y), _mm512_shuffle_f32x4::<0b11_10_11_10>(x, y));
    let (ab, cd) = (halves(a, b), halves(c, d));
    // Four numbers of each in a lane of its own.
    let quarters = _mm512_add_ps(_mm512_shuffle_f32x4::<0b10_00_10_00>(ab, cd), _mm512_shuffle_f32x4::<0b11_01_11_01>(ab, cd));
    let pairs = _mm512_add_ps(quarters, _mm512_permute_ps::<0b10_11_00_01>(quarters));
    let mut sums = [0f32; 8];
    // SAFETY: eight floats.
    unsafe { _mm256_storeu_ps(sums.as_mut_ptr(), _mm512_castps512_ps256(_mm512_maskz_compress_ps(0x5555, pairs))) };
    sums
}

/// Words to take for the sums of block `j` of both rows: in a lane, two of an even group and two of the odd one after it of the
/// first row, and the same of the second.
static SPREAD: [[u16; 32]; 2] = {
    let mut spread = [[0; 32]; 2];
    let mut i = 0;
    while i < 2 * 32 {
        let (lane, word) = (i % 32 / 8, i % 8);
        let group = 2 * lane + word % 4 / 2;
        spread[i / 32][i % 32] = (i / 32 * 16 + group / 4 * 8 + word / 4 * 4 + group % 4) as u16;
        i += 1;
    }
    spread
};

/// Adds the products of blocks `b` .. `b + N` of both rows, `N` at most 2; those of the first row to the first two of each four
/// lanes.
///
/// # Safety
/// `N` blocks at each of `blocks` are readable; the rows of `x` have at least `256 (b + 2)` columns.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
#[inline]
unsafe fn two<const M: usize, const N: usize>(blocks: [*const u8; 2], b: usize, x: &[Q8K<'_>; M], acc: &mut [__m512; M]) {
    // SAFETY: every load is of the first `N` blocks or of columns below `256 (b + 2)` of `x`.
    unsafe {
        let header = |row: usize, j: usize| {
            if j < N { _mm_loadu_si128(blocks[row].add(j * BYTES).cast()) } else { _mm_setzero_si128() }
        };
        let headers = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(header(0, 0)), header(0, 1));
        let headers = _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(headers, header(1, 0)), header(1, 1));
        let (scales, mins, d) = unpack_headers(headers);
        // Four groups of a block of the first row, then of the second, in each lane.
        let by_block = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
        let (scales, mins) = (_mm512_permutexvar_epi64(by_block, scales), _mm512_permutexvar_epi64(by_block, mins));
        let twice = _mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3);
        let for_both = |part: *const i16| _mm512_permutexvar_epi64(twice, _mm512_castsi256_si512(_mm256_loadu_si256(part.cast())));
        let dmin_lanes = _mm512_setr_epi32(1, 1, 5, 5, 1, 1, 5, 5, 3, 3, 7, 7, 3, 3, 7, 7);
        let mut scaled = [_mm512_setzero_si512(); M];
        let mut ds = [_mm512_setzero_ps(); M];
        for (i, x) in x.iter().enumerate() {
            let multipliers = for_both(x.multipliers.as_ptr().add(b * 8));
            let sums = for_both(x.sums.as_ptr().add(b * 8));
            let dx = _mm_castpd_ps(_mm_load_sd(x.d.as_ptr().add(b).cast()));
            let dx = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(dx), _mm256_setr_epi32(0, 0, 1, 1, 0, 0, 1, 1));
            ds[i] = _mm512_castps256_ps512(_mm256_mul_ps(d, dx));
            scaled[i] = _mm512_mullo_epi16(scales, multipliers);
            let min_sums = _mm512_madd_epi16(_mm512_mullo_epi16(mins, multipliers), sums);
            acc[i] = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(min_sums), _mm512_permutexvar_ps(dmin_lanes, ds[i]), acc[i]);
        }
        let dots = Dots { blocks, x: x.map(|x| x.qs_by_nibble.as_ptr().add(b * 256)), scaled, ds };
        dots.add::<N, 0>(acc);
        if N > 1 {
            dots.add::<N, 1>(acc);
        }
    }
}

/// What the dot products of up to two blocks of two weight rows with `M` activation rows need.
struct Dots<const M: usize> {
    blocks: [*const u8; 2],
    /// The quants that the first block is multiplied with, `qs_by_nibble`.
    x: [*const i8; M],
    /// Scales times multipliers, in the order of `SPREAD`.
    scaled: [__m512i; M],
    /// The product of both `d` of block `j` at `2 j`, and of the second row at `4 + 2 j`.
    ds: [__m512; M],
}

impl<const M: usize> Dots<M> {
    /// Adds the products of block `J` of `N`.
    ///
    /// Sums of sixteen products fit in 16 bits (16 * 15 * 127 < 2^15), so that one `vpdpwssd` scales and adds 512 products.
    ///
    /// # Safety
    /// The block of both rows and 256 columns of each `x` from `256 J` on are readable, and the machine has the features of this
    /// module.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    #[inline]
    unsafe fn add<const N: usize, const J: usize>(&self, acc: &mut [__m512; M]) {
        // SAFETY: the caller's promise; a row of SPREAD is 64 bytes.
        unsafe {
            prefetch_block(self.blocks[0], J, N, BYTES);
            prefetch_block(self.blocks[1], J, N, BYTES);
            let (first, second) = (quants(self.blocks[0].add(J * BYTES)), quants(self.blocks[1].add(J * BYTES)));
            let spread = _mm512_loadu_si512(SPREAD[J].as_ptr().cast());
            let (d, other_d) = (2 * J as i32, 4 + 2 * J as i32);
            let d_lanes = _mm512_broadcast_i32x4(_mm_setr_epi32(d, d, other_d, other_d));
            for (i, acc) in acc.iter_mut().enumerate() {
                let mut sums = [_mm512_setzero_si512(); 2];
                for e in 0..4 {
                    let x = _mm512_loadu_si512(self.x[i].add(J * 256 + 64 * e).cast());
                    sums[0] = _mm512_dpbusd_epi32(sums[0], first[e], x);
                    sums[1] = _mm512_dpbusd_epi32(sums[1], second[e], x);
                }
                let words = _mm512_packs_epi32(sums[0], sums[1]);
                let sums = dpwssd(_mm512_setzero_si512(), words, _mm512_permutexvar_epi16(spread, self.scaled[i]));
                *acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), _mm512_permutexvar_ps(d_lanes, self.ds[i]), *acc);
            }
        }
    }
}

/// The quants of a block in the order of `qs_by_nibble`: low nibbles of the first half of each lane, high ones of the second, and
/// the other way round. Two products with each leave, in a lane, two sums of an even group and two of the odd one after it.
///
/// # Safety
/// A block at `block` is readable, and the machine has the features of this module.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
#[inline]
unsafe fn quants(block: *const u8) -> [__m512i; 4] {
    // SAFETY: bytes 16 .. 144 of a block of 144.
    let [a, b] = unsafe { even_and_odd_lanes(block.add(16)) };
    let high = _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0, 4, 4));
    let nibbles = |bytes| _mm512_and_si512(_mm512_srlv_epi32(bytes, high), _mm512_set1_epi8(15));
    let turned = |bytes| nibbles(_mm512_shuffle_epi32::<0b01_00_11_10>(bytes));
    [nibbles(a), turned(a), nibbles(b), turned(b)]
}
