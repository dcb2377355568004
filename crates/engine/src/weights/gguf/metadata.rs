//! The key-value part of a GGUF file: typed reads over the bytes it was parsed from.
//! Arrays are views of those bytes, so that a vocabulary costs no second copy.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use super::super::Bytes;
use super::error::{GgufError, shown};
use super::value_type::{ValueKind, ValueType};

/// One key, and where its value lies. For a string the range is its text, for an array its
/// elements; lengths inside it were checked when it was parsed.
pub(super) struct Entry {
    pub key: Box<str>,
    pub kind: ValueKind,
    /// A copy of a string that is UTF-8: a `str` must stay valid even if the file is changed.
    pub text: Option<Box<str>>,
    pub start: usize,
    pub end: usize,
}

struct Inner {
    file: String,
    bytes: Bytes,
    entries: Vec<Entry>,
    by_key: Vec<u32>,
}

/// The keys of one file and typed reads of them. `Ok(None)`: the key is absent; `Err`: it holds
/// another type than was asked for. Cheap to clone.
#[derive(Clone)]
pub struct Metadata(Arc<Inner>);

impl Metadata {
    /// `Err` holds a key that occurs twice. `bytes` are those the entries' ranges refer to.
    pub(super) fn new(file: &str, bytes: Bytes, entries: Vec<Entry>) -> Result<Self, Box<str>> {
        let mut by_key: Vec<u32> = (0..entries.len() as u32).collect();
        by_key.sort_unstable_by_key(|&i| &entries[i as usize].key);
        for pair in by_key.windows(2) {
            let key = &entries[pair[0] as usize].key;
            if *key == entries[pair[1] as usize].key {
                return Err(key.clone());
            }
        }
        Ok(Self(Arc::new(Inner { file: file.to_owned(), bytes, entries, by_key })))
    }

    /// The keys in the order of the file.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.entries.iter().map(|entry| &*entry.key)
    }

    /// The type of `key`, or `None` where it is absent.
    pub fn kind(&self, key: &str) -> Option<ValueKind> {
        self.entry(key).map(|entry| entry.kind)
    }

    /// The error that says that `key` is needed and absent.
    pub fn missing(&self, key: &str) -> GgufError {
        GgufError::MissingKey { file: self.0.file.clone(), key: shown(key) }
    }

    /// The error that says that the value of `key` cannot be used.
    pub fn unusable(&self, key: &str, found: impl fmt::Display, expected: impl fmt::Display) -> GgufError {
        GgufError::WrongType { file: self.0.file.clone(), key: shown(key), found: found.to_string(), expected: expected.to_string() }
    }

    /// A string; an error too where it is not UTF-8.
    pub fn string(&self, key: &str) -> Result<Option<&str>, GgufError> {
        let Some(entry) = self.entry(key) else {
            return Ok(None);
        };
        if entry.kind != ValueKind::One(ValueType::String) {
            return Err(self.unusable(key, entry.kind, "string"));
        }
        match &entry.text {
            Some(text) => Ok(Some(text)),
            None => Err(self.unusable(key, "a string that is not UTF-8", "UTF-8")),
        }
    }

    /// An integer of any type that is not negative.
    pub fn uint(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.one(key, "an integer that is not negative")
    }

    /// A float; an f64 is rounded.
    pub fn float(&self, key: &str) -> Result<Option<f32>, GgufError> {
        self.one(key, "f32")
    }

    /// A bool.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.one(key, "bool")
    }

    /// An array of strings, which need not be UTF-8.
    pub fn strings(&self, key: &str) -> Result<Option<StringArray>, GgufError> {
        let Some(entry) = self.entry(key) else {
            return Ok(None);
        };
        let ValueKind::Array { element: ValueType::String, len } = entry.kind else {
            return Err(self.unusable(key, entry.kind, "array of string"));
        };
        Ok(Some(StringArray { bytes: self.view(entry), len }))
    }

    /// An array of f32; f64 are rounded.
    pub fn floats(&self, key: &str) -> Result<Option<NumberArray<f32>>, GgufError> {
        self.array(key, "array of f32")
    }

    /// An array of integers of any type that fit an i32.
    pub fn ints(&self, key: &str) -> Result<Option<NumberArray<i32>>, GgufError> {
        self.array(key, "array of i32")
    }

    /// An array of integers of any type that are not negative.
    pub fn uints(&self, key: &str) -> Result<Option<NumberArray<u64>>, GgufError> {
        self.array(key, "array of integers that are not negative")
    }

    /// An array of bools.
    pub fn booleans(&self, key: &str) -> Result<Option<NumberArray<bool>>, GgufError> {
        self.array(key, "array of bool")
    }

    /// An integer for every layer, or one integer for all.
    pub fn uints_or_uint(&self, key: &str) -> Result<Option<PerLayer<u64>>, GgufError> {
        match self.kind(key) {
            Some(ValueKind::Array { .. }) => Ok(self.uints(key)?.map(PerLayer::Each)),
            _ => Ok(self.uint(key)?.map(PerLayer::All)),
        }
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        let Inner { entries, by_key, .. } = &*self.0;
        let at = by_key.binary_search_by(|&i| (*entries[i as usize].key).cmp(key)).ok()?;
        Some(&entries[by_key[at] as usize])
    }

    fn value(&self, entry: &Entry) -> &[u8] {
        &self.0.bytes[entry.start..entry.end]
    }

    fn view(&self, entry: &Entry) -> Bytes {
        self.0.bytes.slice(entry.start..entry.end).expect("checked when it was parsed")
    }

    fn one<T: Number>(&self, key: &str, expected: &str) -> Result<Option<T>, GgufError> {
        let Some(entry) = self.entry(key) else {
            return Ok(None);
        };
        let ValueKind::One(stored) = entry.kind else {
            return Err(self.unusable(key, entry.kind, expected));
        };
        let bytes = self.value(entry);
        match T::read(stored, bytes) {
            Some(value) => Ok(Some(value)),
            None => Err(self.unusable(key, describe(stored, bytes), expected)),
        }
    }

    fn array<T: Number>(&self, key: &str, expected: &str) -> Result<Option<NumberArray<T>>, GgufError> {
        let Some(entry) = self.entry(key) else {
            return Ok(None);
        };
        let ValueKind::Array { element, len } = entry.kind else {
            return Err(self.unusable(key, entry.kind, expected));
        };
        let Some(size) = element.size().filter(|_| T::can_hold(element)) else {
            return Err(self.unusable(key, entry.kind, expected));
        };
        let bytes = self.view(entry);
        for (i, value) in bytes.chunks_exact(size).enumerate() {
            if T::read(element, value).is_none() {
                let found = format!("{} at index {i}", describe(element, value));
                return Err(self.unusable(key, found, expected));
            }
        }
        Ok(Some(NumberArray { bytes, stored: element, size, len, number: PhantomData }))
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.entries.iter().map(|e| (&e.key, e.kind))).finish()
    }
}

/// A stored value in an error: its number where it is an integer, else its type.
fn describe(stored: ValueType, bytes: &[u8]) -> String {
    match integer(stored, bytes) {
        Some(value) => format!("{stored} {value}"),
        None => stored.to_string(),
    }
}

fn integer(stored: ValueType, bytes: &[u8]) -> Option<i128> {
    Some(match stored {
        ValueType::U8 => u8::from_le_bytes(bytes.try_into().ok()?).into(),
        ValueType::I8 => i8::from_le_bytes(bytes.try_into().ok()?).into(),
        ValueType::U16 => u16::from_le_bytes(bytes.try_into().ok()?).into(),
        ValueType::I16 => i16::from_le_bytes(bytes.try_into().ok()?).into(),
        ValueType::U32 => u32::from_le_bytes(bytes.try_into().ok()?).into(),
        ValueType::I32 => i32::from_le_bytes(bytes.try_into().ok()?).into(),
        ValueType::U64 => u64::from_le_bytes(bytes.try_into().ok()?).into(),
        ValueType::I64 => i64::from_le_bytes(bytes.try_into().ok()?).into(),
        ValueType::F32 | ValueType::F64 => return None,
        ValueType::Bool | ValueType::String | ValueType::Array => return None,
    })
}

mod sealed {
    use super::ValueType;

    /// A number that metadata can be read as.
    pub trait Number: Sized + Copy {
        /// Whether some value stored as `stored` can be read as this.
        fn can_hold(stored: ValueType) -> bool;
        /// The value, or `None` where it cannot be this.
        fn read(stored: ValueType, bytes: &[u8]) -> Option<Self>;
    }
}
use sealed::Number;

fn is_integer(stored: ValueType) -> bool {
    use ValueType::*;
    matches!(stored, U8 | I8 | U16 | I16 | U32 | I32 | U64 | I64)
}

impl Number for u64 {
    fn can_hold(stored: ValueType) -> bool {
        is_integer(stored)
    }

    fn read(stored: ValueType, bytes: &[u8]) -> Option<Self> {
        integer(stored, bytes)?.try_into().ok()
    }
}

impl Number for i32 {
    fn can_hold(stored: ValueType) -> bool {
        is_integer(stored)
    }

    fn read(stored: ValueType, bytes: &[u8]) -> Option<Self> {
        integer(stored, bytes)?.try_into().ok()
    }
}

impl Number for f32 {
    fn can_hold(stored: ValueType) -> bool {
        matches!(stored, ValueType::F32 | ValueType::F64)
    }

    fn read(stored: ValueType, bytes: &[u8]) -> Option<Self> {
        match stored {
            ValueType::F32 => Some(f32::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::F64 => Some(f64::from_le_bytes(bytes.try_into().ok()?) as f32),
            _ => None,
        }
    }
}

impl Number for bool {
    fn can_hold(stored: ValueType) -> bool {
        stored == ValueType::Bool
    }

    fn read(stored: ValueType, bytes: &[u8]) -> Option<Self> {
        match (stored, bytes) {
            (ValueType::Bool, [0]) => Some(false),
            (ValueType::Bool, [1]) => Some(true),
            _ => None,
        }
    }
}

/// An array of strings, as a view of the file. Elements are found one after the other.
#[derive(Debug, Clone)]
pub struct StringArray {
    bytes: Bytes,
    len: usize,
}

impl StringArray {
    /// Number of strings.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The strings in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest: &[u8] = &self.bytes;
        (0..self.len).map_while(move |_| {
            let (len, tail) = rest.split_first_chunk()?;
            let (text, tail) = tail.split_at_checked(u64::from_le_bytes(*len) as usize)?;
            rest = tail;
            Some(text)
        })
    }
}

/// An array of numbers, as a view of the file. Every element was checked to be a `T`.
#[derive(Debug, Clone)]
pub struct NumberArray<T> {
    bytes: Bytes,
    stored: ValueType,
    size: usize,
    len: usize,
    number: PhantomData<T>,
}

impl<T: Number> NumberArray<T> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The element at `index`, or `None` past the end.
    pub fn get(&self, index: usize) -> Option<T> {
        let start = index.checked_mul(self.size)?;
        T::read(self.stored, self.bytes.get(start..start.checked_add(self.size)?)?)
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = T> {
        self.bytes.chunks_exact(self.size).map_while(|value| T::read(self.stored, value))
    }
}

/// A number for every layer, or one for all of them.
#[derive(Debug, Clone)]
pub enum PerLayer<T> {
    /// The same for all layers.
    All(T),
    /// One for each layer.
    Each(NumberArray<T>),
}

impl<T: Number> PerLayer<T> {
    /// The number of layer `layer_idx`, or `None` where the array is too short.
    pub fn get(&self, layer_idx: usize) -> Option<T> {
        match self {
            Self::All(value) => Some(*value),
            Self::Each(values) => values.get(layer_idx),
        }
    }
}
