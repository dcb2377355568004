//! Why a file's vocabulary cannot be used.

use crate::weights::gguf::GgufError;

/// Why the tokenizer that a file's metadata describes cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A key is missing or holds another type.
    #[error(transparent)]
    Metadata(#[from] GgufError),
    /// `tokenizer.ggml.model` names a kind of vocabulary that this engine does not know.
    #[error("tokenizer.ggml.model is {found:?}, expected one of: bert, gemma4, gpt2, llama, t5")]
    UnknownModel {
        /// The name in the file.
        found: String,
    },
    /// `tokenizer.ggml.pre` names split rules that this engine does not know.
    #[error("tokenizer.ggml.pre is {found:?}, which is no pre-tokenizer that this engine knows")]
    UnknownPre {
        /// The name in the file.
        found: String,
    },
    /// Two arrays that describe the same tokens have different lengths.
    #[error("{key} has {found} elements, expected {expected}, one for each token")]
    LengthsDiffer {
        /// The key of the shorter or longer array.
        key: &'static str,
        /// Its length.
        found: usize,
        /// The number of tokens.
        expected: usize,
    },
    /// There are no tokens, or more than token ids or memory offsets can count.
    #[error("the vocabulary has {n_tokens} tokens of {n_bytes} bytes, expected 1 to 2^31 of each")]
    Size {
        /// Number of tokens.
        n_tokens: usize,
        /// Their length in bytes together.
        n_bytes: usize,
    },
    /// A WordPiece or Unigram vocabulary is too large to be searched.
    #[error("the tokens have more than 2^24 different beginnings together")]
    TooManyPrefixes,
    /// A special token's id is not in the vocabulary.
    #[error("{key} is {found}, but the vocabulary has only {n_tokens} tokens")]
    IdOutOfRange {
        /// The key of the special token.
        key: &'static str,
        /// The id in the file.
        found: u64,
        /// Number of tokens.
        n_tokens: usize,
    },
    /// A token of type BYTE is not spelled `<0x00>` to `<0xFF>`.
    #[error("token {id} is a byte token, but is spelled {piece:?}, expected <0x00> to <0xFF>")]
    BrokenByteToken {
        /// Its id.
        id: u32,
        /// Its spelling.
        piece: String,
    },
    /// A merge is not two pieces with a space between them.
    #[error("merge {index} is {merge:?}, expected two pieces with a space between them")]
    BrokenMerge {
        /// Its position in `tokenizer.ggml.merges`.
        index: usize,
        /// The merge.
        merge: String,
    },
    /// The precompiled character map of a Unigram vocabulary contradicts itself.
    #[error("tokenizer.ggml.precompiled_charsmap is corrupt: {reason}")]
    BrokenCharsmap {
        /// What is wrong with it.
        reason: &'static str,
    },
}
