//! Loops that do nothing but read memory, or nothing but multiply: what the kernels can at most reach.

use super::prefetch;
use std::arch::x86_64::*;

/// Reads all of `bytes` as the kernels do and returns something that depends on them.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn read(bytes: &[u8]) -> u64 {
    let mut sums = [_mm512_setzero_si512(); 4];
    for chunk in bytes.as_chunks::<256>().0 {
        let p = chunk.as_ptr();
        prefetch(p, 256);
        for (i, sum) in sums.iter_mut().enumerate() {
            // SAFETY: 64 bytes at 64 i of a chunk of 256.
            *sum = _mm512_xor_si512(*sum, unsafe { _mm512_loadu_si512(p.add(64 * i).cast()) });
        }
    }
    let [a, b, c, d] = sums;
    let sum = _mm512_xor_si512(_mm512_xor_si512(a, b), _mm512_xor_si512(c, d));
    _mm512_reduce_add_epi64(sum).cast_unsigned()
}

/// `rounds` times 24 independent products of 64 pairs of bytes; returns the multiplications and additions made.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn multiply(rounds: usize) -> usize {
    let mut sums = [_mm512_setzero_si512(); 24];
    let (a, b) = std::hint::black_box((_mm512_set1_epi8(3), _mm512_set1_epi8(5)));
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, a, b);
        }
    }
    std::hint::black_box(sums);
    rounds * 24 * 64 * 2
}
