//! Q6_K, Q3_K and Q2_K: blocks of 256 with a scale per 16.

use std::arch::x86_64::*;

/// What differs between the formats.
pub(in crate::arch) trait GroupsOf16 {
    /// Of a block.
    const BYTES: usize;
    /// Where its `d` (f16) is.
    const D: usize;
    /// What is too much in the unsigned quants, for formats without minima.
    const OFFSET: f32;

    /// Quants `64 z` .. `64 z + 64` of a block, in order, with an offset that makes them unsigned.
    ///
    /// # Safety
    /// A block at `block` is readable, `z` is below 4, and the machine has the features of this module.
    unsafe fn quants(block: *const u8, z: usize) -> __m512i;

    /// The sixteen scales as i16.
    ///
    /// # Safety
    /// As for `quants`.
    unsafe fn scales(block: *const u8) -> __m256i;

    /// The sixteen minima as i16 and the place of their `dmin` (f16), for formats that have them.
    ///
    /// # Safety
    /// As for `quants`.
    unsafe fn mins(block: *const u8) -> Option<(__m256i, usize)>;
}
