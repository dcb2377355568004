//! Bytes that outlive every view of them: a file mapped read-only, or a buffer in memory.
//! The only `unsafe` outside the kernels. Does not know any file format.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::{ControlFlow, Deref, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use memmap2::{Mmap, MmapMut};

/// A shared, immutable view of a mapping or a buffer. Cloning and slicing copy nothing; the
/// mapping is removed when the last view of it is dropped.
#[derive(Clone)]
pub struct Bytes {
    owner: Arc<Owner>,
    range: Range<usize>,
}

enum Owner {
    Mapped(Mmap),
    Buffer(Vec<u8>),
}

impl Owner {
    fn bytes(&self) -> &[u8] {
        match self {
            Owner::Mapped(map) => map,
            Owner::Buffer(buffer) => buffer,
        }
    }
}

impl Bytes {
    /// Maps the first `len` bytes of `file`, read-only.
    ///
    /// On Unix a file that is cut while it is mapped raises SIGBUS at the next access beyond its
    /// new end, so a process that must survive this reads into a buffer instead.
    ///
    /// On Linux what is not in memory yet is read in large pages, where the file system has them (ext4 since 6.16, XFS before): one
    /// step of decode looks up each page once, which takes a tenth of its time where they are small.
    pub(super) fn map(file: &File, len: usize) -> io::Result<Self> {
        // SAFETY: `Mmap` needs the mapped bytes not to change while they are borrowed. The
        // mapping is private to this process and read-only, so no code here can write to it.
        // Another process could still change the file: the views are plain bytes with no
        // validity rules of their own, every index into them is checked against the mapped
        // length, and lengths and text are copied out of it before they are checked.
        // A torn read therefore yields wrong values, and never an access outside the mapping.
        #[allow(unsafe_code)]
        let map = unsafe { memmap2::MmapOptions::new().len(len).map(file)? };
        // A system without large pages says so; small ones do as well.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self::whole(Owner::Mapped(map)))
    }

    /// A buffer as it is; its alignment is whatever the allocator gave it.
    pub(super) fn buffer(buffer: Vec<u8>) -> Self {
        Self::whole(Owner::Buffer(buffer))
    }

    /// The buffer again, without a copy where this is the only view of it.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        match Arc::try_unwrap(self.owner) {
            Ok(Owner::Buffer(buffer)) => buffer,
            Ok(owner) => owner.bytes()[self.range].to_vec(),
            Err(owner) => owner.bytes()[self.range].to_vec(),
        }
    }

    /// Brings all of these bytes into memory on up to `n_threads` threads, so that later reads do not
    /// wait for the disk. `step` is told, from any of them, how many more bytes are there; when it
    /// breaks, no further step is begun.
    ///
    /// # Errors
    /// Where the system says so instead of raising SIGBUS (Linux since 5.14): the file was cut, or
    /// could not be read.
    pub(super) fn populate(&self, n_threads: usize, step: &(dyn Fn(usize) -> ControlFlow<()> + Sync)) -> io::Result<ControlFlow<()>> {
        let steps = Steps { bytes: self, next: AtomicUsize::new(0), stopped: AtomicBool::new(false), step };
        thread::scope(|scope| {
            let n_steps = self.len().div_ceil(STEP_BYTES);
            let others: Vec<_> = (1..n_threads.min(n_steps))
                // Without another thread this one does it all.
                .map_while(|_| thread::Builder::new().spawn_scoped(scope, || steps.run()).ok())
                .collect();
            let mut result = steps.run();
            for other in others {
                let ended = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                result = result.and(ended);
            }
            result?;
            let stopped = steps.stopped.load(Ordering::Relaxed);
            Ok(if stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
    }

    /// Makes the pages of `range` present.
    fn touch(&self, range: Range<usize>) -> io::Result<()> {
        let Owner::Mapped(map) = &*self.owner else { return Ok(()) };
        #[cfg(target_os = "linux")]
        {
            const EINVAL: i32 = 22;
            match map.advise_range(memmap2::Advice::PopulateRead, self.range.start + range.start, range.len()) {
                // Kernels before 5.14 do not know this advice.
                Err(error) if error.raw_os_error() == Some(EINVAL) => {}
                done => return done,
            }
        }
        #[cfg(unix)]
        map.advise_range(memmap2::Advice::WillNeed, self.range.start + range.start, range.len())?;
        #[cfg(not(unix))]
        let _ = map;
        for page in self[range].chunks(SMALLEST_PAGE_BYTES) {
            std::hint::black_box(page[0]);
        }
        Ok(())
    }

    fn whole(owner: Owner) -> Self {
        let range = 0..owner.bytes().len();
        Self { owner: Arc::new(owner), range }
    }

    /// A view of part of these bytes, or `None` where `range` is not inside them.
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        self.get(range.clone())?;
        let start = self.range.start + range.start;
        Some(Self { owner: self.owner.clone(), range: start..start + range.len() })
    }
}

/// How often `populate` reports.
const STEP_BYTES: usize = 16 << 20;
const SMALLEST_PAGE_BYTES: usize = 4096;

/// The work of `populate`, shared by its threads.
struct Steps<'a> {
    bytes: &'a Bytes,
    next: AtomicUsize,
    stopped: AtomicBool,
    step: &'a (dyn Fn(usize) -> ControlFlow<()> + Sync),
}

impl Steps<'_> {
    /// Takes one step after the other until none is left or one of the threads has stopped.
    fn run(&self) -> io::Result<()> {
        while !self.stopped.load(Ordering::Relaxed) {
            let start = self.next.fetch_add(STEP_BYTES, Ordering::Relaxed);
            if start >= self.bytes.len() {
                break;
            }
            let end = self.bytes.len().min(start + STEP_BYTES);
            let touched = self.bytes.touch(start..end);
            if touched.is_err() || (self.step)(end - start).is_break() {
                self.stopped.store(true, Ordering::Relaxed);
            }
            touched?;
        }
        Ok(())
    }
}

impl From<Vec<u8>> for Bytes {
    /// The bytes of `buffer` at the start of a page, as the bytes of a mapped file are, so that
    /// aligned reads of tensors hold for both.
    fn from(buffer: Vec<u8>) -> Self {
        if buffer.is_empty() {
            return Self::buffer(buffer);
        }
        let aligned = MmapMut::map_anon(buffer.len()).and_then(|mut map| {
            map.copy_from_slice(&buffer);
            map.make_read_only()
        });
        match aligned {
            Ok(map) => Self::whole(Owner::Mapped(map)),
            Err(_) => Self::buffer(buffer),
        }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.owner.bytes()[self.range.clone()]
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({} bytes)", self.len())
    }
}
