//! Why a GGUF file, or one thing in it, cannot be used.

use std::fmt;
use std::io;

/// Why a GGUF file, or one key or tensor of it, cannot be used. Every variant names the file.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// No file has this name.
    #[error("{file}: no such file")]
    Missing {
        /// The path that was asked for.
        file: String,
    },
    /// The operating system refused to open, map or read the file.
    #[error("{file}: cannot be read: {source}")]
    Unreadable {
        /// The path that was asked for.
        file: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The path names a directory, pipe, device or socket.
    #[error("{file}: is {found}, expected a regular file")]
    NotAFile {
        /// The path that was asked for.
        file: String,
        /// What it is, with its article: "a directory".
        found: &'static str,
    },
    /// The file does not start as a GGUF file does.
    #[error("{file}: is not a GGUF file: found {found}, expected the bytes `GGUF`")]
    NotGguf {
        /// The file.
        file: String,
        /// What it seems to be, or its first bytes.
        found: String,
    },
    /// A GGUF version that this reader does not know, or a big-endian file.
    #[error("{file}: is GGUF {found}, expected version 2 or 3, little endian")]
    UnsupportedVersion {
        /// The file.
        file: String,
        /// The version and byte order found.
        found: String,
    },
    /// The file ends before something that it says it contains.
    #[error("{file}: is truncated: {place} needs {expected} bytes of file, found {found}")]
    Truncated {
        /// The file.
        file: String,
        /// The part of the file that is cut off.
        place: String,
        /// The file length in bytes that this part needs at least.
        expected: u64,
        /// The file length in bytes.
        found: u64,
    },
    /// Something in the file contradicts the format, the rest of the file, or a limit.
    #[error("{file}: is corrupt: {place}: found {found}, expected {expected}")]
    Corrupt {
        /// The file.
        file: String,
        /// The header field, key or tensor.
        place: String,
        /// What the file says.
        found: String,
        /// What it could have said.
        expected: String,
    },
    /// A key holds another type or value than the reader of it needs.
    #[error("{file}: key {key}: found {found}, expected {expected}")]
    WrongType {
        /// The file.
        file: String,
        /// The key.
        key: String,
        /// The type or value found.
        found: String,
        /// The type or value needed.
        expected: String,
    },
    /// A key that must be there is not.
    #[error("{file}: key {key} is missing")]
    MissingKey {
        /// The file.
        file: String,
        /// The key.
        key: String,
    },
    /// A tensor that must be there is not.
    #[error("{file}: tensor {tensor} is missing")]
    MissingTensor {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
    },
    /// The type of a tensor is unknown, so its size is too.
    #[error("{file}: tensor {tensor}: found type {found}, expected a ggml type known here")]
    UnsupportedType {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// The type id, and its name if it once had one.
        found: String,
    },
    /// A part of a split file is not beside the first part.
    #[error("{file}: its part {shard} is missing")]
    MissingShard {
        /// The first part.
        file: String,
        /// The path of the part that is missing.
        shard: String,
    },
    /// A part of a split file does not belong to the first part.
    #[error("{file}: its part {shard} belongs to another file: found {found}, expected {expected}")]
    ForeignShard {
        /// The first part.
        file: String,
        /// The path of the part that does not fit.
        shard: String,
        /// What the part says.
        found: String,
        /// What the first part says.
        expected: String,
    },
    /// The file is the first of several parts, but its name does not lead to the others.
    #[error("{file}: has {n_parts} parts; to find them its name must end in `{expected}`")]
    UnnamedSplit {
        /// The file.
        file: String,
        /// How many parts it says there are.
        n_parts: u64,
        /// How its name has to end.
        expected: String,
    },
    /// The file is a part of a split file, but not the first one.
    #[error("{file}: is part {part} of a split file; open its first part instead{}", .first.as_deref().map(|f| format!(": {f}")).unwrap_or_default())]
    NotFirstShard {
        /// The file.
        file: String,
        /// Its number, from 1.
        part: u64,
        /// The path of the first part, where the name of this one tells it.
        first: Option<String>,
    },
}

/// The kinds of [`GgufError`] that are treated differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GgufErrorClass {
    /// No such file.
    Missing,
    /// A directory, a device, no permission, an input error.
    Unreadable,
    /// Some other kind of file.
    NotGguf,
    /// The file is shorter than it says: a copy or download that was cut.
    Truncated,
    /// The file contradicts itself or the format.
    Corrupt,
    /// A part of a split file is missing, or belongs to another file.
    BrokenSplit,
    /// A version or byte order that cannot be read.
    UnsupportedVersion,
    /// A tensor type that cannot be read.
    UnsupportedType,
    /// A key or tensor that the model needs is missing or of another type.
    Invalid,
}

impl GgufError {
    /// Which kind of error this is.
    pub fn class(&self) -> GgufErrorClass {
        match self {
            Self::Missing { .. } => GgufErrorClass::Missing,
            Self::Unreadable { .. } | Self::NotAFile { .. } => GgufErrorClass::Unreadable,
            Self::NotGguf { .. } => GgufErrorClass::NotGguf,
            Self::UnsupportedVersion { .. } => GgufErrorClass::UnsupportedVersion,
            Self::Truncated { .. } => GgufErrorClass::Truncated,
            Self::Corrupt { .. } => GgufErrorClass::Corrupt,
            Self::WrongType { .. } | Self::MissingKey { .. } | Self::MissingTensor { .. } => GgufErrorClass::Invalid,
            Self::UnsupportedType { .. } => GgufErrorClass::UnsupportedType,
            Self::MissingShard { .. } | Self::ForeignShard { .. } | Self::UnnamedSplit { .. } | Self::NotFirstShard { .. } => {
                GgufErrorClass::BrokenSplit
            }
        }
    }
}

/// The part of a file that an error is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    Header(&'static str),
    KeyAt(u64),
    Key(&'a str),
    TensorAt(u64),
    Tensor(&'a str),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(field) => f.write_str(field),
            Self::KeyAt(i) => write!(f, "key number {i}"),
            Self::Key(key) => write!(f, "key {}", shown(key)),
            Self::TensorAt(i) => write!(f, "tensor number {i}"),
            Self::Tensor(name) => write!(f, "tensor {}", shown(name)),
        }
    }
}

/// A name from an untrusted file as one short printable piece of a sentence.
pub(crate) fn shown(name: &str) -> String {
    const MAX_CHARS: usize = 96;
    let mut text: String = name.chars().take(MAX_CHARS).flat_map(char::escape_debug).collect();
    if name.chars().nth(MAX_CHARS).is_some() {
        text.push_str("..");
    }
    format!("`{text}`")
}
