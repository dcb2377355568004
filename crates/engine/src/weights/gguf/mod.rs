//! GGUF, versions 2 and 3: keys, tensor table and tensor bytes of one file or of all parts of a
//! split one. Strict: whatever a file says is checked against its length and the limits before it
//! is used, so what comes out of here can be indexed without further checks.
//! Does not own what keys and tensors mean to a model.

mod error;
mod ggml_type;
mod metadata;
mod parse;
mod source;
mod split;
mod tensor;
mod value_type;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

pub use error::{GgufError, GgufErrorClass};
pub use ggml_type::GgmlType;
pub use metadata::{Metadata, NumberArray, PerLayer, StringArray};
pub use parse::limits;
pub use tensor::TensorInfo;
pub use value_type::{ValueKind, ValueType};

use super::Bytes;
pub(crate) use error::shown;
use parse::{FileHeader, Stop};
pub(crate) use source::open_regular;

/// Everything of a GGUF file, or of all parts of a split one, but the tensors' bytes.
#[derive(Debug, Clone)]
pub struct Header {
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    by_name: Vec<u32>,
    shards: Vec<Shard>,
}

/// One file of a model.
#[derive(Debug, Clone)]
pub struct Shard {
    /// Where it was read from; for bytes in memory the name they were given.
    pub path: PathBuf,
    /// Length of the file.
    pub len_bytes: u64,
    /// GGUF version, 2 or 3.
    pub version: u32,
    /// What tensors are aligned to, in bytes.
    pub alignment: u64,
    /// Where the tensor data starts.
    pub data_start: u64,
}

/// One file and its tensors; its keys are no longer needed.
struct Part {
    shard: Shard,
    tensors: Vec<TensorInfo>,
}

impl FileHeader {
    fn into_part(self, path: PathBuf, len_bytes: u64) -> (Metadata, Part) {
        let Self { version, alignment, data_start, metadata, tensors } = self;
        (metadata, Part { shard: Shard { path, len_bytes, version, alignment, data_start }, tensors })
    }
}

impl Shard {
    /// The error that says that the file now has another length.
    pub(crate) fn changed(&self, len: u64) -> GgufError {
        let file = self.path.display().to_string();
        if len < self.len_bytes {
            return GgufError::Truncated { file, place: "what its header says".to_owned(), expected: self.len_bytes, found: len };
        }
        let (found, expected) = (format!("{len} bytes"), format!("{} as when it was opened", self.len_bytes));
        GgufError::Corrupt { file, place: "the length of the file".to_owned(), found, expected }
    }

    /// The error that says that the system could not read the file.
    pub(crate) fn unreadable(&self, source: std::io::Error) -> GgufError {
        unreadable(&self.path.display().to_string(), source)
    }

    /// Why its mapped bytes could not be read: because they are gone, or for another reason.
    fn failed(&self, source: std::io::Error) -> GgufError {
        match std::fs::metadata(&self.path) {
            Ok(now) if now.len() < self.len_bytes => self.changed(now.len()),
            _ => self.unreadable(source),
        }
    }
}

/// A GGUF file with its tensors' bytes.
#[derive(Debug, Clone)]
pub struct Gguf {
    header: Header,
    /// The bytes of each shard.
    bytes: Vec<Bytes>,
}

impl Gguf {
    /// Maps the file at `path`, which may be the first part of a split one; then all parts.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let mut bytes = Vec::new();
        let header = split::read_all(path, |path, name| {
            let (file, len) = open_regular(path)?;
            let mapped = map(&file, len, name)?;
            let header = whole(parse::parse(&mapped, name, len))?;
            bytes.push(mapped);
            Ok((header, len))
        })?;
        Ok(Self { header, bytes })
    }

    /// One file that is in memory; `name` stands for its path in errors.
    pub fn parse(bytes: Bytes, name: &str) -> Result<Self, GgufError> {
        let len = bytes.len() as u64;
        let parsed = whole(parse::parse(&bytes, name, len))?;
        let (metadata, part) = parsed.into_part(PathBuf::from(name), len);
        let header = Header::join(name, metadata, vec![part])?;
        Ok(Self { header, bytes: vec![bytes] })
    }

    /// The header alone, read into memory and never mapped: a process that reads it survives a
    /// file that is cut meanwhile. At most `limit` bytes of each part are read.
    pub fn read_header(path: &Path, limit: u64) -> Result<Header, GgufError> {
        split::read_all(path, |path, name| {
            let (mut file, len) = open_regular(path)?;
            Ok((read_prefix(&mut file, len, limit, name)?, len))
        })
    }

    /// The keys, tensor table and files.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The keys; those of the first part of a split file.
    pub fn metadata(&self) -> &Metadata {
        &self.header.metadata
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.header.tensor(name)
    }

    /// The tensor of this name, or an error that names it.
    pub fn require(&self, name: &str) -> Result<&TensorInfo, GgufError> {
        self.header.require(name)
    }

    /// All tensors in the order of the file.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &TensorInfo> {
        self.header.tensors()
    }

    /// The bytes of a tensor of this file. An error where its type is unknown.
    pub fn data(&self, tensor: &TensorInfo) -> Result<&[u8], GgufError> {
        let range = self.range(tensor)?;
        let bytes = self.bytes.get(tensor.shard).and_then(|bytes| bytes.get(range));
        bytes.ok_or_else(|| self.header.missing_tensor(&tensor.name))
    }

    /// The bytes of a tensor of this file, as a view that keeps the mapping alive.
    pub fn tensor_bytes(&self, tensor: &TensorInfo) -> Result<Bytes, GgufError> {
        let range = self.range(tensor)?;
        let bytes = self.bytes.get(tensor.shard).and_then(|bytes| bytes.slice(range));
        bytes.ok_or_else(|| self.header.missing_tensor(&tensor.name))
    }

    /// Brings the tensors of all parts into memory on up to `n_threads` threads, so that the first
    /// token does not wait for the disk. `progress` is told, from any of them, how many bytes are
    /// there; when it breaks, this ends early and breaks too.
    ///
    /// # Errors
    /// The file was cut or cannot be read, where the system can tell (Linux since 5.14); elsewhere
    /// that is SIGBUS.
    pub fn populate(&self, n_threads: usize, progress: &(dyn Fn(u64) -> ControlFlow<()> + Sync)) -> Result<ControlFlow<()>, GgufError> {
        let done = AtomicU64::new(0);
        let step = |bytes: usize| progress(done.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64);
        for (shard, bytes) in self.header.shards.iter().zip(&self.bytes) {
            match bytes.populate(n_threads, &step) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(stopped) => return Ok(stopped),
                Err(source) => return Err(shard.failed(source)),
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn range(&self, tensor: &TensorInfo) -> Result<Range<usize>, GgufError> {
        let Some(size) = tensor.size_bytes else {
            return Err(self.header.unsupported_type(tensor));
        };
        // Inside the shard, which is in memory: both ends fit a usize.
        Ok(tensor.start as usize..(tensor.start + size) as usize)
    }
}

impl Header {
    /// The header of all parts in order; `name` stands for the first one in errors.
    fn join(name: &str, metadata: Metadata, parts: Vec<Part>) -> Result<Self, GgufError> {
        let mut tensors = Vec::new();
        let mut shards = Vec::new();
        for part in parts {
            let shard = shards.len();
            tensors.extend(part.tensors.into_iter().map(|t| TensorInfo { shard, ..t }));
            shards.push(part.shard);
        }
        let mut by_name: Vec<u32> = (0..tensors.len() as u32).collect();
        by_name.sort_unstable_by_key(|&i| &tensors[i as usize].name);
        for pair in by_name.windows(2) {
            let tensor = &tensors[pair[0] as usize];
            if tensor.name == tensors[pair[1] as usize].name {
                return Err(GgufError::Corrupt {
                    file: name.to_owned(),
                    place: format!("tensor {}", shown(&tensor.name)),
                    found: "the name twice".to_owned(),
                    expected: "every name once".to_owned(),
                });
            }
        }
        Ok(Self { metadata, tensors, by_name, shards })
    }

    /// The keys; those of the first part of a split file.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The files, in order; one unless the file is split.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        let at = self.by_name.binary_search_by(|&i| (*self.tensors[i as usize].name).cmp(name)).ok()?;
        Some(&self.tensors[self.by_name[at] as usize])
    }

    /// The tensor of this name, or an error that names it.
    pub fn require(&self, name: &str) -> Result<&TensorInfo, GgufError> {
        self.tensor(name).ok_or_else(|| self.missing_tensor(name))
    }

    /// All tensors in the order of the file.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &TensorInfo> {
        self.tensors.iter()
    }

    /// The error that says that the type of `tensor` cannot be used.
    pub fn unsupported_type(&self, tensor: &TensorInfo) -> GgufError {
        let found = match tensor.layout() {
            Some(known) => known.name.to_owned(),
            None => ggml_type::unknown_type_name(tensor.ggml_type),
        };
        let (file, tensor) = (self.file_of(tensor), shown(&tensor.name));
        GgufError::UnsupportedType { file, tensor, found }
    }

    fn missing_tensor(&self, name: &str) -> GgufError {
        let file = self.shards[0].path.display().to_string();
        GgufError::MissingTensor { file, tensor: shown(name) }
    }

    fn file_of(&self, tensor: &TensorInfo) -> String {
        let shard = self.shards.get(tensor.shard).unwrap_or(&self.shards[0]);
        shard.path.display().to_string()
    }
}

fn unreadable(file: &str, source: std::io::Error) -> GgufError {
    GgufError::Unreadable { file: file.to_owned(), source }
}

/// All `len` bytes of a file; an empty file cannot be mapped and stays an empty buffer.
fn map(file: &File, len: u64, name: &str) -> Result<Bytes, GgufError> {
    if len == 0 {
        return Ok(Bytes::buffer(Vec::new()));
    }
    let too_large = |_| unreadable(name, std::io::ErrorKind::FileTooLarge.into());
    let len = usize::try_from(len).map_err(too_large)?;
    Bytes::map(file, len).map_err(|source| unreadable(name, source))
}

/// A prefix that reaches the end of the file is never too short; the rest is told apart here.
fn whole(parsed: Result<FileHeader, Stop>) -> Result<FileHeader, GgufError> {
    parsed.map_err(|stop| match stop {
        Stop::Failed(error) => error,
        Stop::Need(_) => unreachable!("the whole file was there"),
    })
}

/// Reads as much of the start of `file`, `len` bytes long, as its header needs.
fn read_prefix(file: &mut impl Read, len: u64, limit: u64, name: &str) -> Result<FileHeader, GgufError> {
    const FIRST_READ_BYTES: u64 = 256 << 10;
    const GROWTH: u64 = 4;
    let mut buffer = Vec::new();
    let mut wanted = FIRST_READ_BYTES.min(len).min(limit);
    loop {
        let more = wanted - buffer.len() as u64;
        let read = file.take(more).read_to_end(&mut buffer);
        read.map_err(|source| unreadable(name, source))?;
        if (buffer.len() as u64) < wanted {
            return Err(GgufError::Truncated {
                file: name.to_owned(),
                place: "the header".to_owned(),
                expected: wanted,
                found: buffer.len() as u64,
            });
        }
        let prefix = Bytes::buffer(buffer);
        let needed = match parse::parse(&prefix, name, len) {
            Ok(header) => return Ok(header),
            Err(Stop::Failed(error)) => return Err(error),
            Err(Stop::Need(needed)) => needed,
        };
        if needed > limit {
            return Err(GgufError::Corrupt {
                file: name.to_owned(),
                place: "the header".to_owned(),
                found: format!("at least {needed} bytes before the tensor data"),
                expected: format!("at most {limit}"),
            });
        }
        wanted = needed.max(wanted.saturating_mul(GROWTH)).min(len).min(limit);
        buffer = prefix.into_buffer();
    }
}
