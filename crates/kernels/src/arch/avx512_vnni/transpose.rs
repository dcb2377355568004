//! From weight rows to a panel: four bytes of each of 32 rows come to lie side by side.

use crate::arch::panel::SLICE;
use std::arch::x86_64::*;
use std::array;

/// `panel[i][r]` becomes bytes `4 i` .. `4 i + 4` of row `r`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn transpose(rows: &[[u8; SLICE]; 32], panel: &mut [[[u8; 4]; 32]; SLICE / 4]) {
    for (v, rows) in rows.as_chunks::<16>().0.iter().enumerate() {
        for (at, places) in panel.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            // SAFETY: 64 bytes from 64 `at` on, of a row of SLICE, which is 64 times the number of chunks of `panel`.
            let rows: [__m512i; 16] = array::from_fn(|r| unsafe { _mm512_loadu_si512(rows[r].as_ptr().add(64 * at).cast()) });
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
                    let place = places[4 * quarter + e][16 * v..][..16].as_mut_ptr();
                    // SAFETY: sixteen times four bytes.
                    unsafe { _mm512_storeu_si512(place.cast(), words) };
                }
            }
        }
    }
}
