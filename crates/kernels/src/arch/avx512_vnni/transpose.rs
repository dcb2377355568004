//! Rows to columns of words of four bytes: weight rows to a panel or to the lanes of a register, query rows to strips.

use std::arch::x86_64::*;
use std::array;

/// Place `i` of `n`, of 32 times four bytes, gets bytes `4 i` .. `4 i + 4` of each of the 32 rows, which are `stride` apart.
///
/// # Safety
/// `n` is a multiple of 16, that many times four bytes of each row are readable, and as many places writable.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn transpose(rows: *const u8, stride: usize, n: usize, places: *mut u8) {
    for v in 0..2 {
        for at in 0..n / 16 {
            // SAFETY: 64 bytes from `64 at` on, of row `16 v + r`.
            let rows = array::from_fn(|r| unsafe { _mm512_loadu_si512(rows.add((16 * v + r) * stride + 64 * at).cast()) });
            for (i, words) in transposed(rows).into_iter().enumerate() {
                // SAFETY: half a place of 128 bytes, the one of sixteen with that number.
                unsafe { _mm512_storeu_si512(places.add((16 * at + i) * 128 + 64 * v).cast(), words) };
            }
        }
    }
}

/// 16 x 16 words, rows and columns exchanged.
#[target_feature(enable = "avx512f")]
#[inline]
pub(crate) fn transposed(rows: [__m512i; 16]) -> [__m512i; 16] {
    // Of each four rows, words `e` of the four quarters of a register.
    // SAFETY: the features are this function's.
    let fours: [[__m512i; 4]; 4] =
        array::from_fn(|q| unsafe { transposed_in_lanes([rows[4 * q], rows[4 * q + 1], rows[4 * q + 2], rows[4 * q + 3]]) });
    let mut columns = [_mm512_setzero_si512(); 16];
    for e in 0..4 {
        let [a, b, c, d] = fours.map(|four| four[e]);
        let (ab, cd) = (_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0x44>(c, d));
        let (ab_high, cd_high) = (_mm512_shuffle_i32x4::<0xee>(a, b), _mm512_shuffle_i32x4::<0xee>(c, d));
        columns[e] = _mm512_shuffle_i32x4::<0x88>(ab, cd);
        columns[4 + e] = _mm512_shuffle_i32x4::<0xdd>(ab, cd);
        columns[8 + e] = _mm512_shuffle_i32x4::<0x88>(ab_high, cd_high);
        columns[12 + e] = _mm512_shuffle_i32x4::<0xdd>(ab_high, cd_high);
    }
    columns
}

/// In each 128 bits, four words of four rows become four rows of four words.
///
/// # Safety
/// The machine has the features of this module.
#[inline(always)]
pub(super) unsafe fn transposed_in_lanes([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
        let (ab_high, cd_high) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
        [
            _mm512_unpacklo_epi64(ab, cd),
            _mm512_unpackhi_epi64(ab, cd),
            _mm512_unpacklo_epi64(ab_high, cd_high),
            _mm512_unpackhi_epi64(ab_high, cd_high),
        ]
    }
}
