//! One pass over the header of one GGUF file: magic, keys, tensor table. Pure: bytes in, facts or
//! an error out. Works on a prefix of the file too, and then says how many bytes it still needs.
//! Layout: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use super::super::Bytes;
use super::error::{GgufError, Place, shown};
use super::ggml_type::GgmlType;
use super::metadata::{Entry, Metadata};
use super::tensor::TensorInfo;
use super::value_type::{ValueKind, ValueType};

/// Limits of what is read from a file that nobody vouches for. Far above any real model.
pub mod limits {
    /// Bytes of everything before the tensor data.
    pub const HEADER_BYTES: u64 = 256 << 20;
    /// Keys of one file.
    pub const KEYS: u64 = 16 << 10;
    /// Tensors of one file.
    pub const TENSORS: u64 = 256 << 10;
    /// Bytes of a key or of a tensor's name.
    pub const KEY_BYTES: u64 = 64 << 10;
    /// Bytes of a string.
    pub const STRING_BYTES: u64 = 16 << 20;
    /// Elements of an array.
    pub const ARRAY_LEN: u64 = 64 << 20;
    /// Arrays inside arrays.
    pub const ARRAY_DEPTH: u32 = 4;
    /// Dimensions of a tensor.
    pub const DIMS: u32 = 4;
    /// Bytes that tensors may be aligned to.
    pub const ALIGNMENT: u64 = 1 << 20;
}

const MAGIC: &[u8; 4] = b"GGUF";
const DEFAULT_ALIGNMENT: u64 = 32;
/// An empty key with a one-byte value: length, type, value.
const MIN_KEY_BYTES: u64 = 8 + 4 + 1;
/// A tensor with an empty name and one dimension: length, count, dimension, type, offset.
const MIN_TENSOR_BYTES: u64 = 8 + 4 + 8 + 4 + 8;

/// The header of one file.
pub(super) struct FileHeader {
    pub version: u32,
    pub alignment: u64,
    /// Where the tensor data starts in the file.
    pub data_start: u64,
    pub metadata: Metadata,
    pub tensors: Vec<TensorInfo>,
}

/// Why parsing ended early.
pub(super) enum Stop {
    /// The prefix is too short: at least this many bytes of the file are needed.
    Need(u64),
    Failed(GgufError),
}

impl From<GgufError> for Stop {
    fn from(error: GgufError) -> Self {
        Self::Failed(error)
    }
}

/// Parses the header of `file`, of which `bytes` is a prefix and which is `file_len` bytes long.
pub(super) fn parse(bytes: &Bytes, file: &str, file_len: u64) -> Result<FileHeader, Stop> {
    let mut cursor = Cursor { bytes, file, file_len, at: 0 };
    let version = cursor.version()?;
    let n_tensors = cursor.u64(Place::Header("the tensor count"))?;
    let n_keys = cursor.u64(Place::Header("the key count"))?;
    cursor.count(Place::Header("the key count"), n_keys, limits::KEYS, MIN_KEY_BYTES)?;
    cursor.count(Place::Header("the tensor count"), n_tensors, limits::TENSORS, MIN_TENSOR_BYTES)?;

    let mut entries = Vec::new();
    for i in 0..n_keys {
        entries.push(cursor.entry(i)?);
    }
    let metadata =
        Metadata::new(file, bytes.clone(), entries).map_err(|key| cursor.corrupt(Place::Key(&key), "the key twice", "every key once"))?;
    let alignment = alignment(&cursor, &metadata)?;

    let mut tensors = Vec::new();
    for i in 0..n_tensors {
        tensors.push(cursor.tensor(i, alignment)?);
    }
    let data_start = (cursor.at as u64).next_multiple_of(alignment);
    place_tensors(&cursor, &mut tensors, data_start)?;
    Ok(FileHeader { version, alignment, data_start, metadata, tensors })
}

fn alignment(cursor: &Cursor<'_>, metadata: &Metadata) -> Result<u64, GgufError> {
    const KEY: &str = "general.alignment";
    let Some(alignment) = metadata.uint(KEY)? else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    if !alignment.is_power_of_two() || !(8..=limits::ALIGNMENT).contains(&alignment) {
        let expected = format!("a power of two from 8 to {}", limits::ALIGNMENT);
        return Err(cursor.corrupt(Place::Key(KEY), alignment, expected));
    }
    Ok(alignment)
}

/// Turns offsets into positions in the file, and checks that tensors lie inside it and apart.
fn place_tensors(cursor: &Cursor<'_>, tensors: &mut [TensorInfo], data_start: u64) -> Result<(), GgufError> {
    let mut in_file_order: Vec<usize> = (0..tensors.len()).collect();
    for tensor in tensors.iter_mut() {
        let place = Place::Tensor(&tensor.name);
        let start = tensor.start.checked_add(data_start);
        // The size of an unknown type is unknown too: at least its first byte must be there.
        let end = start.and_then(|s| s.checked_add(tensor.size_bytes.unwrap_or(1)));
        let (Some(start), Some(end)) = (start, end) else {
            let found = format!("offset {}", tensor.start);
            return Err(cursor.corrupt(place, found, "an offset inside the file"));
        };
        if end > cursor.file_len {
            return Err(cursor.truncated(place, end));
        }
        tensor.start = start;
    }

    in_file_order.sort_unstable_by_key(|&i| tensors[i].start);
    for pair in in_file_order.windows(2) {
        let (first, second) = (&tensors[pair[0]], &tensors[pair[1]]);
        let end = first.start + first.size_bytes.unwrap_or(1);
        if second.start < end {
            let found = format!("byte {} of the file, inside {}", second.start, shown(&first.name));
            return Err(cursor.corrupt(Place::Tensor(&second.name), found, "bytes of its own"));
        }
    }
    Ok(())
}

struct Cursor<'a> {
    bytes: &'a [u8],
    file: &'a str,
    file_len: u64,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn truncated(&self, place: Place<'_>, expected: u64) -> GgufError {
        GgufError::Truncated { file: self.file.to_owned(), place: place.to_string(), expected, found: self.file_len }
    }

    fn corrupt(&self, place: Place<'_>, found: impl ToString, expected: impl ToString) -> GgufError {
        GgufError::Corrupt {
            file: self.file.to_owned(),
            place: place.to_string(),
            found: found.to_string(),
            expected: expected.to_string(),
        }
    }

    /// The next `len` bytes.
    fn take(&mut self, place: Place<'_>, len: u64) -> Result<&'a [u8], Stop> {
        let end = (self.at as u64).saturating_add(len);
        if end > self.file_len {
            return Err(self.truncated(place, end).into());
        }
        if end > limits::HEADER_BYTES {
            let expected = format!("at most {} bytes before the tensor data", limits::HEADER_BYTES);
            return Err(self.corrupt(place, format!("byte {end}"), expected).into());
        }
        let taken = self.bytes.get(self.at..end as usize).ok_or(Stop::Need(end))?;
        self.at = end as usize;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, place: Place<'_>) -> Result<[u8; N], Stop> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(place, N as u64)?);
        Ok(array)
    }

    fn u32(&mut self, place: Place<'_>) -> Result<u32, Stop> {
        self.array(place).map(u32::from_le_bytes)
    }

    fn u64(&mut self, place: Place<'_>) -> Result<u64, Stop> {
        self.array(place).map(u64::from_le_bytes)
    }

    /// Checks a count before anything is done that many times.
    fn count(&self, place: Place<'_>, n: u64, limit: u64, min_bytes: u64) -> Result<(), Stop> {
        if n > limit {
            return Err(self.corrupt(place, n, format!("at most {limit}")).into());
        }
        let end = (self.at as u64).saturating_add(n.saturating_mul(min_bytes));
        if end > self.file_len {
            return Err(self.truncated(place, end).into());
        }
        Ok(())
    }

    fn version(&mut self) -> Result<u32, Stop> {
        let found = self.bytes.get(..self.bytes.len().min(64)).unwrap_or_default();
        if !found.starts_with(&MAGIC[..found.len().min(MAGIC.len())]) {
            let found = other_format(found);
            return Err(GgufError::NotGguf { file: self.file.to_owned(), found }.into());
        }
        self.take(Place::Header("the magic"), MAGIC.len() as u64)?;
        let version = self.u32(Place::Header("the version"))?;
        let found = match version {
            2 | 3 => return Ok(version),
            // Small versions have their low half zero when read in the wrong byte order.
            _ if version != 0 && version & 0xffff == 0 => {
                format!("version {}, big endian", version.swap_bytes())
            }
            _ => format!("version {version}"),
        };
        Err(GgufError::UnsupportedVersion { file: self.file.to_owned(), found }.into())
    }

    /// The bytes of a string; its length is checked against `limit` first.
    fn string(&mut self, place: Place<'_>, limit: u64) -> Result<&'a [u8], Stop> {
        let len = self.u64(place)?;
        if len > limit {
            let found = format!("a length of {len} bytes");
            return Err(self.corrupt(place, found, format!("at most {limit}")).into());
        }
        self.take(place, len)
    }

    /// A key or a tensor's name; copied before it is checked, as the file may be changed meanwhile.
    fn name(&mut self, place: Place<'_>) -> Result<String, Stop> {
        let bytes = self.string(place, limits::KEY_BYTES)?.to_vec();
        let name = String::from_utf8(bytes).map_err(|_| self.corrupt(place, "a name that is not UTF-8", "UTF-8"))?;
        if name.is_empty() {
            return Err(self.corrupt(place, "an empty name", "a name").into());
        }
        Ok(name)
    }

    fn entry(&mut self, i: u64) -> Result<Entry, Stop> {
        let key = self.name(Place::KeyAt(i))?;
        let place = Place::Key(&key);
        let ty = self.value_type(place)?;
        let mut text = None;
        let (kind, start) = match (ty, ty.size()) {
            (ValueType::String, _) => {
                let bytes = self.string(place, limits::STRING_BYTES)?;
                text = String::from_utf8(bytes.to_vec()).ok().map(Box::from);
                (ValueKind::One(ty), self.at - bytes.len())
            }
            (ValueType::Array, _) => {
                let (element, len) = self.array_header(place)?;
                let start = self.at;
                self.skip_elements(place, element, len, 1)?;
                (ValueKind::Array { element, len: len as usize }, start)
            }
            (_, size) => {
                let value = self.take(place, size.unwrap_or_default() as u64)?;
                if ty == ValueType::Bool && value[0] > 1 {
                    return Err(self.corrupt(place, value[0], "a bool, 0 or 1").into());
                }
                (ValueKind::One(ty), self.at - value.len())
            }
        };
        Ok(Entry { key: key.into(), kind, text, start, end: self.at })
    }

    fn value_type(&mut self, place: Place<'_>) -> Result<ValueType, Stop> {
        let id = self.u32(place)?;
        ValueType::from_id(id).ok_or_else(|| self.corrupt(place, format!("value type {id}"), "a value type from 0 to 12").into())
    }

    fn array_header(&mut self, place: Place<'_>) -> Result<(ValueType, u64), Stop> {
        let element = self.value_type(place)?;
        let len = self.u64(place)?;
        // An array element is at least four bytes of type and eight of length.
        let min_bytes = match element {
            ValueType::String => 8,
            ValueType::Array => 12,
            _ => element.size().unwrap_or_default() as u64,
        };
        self.count(place, len, limits::ARRAY_LEN, min_bytes)?;
        Ok((element, len))
    }

    fn skip_elements(&mut self, place: Place<'_>, element: ValueType, len: u64, depth: u32) -> Result<(), Stop> {
        match (element, element.size()) {
            (ValueType::Array, _) if depth == limits::ARRAY_DEPTH => {
                let found = format!("arrays nested more than {depth} deep");
                return Err(self.corrupt(place, found, "a flat array").into());
            }
            (ValueType::Array, _) => {
                for _ in 0..len {
                    let (element, len) = self.array_header(place)?;
                    self.skip_elements(place, element, len, depth + 1)?;
                }
            }
            (_, Some(size)) => {
                self.take(place, len * size as u64)?;
            }
            (_, None) => {
                for _ in 0..len {
                    self.string(place, limits::STRING_BYTES)?;
                }
            }
        }
        Ok(())
    }

    /// One row of the tensor table; `start` is still relative to the tensor data.
    fn tensor(&mut self, i: u64, alignment: u64) -> Result<TensorInfo, Stop> {
        let name = self.name(Place::TensorAt(i))?;
        let place = Place::Tensor(&name);
        let n_dims = self.u32(place)?;
        if !(1..=limits::DIMS).contains(&n_dims) {
            let expected = format!("1 to {}", limits::DIMS);
            return Err(self.corrupt(place, format!("{n_dims} dimensions"), expected).into());
        }
        let mut dims = Vec::with_capacity(n_dims as usize);
        for _ in 0..n_dims {
            dims.push(self.u64(place)?);
        }
        let ggml_type = self.u32(place)?;
        let offset = self.u64(place)?;

        let n_elements =
            dims.iter().try_fold(1u64, |n, &dim| n.checked_mul(dim)).filter(|&n| n > 0 && n <= i64::MAX as u64).ok_or_else(|| {
                let expected = "dimensions above zero whose product fits 63 bits";
                self.corrupt(place, format!("dimensions {dims:?}"), expected)
            })?;
        let size_bytes = match GgmlType::from_id(ggml_type) {
            None => None,
            Some(ty) => {
                if dims[0] % ty.block_len != 0 {
                    let found = format!("rows of {} elements", dims[0]);
                    let expected = format!("a multiple of {} for {}", ty.block_len, ty.name);
                    return Err(self.corrupt(place, found, expected).into());
                }
                let n_blocks = n_elements / ty.block_len;
                Some(
                    n_blocks
                        .checked_mul(ty.block_bytes)
                        .ok_or_else(|| self.corrupt(place, format!("{n_blocks} blocks"), "a size that fits 64 bits"))?,
                )
            }
        };
        if offset % alignment != 0 {
            let expected = format!("a multiple of the alignment {alignment}");
            return Err(self.corrupt(place, format!("offset {offset}"), expected).into());
        }
        Ok(TensorInfo { name, dims, ggml_type, shard: 0, start: offset, size_bytes })
    }
}

/// What a file without the magic seems to be.
fn other_format(start: &[u8]) -> String {
    let known: [(&[u8], &str); 7] = [
        (b"version https://git-lfs", "a Git LFS pointer, which stands for a file not downloaded yet"),
        (b"<", "a web page"),
        (b"PK\x03\x04", "a zip archive, as PyTorch writes"),
        (b"lmgg", "a GGML file from before GGUF"),
        (b"tjgg", "a GGJT file from before GGUF"),
        (b"fmgg", "a GGMF file from before GGUF"),
        (b"FUGG", "a GGUF magic in reverse byte order"),
    ];
    if let Some((_, name)) = known.iter().find(|(magic, _)| start.starts_with(magic)) {
        return (*name).to_owned();
    }
    if start.get(8) == Some(&b'{') {
        return "a safetensors file".to_owned();
    }
    format!("`{}`", start[..start.len().min(MAGIC.len())].escape_ascii())
}
