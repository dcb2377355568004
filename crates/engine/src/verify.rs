//! Reads all of a GGUF file and says what is wrong with it: structure and limits through the
//! reader, then a hash and a search for numbers that are not finite, in one pass over the bytes.
//! Works on buffers and never maps. Does not own tokenizers, templates or how a report is shown.

mod non_finite;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, SyncSender};
use std::thread;

use sha2::{Digest, Sha256};

use crate::weights::gguf::{Gguf, GgufError, Header, Shard, TensorInfo, ValueKind, ValueType, limits, open_regular, shown};
use non_finite::Scan;

/// Bytes read at once, and about the bytes of a progress step.
const CHUNK_BYTES: u64 = 4 << 20;
/// Chunks that may wait to be hashed.
const WAITING_CHUNKS: usize = 4;

/// What is known of a file after all of it was read.
#[derive(Debug)]
pub struct Report {
    /// Keys, tensor table and files.
    pub header: Header,
    /// SHA-256 of each file, in the order of `header.shards()`. Model hubs publish the same hash.
    pub sha256: Vec<[u8; 32]>,
    /// The tensor types, by id.
    pub types: Vec<TypeUse>,
    /// What is wrong with it, although it could be read. Empty: nothing.
    pub findings: Vec<Finding>,
}

/// How much of a file has one tensor type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeUse {
    /// ggml's type id.
    pub ggml_type: u32,
    /// ggml's name, or `None` for an unknown id.
    pub name: Option<&'static str>,
    /// Number of tensors.
    pub n_tensors: u64,
    /// Number of elements of all of them.
    pub n_elements: u64,
    /// Bytes of all of them; zero for an unknown type.
    pub size_bytes: u64,
}

/// Something wrong with a file that could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A string that is not UTF-8.
    NotUtf8 {
        /// Its key.
        key: String,
    },
    /// A number that is NaN or infinite, as a key's value or in its list.
    NonFiniteKey {
        /// Its key.
        key: String,
        /// Where in the list; 0 for a single number.
        index: usize,
    },
    /// A tensor whose type is unknown, so that nothing in it could be checked.
    UnknownType {
        /// Its name.
        tensor: String,
        /// Its type id.
        ggml_type: u32,
    },
    /// Numbers, or scales of blocks, that are NaN or infinite.
    NonFinite {
        /// The tensor's name.
        tensor: String,
        /// The first block with such a number, from 0; an element where the type has no blocks.
        first_block: u64,
        /// How many blocks have one.
        n_blocks: u64,
        /// What the first one is: "scale `d` is NaN".
        what: String,
    },
    /// Bytes that belong to no tensor.
    UnusedBytes {
        /// The file.
        file: PathBuf,
        /// How many.
        n_bytes: u64,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8 { key } => write!(f, "key {}: the string is not UTF-8", shown(key)),
            Self::NonFiniteKey { key, index } => write!(f, "key {}: number {index} is not finite", shown(key)),
            Self::UnknownType { tensor, ggml_type } => {
                write!(f, "tensor {}: type {ggml_type} is unknown, its data was not checked", shown(tensor))
            }
            Self::NonFinite { tensor, first_block, n_blocks, what } => {
                write!(f, "tensor {}: {what} in block {first_block}, {n_blocks} such blocks", shown(tensor))
            }
            Self::UnusedBytes { file, n_bytes } => write!(f, "{}: {n_bytes} bytes belong to no tensor", file.display()),
        }
    }
}

/// Reads all of the file at `path`, and its other parts if it is split. `progress` is told how many
/// bytes were read and how many there are; when it breaks, the result is `None`.
///
/// # Errors
/// Whatever keeps the file from being used at all: see [`GgufError::class`].
pub fn verify(path: &Path, mut progress: impl FnMut(u64, u64) -> ControlFlow<()>) -> Result<Option<Report>, GgufError> {
    let header = Gguf::read_header(path, limits::HEADER_BYTES)?;
    let mut findings = key_findings(&header);
    let types = types(&header);
    let total = header.shards().iter().fold(0u64, |sum, shard| sum.saturating_add(shard.len_bytes));
    let mut sha256 = Vec::new();
    let mut before = 0u64;
    for (i, shard) in header.shards().iter().enumerate() {
        let mut tensors: Vec<&TensorInfo> = header.tensors().filter(|t| t.shard() == i).collect();
        tensors.sort_unstable_by_key(|t| t.start());
        let hash = hash_and_scan(shard, &tensors, &mut findings, |done| progress(before.saturating_add(done), total))?;
        let Some(hash) = hash else { return Ok(None) };
        sha256.push(hash);
        before = before.saturating_add(shard.len_bytes);
    }
    Ok(Some(Report { header, sha256, types, findings }))
}

fn key_findings(header: &Header) -> Vec<Finding> {
    let metadata = header.metadata();
    let text = metadata.keys().filter(|key| metadata.kind(key) == Some(ValueKind::One(ValueType::String)));
    let not_utf8 = text.filter(|key| metadata.string(key).is_err()).map(|key| Finding::NotUtf8 { key: key.to_owned() });
    let non_finite = metadata.keys().filter_map(|key| {
        let single = metadata.float(key).ok().flatten().filter(|number| !number.is_finite()).map(|_| 0);
        let listed = || metadata.floats(key).ok().flatten()?.iter().position(|number| !number.is_finite());
        Some(Finding::NonFiniteKey { key: key.to_owned(), index: single.or_else(listed)? })
    });
    not_utf8.chain(non_finite).collect()
}

fn types(header: &Header) -> Vec<TypeUse> {
    let mut types = BTreeMap::new();
    for tensor in header.tensors() {
        let ggml_type = tensor.ggml_type;
        let ty = types.entry(ggml_type).or_insert_with(|| {
            let name = tensor.layout().map(|layout| layout.name);
            TypeUse { ggml_type, name, n_tensors: 0, n_elements: 0, size_bytes: 0 }
        });
        ty.n_tensors += 1;
        ty.n_elements = ty.n_elements.saturating_add(tensor.n_elements());
        ty.size_bytes = ty.size_bytes.saturating_add(tensor.size_bytes().unwrap_or(0));
    }
    types.into_values().collect()
}

/// One pass over one file: this thread reads and scans, another hashes. `None` if `progress` broke.
/// `tensors` are those of the file, in the order of their bytes.
fn hash_and_scan(
    shard: &Shard,
    tensors: &[&TensorInfo],
    findings: &mut Vec<Finding>,
    progress: impl FnMut(u64) -> ControlFlow<()>,
) -> Result<Option<[u8; 32]>, GgufError> {
    let (file, len) = open_regular(&shard.path)?;
    if len != shard.len_bytes {
        return Err(shard.changed(len));
    }
    let (chunks, to_hash) = mpsc::sync_channel::<Vec<u8>>(WAITING_CHUNKS);
    thread::scope(|scope| {
        let hash = thread::Builder::new()
            .spawn_scoped(scope, move || {
                let mut hash = Sha256::new();
                to_hash.iter().for_each(|chunk| hash.update(chunk));
                hash.finalize().into()
            })
            .map_err(|source| shard.unreadable(source))?;
        let pass = Pass { shard, file, at: 0, chunks, progress }.run(tensors, findings);
        let hash = hash.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok(pass?.is_continue().then_some(hash))
    })
}

/// Reads a file from its start to its end. Dropping it ends the hash.
struct Pass<'a, P> {
    shard: &'a Shard,
    file: File,
    at: u64,
    chunks: SyncSender<Vec<u8>>,
    progress: P,
}

impl<P: FnMut(u64) -> ControlFlow<()>> Pass<'_, P> {
    fn run(mut self, tensors: &[&TensorInfo], findings: &mut Vec<Finding>) -> Result<ControlFlow<()>, GgufError> {
        let alignment = self.shard.alignment;
        let mut n_unused = 0;
        // Where the next tensor could start; unknown after a tensor whose size is.
        let mut next = Some(self.shard.data_start);
        for tensor in tensors {
            n_unused += next.map_or(0, |next| tensor.start().saturating_sub(next));
            if self.to(tensor.start(), 1, |_| ())?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            let (Some(layout), Some(size)) = (tensor.layout(), tensor.size_bytes()) else {
                findings.push(Finding::UnknownType { tensor: tensor.name.clone(), ggml_type: tensor.ggml_type });
                next = None;
                continue;
            };
            let end = tensor.start() + size;
            let mut scan = Scan::new(layout);
            if self.to(end, layout.block_bytes, |blocks| scan.blocks(blocks))?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            if let Some((first_block, what)) = scan.first {
                let (tensor, n_blocks) = (tensor.name.clone(), scan.n_bad_blocks);
                findings.push(Finding::NonFinite { tensor, first_block, n_blocks, what });
            }
            next = Some(end.next_multiple_of(alignment));
        }
        n_unused += next.map_or(0, |next| self.shard.len_bytes.saturating_sub(next));
        if n_unused > 0 {
            findings.push(Finding::UnusedBytes { file: self.shard.path.clone(), n_bytes: n_unused });
        }
        self.to(self.shard.len_bytes, 1, |_| ())
    }

    /// Reads up to `end`, gives each chunk to `look` and then to the hash. A chunk is a whole number of
    /// `block_bytes`.
    fn to(&mut self, end: u64, block_bytes: u64, mut look: impl FnMut(&[u8])) -> Result<ControlFlow<()>, GgufError> {
        let most = CHUNK_BYTES / block_bytes * block_bytes;
        while self.at < end {
            let len = most.min(end - self.at);
            let mut chunk = Vec::with_capacity(len as usize);
            let read = (&mut self.file).take(len).read_to_end(&mut chunk);
            let n_read = read.map_err(|source| self.shard.unreadable(source))? as u64;
            if n_read < len {
                return Err(self.shard.changed(self.at + n_read));
            }
            look(&chunk);
            self.at += len;
            if self.chunks.send(chunk).is_err() {
                // The hash has panicked, which its owner is about to find out.
                return Ok(ControlFlow::Break(()));
            }
            if (self.progress)(self.at).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
