//! Bytes that outlive every view of them: a file mapped read-only, or a buffer in memory.
//! The only `unsafe` outside the kernels. Does not know any file format.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::sync::Arc;

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
    pub(super) fn map(file: &File, len: usize) -> io::Result<Self> {
        // SAFETY: `Mmap` needs the mapped bytes not to change while they are borrowed. The
        // mapping is private to this process and read-only, so no code here can write to it.
        // Another process could still change the file: the views are plain bytes with no
        // validity rules of their own, every index into them is checked against the mapped
        // length, and the numbers that were checked are copied out when the header is parsed.
        // A torn read therefore yields wrong values, and never an access outside the mapping.
        #[allow(unsafe_code)]
        let map = unsafe { memmap2::MmapOptions::new().len(len).map(file)? };
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
