//! Heap buffers aligned to 128 bytes (two cache lines, since lines are prefetched in pairs), so that vectors load whole lines
//! and two threads never write to one pair. Zeroed by the system: pages that are never touched cost nothing.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
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
unsafe impl Number for u16 {}

/// A slice on the heap that starts on a 128-byte boundary.
pub(crate) struct Aligned<T: Number> {
    ptr: NonNull<T>,
    len: usize,
}

impl<T: Number> Aligned<T> {
    /// `len` zeros. Panics if the size overflows, as `Vec` does.
    pub(crate) fn zeroed(len: usize) -> Self {
        if len == 0 {
            return Self { ptr: NonNull::dangling(), len };
        }
        let layout = Self::layout(len);
        // SAFETY: the layout is not empty: `len` is not zero, and the implementors of `Number` are not empty types.
        let ptr = unsafe { alloc_zeroed(layout) };
        match NonNull::new(ptr.cast()) {
            Some(ptr) => Self { ptr, len },
            None => handle_alloc_error(layout),
        }
    }

    fn layout(len: usize) -> Layout {
        Layout::array::<T>(len).and_then(|layout| layout.align_to(ALIGN)).expect("a buffer's size fits in an isize")
    }
}

impl<T: Number> Drop for Aligned<T> {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: allocated in `zeroed` with this very layout, and not freed before.
            unsafe { dealloc(self.ptr.as_ptr().cast(), Self::layout(self.len)) };
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
