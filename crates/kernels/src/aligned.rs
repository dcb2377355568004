//! Heap buffers aligned to 128 bytes (two cache lines, since lines are prefetched in pairs), so that vectors load whole lines
//! and two threads never write to one pair. Zeroed by the system: pages that are never touched cost nothing.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;

const ALIGN: usize = 128;

/// Numbers for which all bytes zero is a value, and which need no drop.
///
/// # Safety
/// Implement only for such types, of alignment at most 128.
pub(crate) unsafe trait Number: Copy {}
// SAFETY: plain numbers.
unsafe impl Number for f32 {}
// SAFETY: as above.
unsafe impl Number for i8 {}
// SAFETY: as above.
unsafe impl Number for i16 {}
// SAFETY: as above.
unsafe impl Number for i32 {}
// SAFETY: as above.
unsafe impl Number for u16 {}

/// A slice on the heap that starts on a 128-byte boundary.
pub(crate) struct Aligned<T: Number> {
    ptr: NonNull<T>,
    len: usize,
    /// What was allocated; `ptr` is the first boundary in it.
    allocation: NonNull<u8>,
}

impl<T: Number> Aligned<T> {
    /// `len` zeros. Panics if the size overflows, as `Vec` does.
    pub(crate) fn zeroed(len: usize) -> Self {
        if len == 0 {
            return Self { ptr: NonNull::dangling(), len, allocation: NonNull::dangling() };
        }
        let layout = Self::layout(len);
        // SAFETY: the layout is not empty: it is at least ALIGN bytes.
        let Some(allocation) = NonNull::new(unsafe { alloc_zeroed(layout) }) else { handle_alloc_error(layout) };
        let offset = allocation.align_offset(ALIGN);
        // SAFETY: the allocation is ALIGN bytes longer than the values, and the offset is below ALIGN.
        let ptr = unsafe { allocation.add(offset) }.cast();
        Self { ptr, len, allocation }
    }

    /// The first `len` values, whatever they are; a buffer that is too small is replaced.
    pub(crate) fn at_least(&mut self, len: usize) -> &mut [T] {
        if self.len < len {
            *self = Self::zeroed(len);
        }
        &mut self[..len]
    }

    /// Part of the buffer, for writers that share it. Panics if `range` is not within it.
    ///
    /// # Safety
    /// While the slice is used, nobody else reads or writes these values.
    #[allow(clippy::mut_from_ref, reason = "that is its purpose; the caller answers for it")]
    pub(crate) unsafe fn shared_mut(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: within the buffer, whose values are never uninitialized; the pointer comes from the allocation itself, not
        // from a borrow of it, and the caller answers for other readers and writers.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr().add(range.start), range.len()) }
    }

    /// With room to align by hand: asked for more than its natural alignment, the system's allocator writes the zeros itself,
    /// which makes every page resident.
    fn layout(len: usize) -> Layout {
        Layout::array::<T>(len)
            .and_then(|layout| Layout::from_size_align(layout.size() + ALIGN, layout.align()))
            .expect("a buffer's size fits in an isize")
    }
}

impl<T: Number> Default for Aligned<T> {
    fn default() -> Self {
        Self::zeroed(0)
    }
}

impl<T: Number> Drop for Aligned<T> {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: allocated in `zeroed` with this very layout, and not freed before.
            unsafe { dealloc(self.allocation.as_ptr(), Self::layout(self.len)) };
        }
    }
}

impl<T: Number> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `ptr` is aligned and points to `len` values, zeroed at first, for which zero is a value (`Number`);
        // they are borrowed as this buffer is.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl<T: Number> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and this buffer is borrowed mutably, so nobody else reads or writes it.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

// SAFETY: the buffer owns its memory alone, and plain numbers may be moved to and read from any thread.
unsafe impl<T: Number + Send> Send for Aligned<T> {}
// SAFETY: as above; a shared borrow only reads.
unsafe impl<T: Number + Sync> Sync for Aligned<T> {}
