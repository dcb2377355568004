//! Safetensors files of a folder: headers checked against the files, tensors read as f32.
//!
//! Tensors are read and never mapped: candle keeps a copy of its own, and a file that is cut while it is in use is then an error
//! and no signal. Does not know what a tensor means.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path};

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde_json::Value;

use crate::embedder::{FolderError, Json};
use crate::error::Error;
use crate::weights::gguf::open_regular;

/// Longer headers describe more tensors than any model here has.
const MAX_HEADER_BYTES: u64 = 16 << 20;
/// Files that an index may name.
const MAX_SHARDS: usize = 1000;
/// How much of a tensor is read at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// The tensors of a folder.
pub(crate) struct Safetensors {
    shards: Vec<Shard>,
    places: HashMap<String, usize>,
}

struct Shard {
    file: String,
    handle: File,
    metadata: Metadata,
    data_start: u64,
}

impl Safetensors {
    /// Opens `model.safetensors`, or the files that `model.safetensors.index.json` names.
    ///
    /// # Errors
    /// A file is missing, cannot be read, is shorter than its header says, or contradicts itself.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let single = folder.join("model.safetensors");
        let index = folder.join("model.safetensors.index.json");
        let names =
            if !single.exists() && index.exists() { shard_names(&index)? } else { BTreeSet::from(["model.safetensors".to_owned()]) };
        let shards = names.iter().map(|name| Shard::open(&folder.join(name))).collect::<Result<Vec<_>, _>>()?;
        let mut places = HashMap::new();
        for (at, shard) in shards.iter().enumerate() {
            for name in shard.metadata.offset_keys() {
                if places.insert(name.clone(), at).is_some() {
                    return Err(FolderError::corrupt(&shard.file, format!("tensor `{name}`"), "it in two files", "it in one").into());
                }
            }
        }
        Ok(Self { shards, places })
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Shape of a tensor and its element type by its name in lower case.
    ///
    /// # Errors
    /// There is none, or its elements are no floats of 16 or 32 bits.
    pub fn describe(&self, name: &str) -> Result<(&[usize], String), Error> {
        let (shard, info) = self.find(name)?;
        match info.dtype {
            Dtype::F32 | Dtype::F16 | Dtype::BF16 => Ok((&info.shape, info.dtype.to_string().to_lowercase())),
            other => Err(FolderError::ElementType { file: shard.file.clone(), tensor: name.to_owned(), found: other.to_string() }.into()),
        }
    }

    /// All elements of a tensor, row-major.
    ///
    /// # Errors
    /// As [`Safetensors::describe`]; the file cannot be read or was cut; an element is not finite; there is no memory for it.
    pub fn read(&self, name: &str) -> Result<Vec<f32>, Error> {
        self.describe(name)?;
        let (shard, info) = self.find(name)?;
        let (start, end) = info.data_offsets;
        let size = info.dtype.bitsize() / 8;
        let n_elements = (end - start) / size;
        let mut values: Vec<f32> = Vec::new();
        values.try_reserve_exact(n_elements).map_err(|_| Error::OutOfMemory { what: "a tensor", bytes: 4 * n_elements as u64 })?;
        let mut input = &shard.handle;
        input.seek(SeekFrom::Start(shard.data_start + start as u64)).map_err(|source| shard.unreadable(source))?;
        let mut chunk = vec![0; CHUNK_BYTES.min(end - start)];
        let mut left = end - start;
        while left > 0 {
            let chunk = &mut chunk[..CHUNK_BYTES.min(left)];
            input.read_exact(chunk).map_err(|source| shard.unreadable(source))?;
            match info.dtype {
                Dtype::F16 => values.extend(chunk.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32())),
                Dtype::BF16 => values.extend(chunk.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32())),
                _ => values.extend(chunk.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))),
            }
            left -= chunk.len();
        }
        match values.iter().find(|value| !value.is_finite()) {
            Some(value) => Err(FolderError::corrupt(&shard.file, format!("tensor `{name}`"), value, "finite numbers").into()),
            None => Ok(values),
        }
    }

    fn find(&self, name: &str) -> Result<(&Shard, &safetensors::tensor::TensorInfo), Error> {
        let shard = self.places.get(name).map(|&at| &self.shards[at]);
        let found = shard.and_then(|shard| Some((shard, shard.metadata.info(name)?)));
        found.ok_or_else(|| Error::Tensor { name: name.to_owned(), found: "none".into(), expected: "one of this name".into() })
    }
}

impl Shard {
    fn open(path: &Path) -> Result<Self, Error> {
        let file = path.display().to_string();
        let (handle, length) = open_regular(path)?;
        let truncated =
            |place: &str, expected| FolderError::Truncated { file: file.clone(), place: place.to_owned(), expected, found: length };
        let unreadable = |source| FolderError::Unreadable { file: file.clone(), source };
        let mut input = &handle;
        let mut prefix = [0; 8];
        if length < 8 {
            return Err(truncated("the length of the header", 8).into());
        }
        input.read_exact(&mut prefix).map_err(unreadable)?;
        let header_bytes = u64::from_le_bytes(prefix);
        if header_bytes > MAX_HEADER_BYTES {
            return Err(FolderError::corrupt(&file, "length of the header", header_bytes, format!("at most {MAX_HEADER_BYTES}")).into());
        }
        let data_start = 8 + header_bytes;
        if data_start > length {
            return Err(truncated("the header", data_start).into());
        }
        let mut header = vec![0; header_bytes as usize];
        input.read_exact(&mut header).map_err(unreadable)?;
        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|error| FolderError::corrupt(&file, "the header", error, "a JSON object of tensors that follow each other"))?;
        let data_end = data_start.saturating_add(metadata.data_len() as u64);
        if data_end > length {
            return Err(truncated("the last tensor", data_end).into());
        }
        if data_end < length {
            let found = format!("{} bytes after the last tensor", length - data_end);
            return Err(FolderError::corrupt(&file, "the end", found, "none").into());
        }
        Ok(Self { file, handle, metadata, data_start })
    }

    fn unreadable(&self, source: io::Error) -> Error {
        FolderError::Unreadable { file: self.file.clone(), source }.into()
    }
}

/// The files that an index names: all of them beside it.
fn shard_names(index: &Path) -> Result<BTreeSet<String>, Error> {
    let index = Json::read(index)?;
    let wrong = |found: String| FolderError::corrupt(index.file(), "`weight_map`", found, "tensor names and the files beside it");
    let Some(Value::Object(map)) = index.get("weight_map") else { return Err(wrong("no object".into()).into()) };
    let mut names = BTreeSet::new();
    for value in map.values() {
        let name = value.as_str().filter(|name| {
            let mut parts = Path::new(name).components();
            matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
        });
        names.insert(name.ok_or_else(|| wrong(value.to_string()))?.to_owned());
    }
    if names.is_empty() || names.len() > MAX_SHARDS {
        return Err(wrong(format!("{} files", names.len())).into());
    }
    Ok(names)
}
