//! Weights of a row to bfloat16, each into its place in a panel of tiles.

use super::SLICE;
use super::pack::{round, widen};
use super::tiles::{DEPTH, ROWS, TILE};
use crate::arch::avx512_vnni::groups_of_16::GroupsOf16;
use crate::arch::avx512_vnni::groups_of_32::{FourBlocks, GroupsOf32};
use crate::arch::avx512_vnni::{Q2K, Q3K, Q4_0, Q4_1, Q5_0, Q5_1, Q5K, Q6K, splat_f16};
use crate::blocks::DType;
use crate::scalar;
use std::arch::x86_64::*;

/// A row of a panel: step by step of 32 weights, a step two tiles after the one before.
struct Place<'a> {
    panel: &'a mut [u16],
    at: usize,
}

impl Place<'_> {
    /// Writes the weights of `step`.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
    #[inline]
    fn put(&mut self, step: usize, weights: __m512i) {
        let at = self.at + step * 2 * TILE;
        let place = &mut self.panel[at..at + DEPTH];
        // SAFETY: 64 bytes.
        unsafe { _mm512_storeu_si512(place.as_mut_ptr().cast(), weights) };
    }

    /// Writes the weights of `step` as a high part, and what that leaves to a second panel after this one.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
    #[inline]
    fn put_split(&mut self, step: usize, a: __m512, b: __m512) {
        let high = round(a, b);
        let [high_a, high_b] = widen(high);
        self.put(step, high);
        let low = round(_mm512_sub_ps(a, high_a), _mm512_sub_ps(b, high_b));
        self.put(step + ROWS * SLICE / (2 * TILE), low);
    }
}

/// Writes the weights of `blocks`, at most SLICE, as row `r` of 32 of `panel`. F32 and F16 are split: what the rounding to
/// bfloat16 leaves goes to a second panel after the first. If the last step is not full, zeros follow.
///
/// # Safety
/// The machine has the features of this module.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
pub(super) unsafe fn row(dtype: DType, blocks: &[u8], panel: &mut [u16], r: usize) {
    let place = Place { panel, at: r / 16 * TILE + r % 16 * DEPTH };
    // SAFETY: the features are this function's.
    unsafe {
        match dtype {
            DType::F32 => floats(blocks, 4, place, |p, mask| _mm512_maskz_loadu_ps(mask, p.cast())),
            DType::F16 => floats(blocks, 2, place, |p, mask| _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, p.cast()))),
            DType::BF16 => bf16(blocks, place),
            DType::Q4_0 => groups_of_32::<Q4_0>(blocks, place),
            DType::Q4_1 => groups_of_32::<Q4_1>(blocks, place),
            DType::Q5_0 => groups_of_32::<Q5_0>(blocks, place),
            DType::Q5_1 => groups_of_32::<Q5_1>(blocks, place),
            DType::Q8_0 => q8_0(blocks, place),
            DType::Q2_K => groups_of_16::<Q2K>(blocks, place),
            DType::Q3_K => groups_of_16::<Q3K>(blocks, place),
            DType::Q4_K => q4_k(blocks, place),
            DType::Q5_K => q5_k(blocks, place),
            DType::Q6_K => groups_of_16::<Q6K>(blocks, place),
            DType::IQ4_NL | DType::IQ4_XS | DType::MXFP4 => any(dtype, blocks, place),
        }
    }
}

/// By way of the scalar function.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
unsafe fn any(dtype: DType, blocks: &[u8], mut place: Place<'_>) {
    let len = blocks.len() / dtype.block_bytes() * dtype.block_len();
    let mut weights = [0f32; SLICE];
    scalar::dequantize(dtype)(blocks, &mut weights[..len]);
    for (step, weights) in weights[..len.next_multiple_of(DEPTH)].as_chunks::<DEPTH>().0.iter().enumerate() {
        // SAFETY: the halves of 32 floats.
        let (a, b) = unsafe { (_mm512_loadu_ps(weights.as_ptr()), _mm512_loadu_ps(weights[16..].as_ptr())) };
        place.put(step, round(a, b));
    }
}

/// `load` gets the place of sixteen numbers and a mask of those that are there.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
#[inline]
unsafe fn floats(bytes: &[u8], size: usize, mut place: Place<'_>, load: impl Fn(*const u8, __mmask16) -> __m512) {
    for (step, numbers) in bytes.chunks(DEPTH * size).enumerate() {
        let half = |at: usize| {
            let rest = numbers.get(at * size..).unwrap_or_default();
            load(rest.as_ptr(), ((1_u32 << (rest.len() / size).min(16)) - 1) as __mmask16)
        };
        place.put_split(step, half(0), half(16));
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
unsafe fn bf16(bytes: &[u8], mut place: Place<'_>) {
    for (step, numbers) in bytes.chunks(DEPTH * 2).enumerate() {
        let mask = u32::MAX >> (DEPTH - numbers.len() / 2);
        // SAFETY: only the lanes of the mask are read, as many as there are numbers, which are 1 to 32.
        place.put(step, unsafe { _mm512_maskz_loadu_epi16(mask, numbers.as_ptr().cast()) });
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
unsafe fn q8_0(blocks: &[u8], mut place: Place<'_>) {
    for (step, block) in blocks.as_chunks::<34>().0.iter().enumerate() {
        // SAFETY: bytes 0 .. 2, 2 .. 18 and 18 .. 34 of a block of 34.
        let (d, a, b) = unsafe {
            let half = |at: usize| _mm512_cvtepi8_epi32(_mm_loadu_si128(block[at..].as_ptr().cast()));
            (splat_f16(block.as_ptr()), half(2), half(18))
        };
        let weights = [a, b].map(|q| _mm512_mul_ps(_mm512_cvtepi32_ps(q), d));
        place.put(step, round(weights[0], weights[1]));
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
unsafe fn groups_of_32<F: GroupsOf32>(blocks: &[u8], mut place: Place<'_>) {
    for (i, blocks) in blocks.chunks(4 * F::BYTES).enumerate() {
        let mut copy = [0; 4 * 34];
        let n_blocks = blocks.len() / F::BYTES;
        let p = if n_blocks == 4 {
            blocks.as_ptr()
        } else {
            copy[..blocks.len()].copy_from_slice(blocks);
            copy.as_ptr()
        };
        // SAFETY: four blocks, or a copy as large.
        let FourBlocks { first, second, d, c } = unsafe { F::unpack(p) };
        let (mut ds, mut cs) = ([0f32; 4], [0f32; 4]);
        // SAFETY: four floats each.
        unsafe {
            _mm_storeu_ps(ds.as_mut_ptr(), d);
            _mm_storeu_ps(cs.as_mut_ptr(), c);
        }
        let lanes = |x| {
            let lane = |x| _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(x));
            [
                lane(_mm512_castsi512_si128(x)),
                lane(_mm512_extracti32x4_epi32::<1>(x)),
                lane(_mm512_extracti32x4_epi32::<2>(x)),
                lane(_mm512_extracti32x4_epi32::<3>(x)),
            ]
        };
        let (first, second) = (lanes(first), lanes(second));
        for b in 0..n_blocks {
            let (d, c) = (_mm512_set1_ps(ds[b]), _mm512_set1_ps(cs[b]));
            place.put(i * 4 + b, round(_mm512_fmadd_ps(first[b], d, c), _mm512_fmadd_ps(second[b], d, c)));
        }
    }
}

/// A group has few levels, all of which are computed once; the quants pick from them.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
unsafe fn q5_k(blocks: &[u8], mut place: Place<'_>) {
    let low_levels = _mm512_setr_ps(0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.);
    let high_levels = _mm512_add_ps(low_levels, _mm512_set1_ps(16.0));
    for (i, block) in blocks.as_chunks::<176>().0.iter().enumerate() {
        let p = block.as_ptr();
        // SAFETY: a whole block.
        let (scales, mins) = unsafe { scales_and_mins(p) };
        for z in 0..4 {
            // SAFETY: a whole block, and `z` is below 4.
            let quants = unsafe { Q5K::in_order(p, z) };
            let halves = [_mm512_castsi512_si256(quants), _mm512_extracti64x4_epi64::<1>(quants)];
            for (half, quants) in halves.into_iter().enumerate() {
                let group = 2 * z + half;
                let (scale, min) = (_mm512_set1_ps(scales[group]), _mm512_set1_ps(mins[group]));
                let low = _mm512_fmsub_ps(low_levels, scale, min);
                let high = _mm512_fmsub_ps(high_levels, scale, min);
                let levels = round(low, high);
                place.put(i * 8 + group, _mm512_permutexvar_epi16(_mm512_cvtepu8_epi16(quants), levels));
            }
        }
    }
}

/// As above; with sixteen levels, a table holds those of two groups, whose quants are the nibbles of the same bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
unsafe fn q4_k(blocks: &[u8], mut place: Place<'_>) {
    let levels = _mm512_setr_ps(0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.);
    for (i, block) in blocks.as_chunks::<144>().0.iter().enumerate() {
        // SAFETY: a whole block.
        let (scales, mins) = unsafe { scales_and_mins(block.as_ptr()) };
        for z in 0..4 {
            let level = |group: usize| _mm512_fmsub_ps(levels, _mm512_set1_ps(scales[group]), _mm512_set1_ps(mins[group]));
            let levels = round(level(2 * z), level(2 * z + 1));
            // SAFETY: bytes 16 + 32 z .. 48 + 32 z of a block of 144.
            let bytes = unsafe { _mm512_cvtepu8_epi16(_mm256_loadu_si256(block.as_ptr().add(16 + 32 * z).cast())) };
            let low = _mm512_and_si512(bytes, _mm512_set1_epi16(15));
            let high = _mm512_or_si512(_mm512_srli_epi16::<4>(bytes), _mm512_set1_epi16(16));
            place.put(i * 8 + 2 * z, _mm512_permutexvar_epi16(low, levels));
            place.put(i * 8 + 2 * z + 1, _mm512_permutexvar_epi16(high, levels));
        }
    }
}

/// The eight scales times `d`, and the eight minima times `dmin`, of the block of Q4_K or Q5_K at `block`.
///
/// # Safety
/// Its first 16 bytes are readable.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
#[inline]
unsafe fn scales_and_mins(block: *const u8) -> ([f32; 8], [f32; 8]) {
    const Z: i8 = -1;
    // SAFETY: the caller's promise.
    let header = unsafe { _mm_loadu_si128(block.cast()) };
    let pick = |bytes| _mm_shuffle_epi8(header, bytes);
    let low_bits = _mm_setr_epi8(63, 63, 63, 63, 15, 15, 15, 15, 63, 63, 63, 63, 15, 15, 15, 15);
    // Bytes 0..8 become the scales, 8..16 the minima; the low bits of the last four minima are high nibbles.
    let low = pick(_mm_setr_epi8(4, 5, 6, 7, 12, 13, 14, 15, 8, 9, 10, 11, Z, Z, Z, Z));
    let nibbles = _mm_and_si128(_mm_srli_epi16::<4>(header), _mm_setr_epi32(0, 0, 0, 0x0f0f_0f0f));
    let high = pick(_mm_setr_epi8(Z, Z, Z, Z, 4, 5, 6, 7, Z, Z, Z, Z, 8, 9, 10, 11));
    let high = _mm_and_si128(_mm_srli_epi16::<2>(high), _mm_set1_epi8(0x30));
    let all = _mm_or_si128(_mm_or_si128(_mm_and_si128(low, low_bits), nibbles), high);
    // d in the first eight lanes, dmin in the others.
    let d = _mm_shuffle_epi8(header, _mm_setr_epi8(0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1));
    let dmin = _mm_shuffle_epi8(header, _mm_setr_epi8(2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3));
    let d = _mm512_cvtph_ps(_mm256_set_m128i(dmin, d));
    let product = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(all)), d);
    let mut both = [[0f32; 8]; 2];
    // SAFETY: sixteen floats.
    unsafe { _mm512_storeu_ps(both.as_mut_ptr().cast(), product) };
    let [scales, mins] = both;
    (scales, mins)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
unsafe fn groups_of_16<F: GroupsOf16>(blocks: &[u8], mut place: Place<'_>) {
    for (i, block) in blocks.chunks_exact(F::BYTES).enumerate() {
        let p = block.as_ptr();
        let (mut scales, mut offsets) = ([0f32; 16], [0f32; 16]);
        // SAFETY: a whole block; sixteen floats each.
        unsafe {
            let float = |words| _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(words));
            let scale = _mm512_mul_ps(float(F::scales(p)), splat_f16(p.add(F::D)));
            let offset = match F::mins(p) {
                Some((mins, at)) => _mm512_mul_ps(float(mins), splat_f16(p.add(at))),
                None => _mm512_mul_ps(scale, _mm512_set1_ps(F::OFFSET)),
            };
            _mm512_storeu_ps(scales.as_mut_ptr(), scale);
            _mm512_storeu_ps(offsets.as_mut_ptr(), offset);
        }
        for z in 0..4 {
            // SAFETY: a whole block, and `z` is below 4.
            let quants = unsafe { F::quants(p, z) };
            let group = |x, at: usize| {
                let (scale, offset) = (_mm512_set1_ps(scales[at]), _mm512_set1_ps(offsets[at]));
                _mm512_fmsub_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(x)), scale, offset)
            };
            let weights = [
                group(_mm512_castsi512_si128(quants), 4 * z),
                group(_mm512_extracti32x4_epi32::<1>(quants), 4 * z + 1),
                group(_mm512_extracti32x4_epi32::<2>(quants), 4 * z + 2),
                group(_mm512_extracti32x4_epi32::<3>(quants), 4 * z + 3),
            ];
            place.put(i * 8 + 2 * z, round(weights[0], weights[1]));
            place.put(i * 8 + 2 * z + 1, round(weights[2], weights[3]));
        }
    }
}
