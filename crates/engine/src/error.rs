//! Everything that can go wrong in the engine, named where it happens.

use crate::chat_template::TemplateError;
use crate::tokenizer::TokenizerError;
use crate::weights::GgufError;
use crate::weights::gguf::shown;

/// An error of the engine. One lower-case sentence each; the source is kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is missing, unreadable, truncated, corrupt, or of a version or type that is not read.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// `general.architecture` is none of the table.
    #[error("architecture {} is not supported; known are {known}", shown(found))]
    UnsupportedArchitecture {
        /// What the file says.
        found: String,
        /// The rows of the table.
        known: String,
    },
    /// A metadata key is missing or out of range.
    #[error("metadata key `{key}`: found {found}, expected {expected}")]
    Key {
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// The values that work.
        expected: String,
    },
    /// A tensor is missing or has a shape that contradicts the metadata.
    #[error("tensor `{name}`: found {found}, expected {expected}")]
    Tensor {
        /// The tensor.
        name: String,
        /// Its shape, or that it is missing.
        found: String,
        /// The shape that the metadata calls for.
        expected: String,
    },
    /// A tensor has an element type that the engine does not compute with.
    #[error("tensor `{name}` has element type {found}, which is not supported")]
    UnsupportedType {
        /// The tensor.
        name: String,
        /// The type by ggml's name.
        found: String,
    },
    /// The tokenizer cannot be built.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The chat template does not compile, refuses the messages, or exceeds a limit.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A message has a part that this model cannot take.
    #[error("a message has a part of type {found}; this model takes text alone")]
    Content {
        /// The type of the part.
        found: String,
    },
    /// A folder of several files cannot be used as a model.
    #[error(transparent)]
    Folder(#[from] crate::embedder::FolderError),
    /// A text has more tokens than its model has positions, and is not to be cut.
    #[error("the input of {needed} tokens exceeds the {limit} positions of the model")]
    InputTooLong {
        /// Tokens of the text.
        needed: usize,
        /// Tokens it may have.
        limit: usize,
    },
    /// A list of token ids has none.
    #[error("the input has no token ids")]
    EmptyInput,
    /// The tokenizer refuses a text.
    #[error("the input cannot be read: {0}")]
    Unreadable(String),
    /// NaN or infinity in a vector.
    #[error("a vector is not finite: the weights or the computation are broken")]
    NonFiniteVector,
    /// A file beside the model, such as a chat template, cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// An allocation failed.
    #[error("cannot allocate {bytes} bytes for {what}")]
    OutOfMemory {
        /// What the memory was for.
        what: &'static str,
        /// How much.
        bytes: u64,
    },
    /// The KV pool has no free block left.
    #[error("the context of {positions} positions is full")]
    ContextFull {
        /// Positions of the pool.
        positions: usize,
    },
    /// NaN or infinity in the logits.
    #[error("the logits after position {pos} are not finite: the weights or the computation are broken")]
    NonFinite {
        /// Position of the token that was fed.
        pos: usize,
    },
    /// A token id outside the vocabulary.
    #[error("token id {id} is outside the vocabulary of {n_vocab}")]
    TokenId {
        /// The id.
        id: u32,
        /// Entries of the vocabulary.
        n_vocab: usize,
    },
    /// A sampling parameter is out of range.
    #[error(transparent)]
    Sampling(#[from] crate::sampler::InvalidParameter),
    /// What the answer is to look like cannot be done: a bad schema or grammar, or one that is too large.
    #[error("{what}: {reason}")]
    Format {
        /// Where the fault is: `response_format`, `tools` or `tool_choice`.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The model cannot do what is asked.
    #[error("{reason}")]
    CannotDo {
        /// Why.
        reason: String,
    },
    /// A grammar allowed no token.
    #[error(transparent)]
    Constraint(#[from] crate::sampler::ConstraintError),
    /// The device is not built in or not there.
    #[error("device {device} is not available: {reason}")]
    DeviceUnavailable {
        /// The device asked for.
        device: String,
        /// Why it cannot be had.
        reason: String,
    },
    /// A device failed, as candle reports it.
    #[error("device error: {0}")]
    Candle(#[from] candle_core::Error),
}
