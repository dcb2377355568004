//! From weight rows to a panel: four bytes of each of 32 rows come to lie side by side.

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
            let rows: [__m512i; 16] = array::from_fn(|r| unsafe { _mm512_loadu_si512(rows.add((16 * v + r) * stride + 64 * at).cast()) });
            // Of each four rows, words `e` of the four quarters of a register.
            let fours: [[__m512i; 4]; 4] = array::from_fn(|q| {
                let [a, b, c, d] = [rows[4 * q], rows[4 * q + 1], rows[4 * q + 2], rows[4 * q + 3]];
                let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
                let (ab_high, cd_high) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
                [
                    _mm512_unpacklo_epi64(ab, cd),
                    _mm512_unpackhi_epi64(ab, cd),
                    _mm512_unpacklo_epi64(ab_high, cd_high),
                    _mm512_unpackhi_epi64(ab_high, cd_high),
                ]
            });
            for e in 0..4 {
                let [a, b, c, d] = fours.map(|four| four[e]);
                let (ab, cd) = (_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0x44>(c, d));
                let (ab_high, cd_high) = (_mm512_shuffle_i32x4::<0xee>(a, b), _mm512_shuffle_i32x4::<0xee>(c, d));
                let words = [
                    _mm512_shuffle_i32x4::<0x88>(ab, cd),
                    _mm512_shuffle_i32x4::<0xdd>(ab, cd),
                    _mm512_shuffle_i32x4::<0x88>(ab_high, cd_high),
                    _mm512_shuffle_i32x4::<0xdd>(ab_high, cd_high),
                ];
                for (quarter, words) in words.into_iter().enumerate() {
                    // SAFETY: half a place of 128 bytes, the one of sixteen with that number.
                    unsafe { _mm512_storeu_si512(places.add((16 * at + 4 * quarter + e) * 128 + 64 * v).cast(), words) };
                }
            }
        }
    }
}
