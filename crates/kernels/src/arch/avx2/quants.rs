//! How each format's quants lie in its blocks; see `scalar/` for what they mean.

use super::groups_of_16::GroupsOf16;
use super::groups_of_32::{GroupsOf32, Offset};
use std::arch::x86_64::*;

/// A format with blocks of 256.
pub(super) trait Quants {
    /// Of a block.
    const BYTES: usize;

    /// Quants `32 group` .. `32 group + 32` of a block, unsigned and below 64.
    ///
    /// # Safety
    /// A block at `block` is readable, `group` is below 8, and the machine has the features of this module.
    unsafe fn quants(block: *const u8, group: usize) -> __m256i;
}

pub(super) struct Q2K;
pub(super) struct Q3K;
pub(super) struct Q4K;
pub(super) struct Q5K;
pub(super) struct Q6K;
pub(super) struct Q4_0;
pub(super) struct Q4_1;
pub(super) struct Q5_0;
pub(super) struct Q5_1;
pub(super) struct Q8_0;

/// 32 bytes at `p`, each shifted right by `shift` and masked by `mask`, which must drop what comes from a neighbour.
///
/// # Safety
/// They are readable.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn bits(p: *const u8, shift: usize, mask: i8) -> __m256i {
    // SAFETY: the caller's promise.
    let bytes = unsafe { _mm256_loadu_si256(p.cast()) };
    let bytes = _mm256_srl_epi16(bytes, _mm_cvtsi64_si128(shift as i64));
    _mm256_and_si256(bytes, _mm256_set1_epi8(mask))
}

/// `value` in the bytes of which bit `bit` is set at `p`.
///
/// # Safety
/// 32 bytes at `p` are readable.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn where_set(p: *const u8, bit: usize, value: i8) -> __m256i {
    let bit = _mm256_set1_epi8((1_u8 << bit).cast_signed());
    // SAFETY: the caller's promise.
    let set = _mm256_and_si256(unsafe { _mm256_loadu_si256(p.cast()) }, bit);
    _mm256_and_si256(_mm256_cmpeq_epi8(set, bit), _mm256_set1_epi8(value))
}

impl Quants for Q4K {
    const BYTES: usize = 144;

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn quants(block: *const u8, group: usize) -> __m256i {
        // SAFETY: bytes from 16 to 144 of a block of 144.
        unsafe { bits(block.add(16 + group / 2 * 32), group % 2 * 4, 15) }
    }
}

impl Quants for Q5K {
    const BYTES: usize = 176;

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn quants(block: *const u8, group: usize) -> __m256i {
        // SAFETY: bytes from 16 to 176 of a block of 176.
        let (low, fifth) = unsafe { (bits(block.add(48 + group / 2 * 32), group % 2 * 4, 15), where_set(block.add(16), group, 16)) };
        _mm256_or_si256(low, fifth)
    }
}

impl Quants for Q6K {
    const BYTES: usize = 210;

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn quants(block: *const u8, group: usize) -> __m256i {
        let (half, quarter) = (group / 4, group % 4);
        // SAFETY: bytes below 192 of a block of 210.
        let (low, pairs) = unsafe {
            let low = bits(block.add(half * 64 + quarter % 2 * 32), quarter / 2 * 4, 15);
            (low, bits(block.add(128 + half * 32), quarter * 2, 3))
        };
        _mm256_or_si256(low, _mm256_slli_epi16::<4>(pairs))
    }
}

impl GroupsOf16 for Q6K {
    const D: usize = 208;
    const DMIN: Option<usize> = None;
    const OFFSET: f32 = 32.0;

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn scales(block: *const u8) -> (__m128i, __m128i) {
        // SAFETY: bytes 192 .. 208 of a block of 210.
        (unsafe { _mm_loadu_si128(block.add(192).cast()) }, _mm_setzero_si128())
    }
}

impl Quants for Q3K {
    const BYTES: usize = 110;

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn quants(block: *const u8, group: usize) -> __m256i {
        // SAFETY: bytes below 96 of a block of 110.
        let (pairs, third) = unsafe { (bits(block.add(32 + group / 4 * 32), group % 4 * 2, 3), where_set(block, group, 4)) };
        _mm256_or_si256(pairs, third)
    }
}

impl GroupsOf16 for Q3K {
    const D: usize = 108;
    const DMIN: Option<usize> = None;
    const OFFSET: f32 = 4.0;

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn scales(block: *const u8) -> (__m128i, __m128i) {
        // SAFETY: bytes 96 .. 108 of a block of 110.
        let (low, high) = unsafe {
            let low = _mm_loadl_epi64(block.add(96).cast());
            (low, _mm_set1_epi32(block.add(104).cast::<i32>().read_unaligned()))
        };
        // Scale `i`: nibble `i / 8` of byte `i % 8`, and above it bit pair `i / 4` of byte `8 + i % 4`.
        let low = _mm_and_si128(_mm_unpacklo_epi64(low, _mm_srli_epi16::<4>(low)), _mm_set1_epi8(15));
        let high = _mm_sllv_epi32(high, _mm_setr_epi32(4, 2, 0, 0));
        let high = _mm_and_si128(_mm_srlv_epi32(high, _mm_setr_epi32(0, 0, 0, 2)), _mm_set1_epi8(0x30));
        (_mm_sub_epi8(_mm_or_si128(low, high), _mm_set1_epi8(32)), _mm_setzero_si128())
    }
}

impl Quants for Q2K {
    const BYTES: usize = 84;

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn quants(block: *const u8, group: usize) -> __m256i {
        // SAFETY: bytes 16 .. 80 of a block of 84.
        unsafe { bits(block.add(16 + group / 4 * 32), group % 4 * 2, 3) }
    }
}

impl GroupsOf16 for Q2K {
    const D: usize = 80;
    const DMIN: Option<usize> = Some(82);
    const OFFSET: f32 = 0.0;

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn scales(block: *const u8) -> (__m128i, __m128i) {
        // SAFETY: bytes 0 .. 16 of a block of 84.
        let bytes = unsafe { _mm_loadu_si128(block.cast()) };
        let low = _mm_set1_epi8(15);
        (_mm_and_si128(bytes, low), _mm_and_si128(_mm_srli_epi16::<4>(bytes), low))
    }
}

/// Sixteen bytes at `p` and at `p + stride`.
///
/// # Safety
/// They are readable.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn two(p: *const u8, stride: usize) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe { _mm256_loadu2_m128i(p.add(stride).cast(), p.cast()) }
}

/// The low nibbles and the high nibbles.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn nibbles(bytes: __m256i) -> [__m256i; 2] {
    let low = _mm256_set1_epi8(15);
    [_mm256_and_si256(bytes, low), _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), low)]
}

/// 16 in the bytes whose fifth bit is set, for the quants 0..16 and 16..32 of two blocks that have these bits at `p`.
///
/// # Safety
/// Sixteen bytes at `p` and at `p + stride` are readable.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn fifth_bits(p: *const u8, stride: usize) -> [__m256i; 2] {
    // SAFETY: the caller's promise.
    let fifths = unsafe { two(p, stride) };
    let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64.cast_signed());
    [0, 2].map(|byte| {
        let spread = _mm_unpacklo_epi64(_mm_set1_epi8(byte), _mm_set1_epi8(byte + 1));
        let bytes = _mm256_shuffle_epi8(fifths, _mm256_broadcastsi128_si256(spread));
        let set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
        _mm256_and_si256(set, _mm256_set1_epi8(16))
    })
}

impl GroupsOf32 for Q4_0 {
    const BYTES: usize = 18;
    const C: Offset = Offset::Times(-8.0);
    const SIGNED: bool = false;

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn quants(blocks: *const u8) -> [__m256i; 2] {
        // SAFETY: bytes 2 .. 18 of two blocks of 18.
        nibbles(unsafe { two(blocks.add(2), 18) })
    }
}

impl GroupsOf32 for Q4_1 {
    const BYTES: usize = 20;
    const C: Offset = Offset::At(2);
    const SIGNED: bool = false;

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn quants(blocks: *const u8) -> [__m256i; 2] {
        // SAFETY: bytes 4 .. 20 of two blocks of 20.
        nibbles(unsafe { two(blocks.add(4), 20) })
    }
}

impl GroupsOf32 for Q5_0 {
    const BYTES: usize = 22;
    const C: Offset = Offset::Times(-16.0);
    const SIGNED: bool = false;

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn quants(blocks: *const u8) -> [__m256i; 2] {
        // SAFETY: bytes 2 .. 22 of two blocks of 22.
        let (low, fifth) = unsafe { (nibbles(two(blocks.add(6), 22)), fifth_bits(blocks.add(2), 22)) };
        [_mm256_or_si256(low[0], fifth[0]), _mm256_or_si256(low[1], fifth[1])]
    }
}

impl GroupsOf32 for Q5_1 {
    const BYTES: usize = 24;
    const C: Offset = Offset::At(2);
    const SIGNED: bool = false;

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn quants(blocks: *const u8) -> [__m256i; 2] {
        // SAFETY: bytes 4 .. 24 of two blocks of 24.
        let (low, fifth) = unsafe { (nibbles(two(blocks.add(8), 24)), fifth_bits(blocks.add(4), 24)) };
        [_mm256_or_si256(low[0], fifth[0]), _mm256_or_si256(low[1], fifth[1])]
    }
}

impl GroupsOf32 for Q8_0 {
    const BYTES: usize = 34;
    const C: Offset = Offset::Times(0.0);
    const SIGNED: bool = true;

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn quants(blocks: *const u8) -> [__m256i; 2] {
        // SAFETY: bytes 2 .. 34 of two blocks of 34.
        unsafe { [two(blocks.add(2), 34), two(blocks.add(18), 34)] }
    }
}
