//! JSON files of a folder: read with a limit, their values checked as they are taken.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::Error;
use crate::weights::gguf::{GgufError, open_regular};

/// Longer files are no configuration.
const MAX_JSON_BYTES: u64 = 16 << 20;

/// Why a folder of several files cannot be used as a model.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The operating system refused to read a file.
    #[error("{file}: cannot be read: {source}")]
    Unreadable {
        /// The file.
        file: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file ends before something that it says it contains.
    #[error("{file}: is truncated: {place} needs {expected} bytes of file, found {found}")]
    Truncated {
        /// The file.
        file: String,
        /// The part of the file that is cut off.
        place: String,
        /// The file length in bytes that this part needs.
        expected: u64,
        /// The file length in bytes.
        found: u64,
    },
    /// Something in a file contradicts its format, the other files, or a limit.
    #[error("{file}: is corrupt: {place}: found {found}, expected {expected}")]
    Corrupt {
        /// The file.
        file: String,
        /// The key or tensor.
        place: String,
        /// What the file says.
        found: String,
        /// What it could have said.
        expected: String,
    },
    /// The folder asks for something that is not computed here.
    #[error("{file}: {what} {found} is not supported; known are {known}")]
    Unsupported {
        /// The file that asks for it.
        file: String,
        /// What kind of thing it is.
        what: &'static str,
        /// What is asked for.
        found: String,
        /// What could be.
        known: String,
    },
    /// A tensor has elements that are not read.
    #[error("{file}: tensor `{tensor}` has elements of type {found}, expected F32, F16 or BF16")]
    ElementType {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// The type.
        found: String,
    },
    /// The tokenizer cannot be built, or does not fit the model.
    #[error("{file}: {problem}")]
    Tokenizer {
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl FolderError {
    /// A [`FolderError::Corrupt`].
    pub(crate) fn corrupt(file: &str, place: impl Into<String>, found: impl Display, expected: impl Into<String>) -> Self {
        Self::Corrupt { file: file.to_owned(), place: place.into(), found: shortened(&found.to_string()), expected: expected.into() }
    }
}

/// What a file says, short enough for a sentence.
fn shortened(text: &str) -> String {
    const MAX_CHARS: usize = 200;
    let mut short: String = text.chars().take(MAX_CHARS).collect();
    if short.len() < text.len() {
        short.push_str("..");
    }
    short
}

/// One JSON file.
pub(crate) struct Json {
    file: String,
    value: Value,
}

impl Json {
    /// Reads a file that must be there.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let file = path.display().to_string();
        let bytes = read_bytes(path, MAX_JSON_BYTES)?;
        let value = serde_json::from_slice(&bytes).map_err(|error| FolderError::corrupt(&file, "the text", error, "JSON"))?;
        Ok(Self { file, value })
    }

    /// Reads a file that may be absent; it is then an empty object.
    pub fn read_optional(path: &Path) -> Result<Self, Error> {
        match Self::read(path) {
            Err(Error::Gguf(GgufError::Missing { file })) => Ok(Self { file, value: Value::Object(Map::new()) }),
            found => found,
        }
    }

    pub fn file(&self) -> &str {
        &self.file
    }

    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The value of a key; `null` counts as absent.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.value.get(key).filter(|value| !value.is_null())
    }

    /// A whole number that must be there.
    pub fn count(&self, key: &str, range: RangeInclusive<usize>) -> Result<usize, Error> {
        self.optional_count(key, range.clone())?.ok_or_else(|| self.wrong(key, "nothing", &expected(&range)))
    }

    /// A whole number that may be absent.
    pub fn optional_count(&self, key: &str, range: RangeInclusive<usize>) -> Result<Option<usize>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok()).filter(|count| range.contains(count));
        count.map(Some).ok_or_else(|| self.wrong(key, value, &expected(&range)))
    }

    /// A number that may be absent.
    pub fn optional_number(&self, key: &str) -> Result<Option<f64>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| self.wrong(key, value, "a number"))
    }

    /// A switch that may be absent.
    pub fn optional_switch(&self, key: &str) -> Result<Option<bool>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.wrong(key, value, "true or false"))
    }

    /// A text that may be absent.
    pub fn optional_text(&self, key: &str) -> Result<Option<&str>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(key, value, "a text"))
    }

    /// That a key has a value which does not work.
    pub fn wrong(&self, key: &str, found: impl Display, expected: &str) -> Error {
        FolderError::corrupt(&self.file, format!("`{key}`"), found, expected).into()
    }
}

fn expected(range: &RangeInclusive<usize>) -> String {
    format!("a whole number from {} to {}", range.start(), range.end())
}

/// All of a regular file that has at most `limit` bytes.
pub(crate) fn read_bytes(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let (handle, length) = open_regular(path)?;
    let file = path.display().to_string();
    if length > limit {
        return Err(FolderError::corrupt(&file, "the length", format!("{length} bytes"), format!("at most {limit}")).into());
    }
    read_all(handle, limit).map_err(|source| FolderError::Unreadable { file, source }.into())
}

fn read_all(handle: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    handle.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}
