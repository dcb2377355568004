//! Scratch of f32 on cache lines of its own. Owns alignment only; planned once, so it never grows.

#![allow(unsafe_code)]

#[repr(C, align(128))]
#[derive(Clone, Copy)]
struct Line([f32; 32]);

/// A fixed number of f32, 128-byte aligned and padded, zero at first.
pub(crate) struct AlignedF32(Box<[Line]>);

impl AlignedF32 {
    /// At least `len` zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        Self(vec![Line([0.0; 32]); len.div_ceil(32)].into_boxed_slice())
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: `Line` is repr(C) with one field of 128 bytes, its alignment, so n lines are 32 n f32 without padding.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len() * 32) }
    }
}
