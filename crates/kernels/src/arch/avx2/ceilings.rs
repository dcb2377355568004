//! Loops that do nothing but read memory, or nothing but multiply: what the kernels can at most reach.

use super::prefetch;
use std::arch::x86_64::*;

/// Reads all of `bytes` as the kernels do and returns something that depends on them.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn read(bytes: &[u8]) -> u64 {
    let mut sums = [_mm256_setzero_si256(); 4];
    for chunk in bytes.as_chunks::<128>().0 {
        let p = chunk.as_ptr();
        prefetch(p, 128);
        for (i, sum) in sums.iter_mut().enumerate() {
            // SAFETY: 32 bytes at 32 i of a chunk of 128.
            *sum = _mm256_xor_si256(*sum, unsafe { _mm256_loadu_si256(p.add(32 * i).cast()) });
        }
    }
    let [a, b, c, d] = sums;
    let sum = _mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d));
    let sum = _mm_xor_si128(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
    _mm_cvtsi128_si64(sum).cast_unsigned()
}

/// `rounds` times 12 independent products of 32 pairs of bytes, added up in sixteen bits; returns the multiplications and
/// additions made.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn multiply(rounds: usize) -> usize {
    let mut sums = [_mm256_setzero_si256(); 12];
    let (a, b) = std::hint::black_box((_mm256_set1_epi8(3), _mm256_set1_epi8(5)));
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm256_add_epi16(_mm256_maddubs_epi16(_mm256_xor_si256(a, *sum), b), *sum);
        }
    }
    std::hint::black_box(sums);
    rounds * 12 * 32 * 2
}
