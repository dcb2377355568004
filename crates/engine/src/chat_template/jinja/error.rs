//! How a template fails, before it is told to the caller.

/// What an operation of the interpreter gives.
pub(super) type Result<T> = std::result::Result<T, Fault>;

/// A failure, without its place until a statement adds it.
#[derive(Debug)]
pub(in super::super) enum Fault {
    /// The template's own `raise_exception`.
    Raised(String),
    /// What Python would raise.
    Error {
        message: String,
        line: Option<usize>,
    },
    Limit(Limit),
}

/// What a template used too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Bytes of template source.
    Source,
    /// Bytes of messages and other variables.
    Input,
    /// Steps, and bytes made or read.
    Work,
    /// Nesting of blocks, expressions, calls or values.
    Depth,
    /// Bytes of one string or of the prompt.
    Output,
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Source => "source size",
            Self::Input => "input size",
            Self::Work => "work",
            Self::Depth => "nesting",
            Self::Output => "text size",
        })
    }
}

impl Fault {
    pub(super) fn error(message: impl Into<String>) -> Self {
        Self::Error { message: message.into(), line: None }
    }

    pub(super) fn at(self, at: usize) -> Self {
        match self {
            Self::Error { message, line: None } => Self::Error { message, line: Some(at) },
            other => other,
        }
    }
}
