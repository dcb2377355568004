//! A model's vocabulary as a trie of bytes, for masks.

use std::sync::Arc;

use llguidance::ParserFactory;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{ApproximateTokEnv, INVALID_TOKEN, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};

use super::MAX_LEXER_STATES;
use crate::tokenizer::{TokenKind, Tokenizer};

/// Longer tokens are never drawn under a grammar: the trie has 10 bits for their depth.
const MAX_TOKEN_BYTES: usize = 1000;
/// The trie has 22 bits for its size.
const MAX_TRIE_BYTES: usize = (1 << 22) - 1024;

/// What compiles grammars for this vocabulary; or why it cannot be used.
pub(super) fn factory(tokenizer: &Tokenizer) -> Result<ParserFactory, String> {
    let env = token_env(tokenizer)?;
    let caps = InferenceCapabilities { ff_tokens: false, conditional_ff_tokens: false, backtrack: false, fork: false };
    let mut factory = ParserFactory::new(&env, caps, &SlicedBiasComputer::general_slices()).map_err(|error| format!("{error:#}"))?;
    factory.quiet();
    let limits = factory.limits_mut();
    limits.verbose_errors = false;
    limits.max_lexer_states = MAX_LEXER_STATES;
    Ok(factory)
}

fn token_env(tokenizer: &Tokenizer) -> Result<TokEnv, String> {
    let ids = 0..tokenizer.n_vocab() as u32;
    let words: Vec<Vec<u8>> = ids.map(|id| word(tokenizer, id)).collect();
    let n_bytes: usize = words.iter().map(Vec::len).sum();
    if n_bytes > MAX_TRIE_BYTES {
        return Err(format!("the tokens of this model have {n_bytes} bytes together, and a grammar works with {MAX_TRIE_BYTES}"));
    }
    let ends = tokenizer.end_of_generation();
    let info = TokRxInfo::new(words.len() as u32, ends.first().copied().unwrap_or(INVALID_TOKEN));
    let trie = TokTrie::from(&info, &words);
    let trie = if ends.is_empty() { trie } else { trie.with_eos_tokens(ends) };
    Ok(Arc::new(ApproximateTokEnv::new(trie)))
}

/// The bytes of a token; those of control tokens begin with a byte that no text has, so that text cannot spell them.
fn word(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    let special = |name: &[u8]| [&[TokTrie::SPECIAL_TOKEN_MARKER], name].concat();
    let is_end = tokenizer.is_end_of_generation(id);
    match tokenizer.kind(id) {
        Some(TokenKind::Control | TokenKind::Unknown) => special(format!("[{id}]").as_bytes()),
        _ if is_end => special(format!("[{id}]").as_bytes()),
        Some(TokenKind::Normal | TokenKind::UserDefined | TokenKind::Byte) => {
            let bytes = tokenizer.token_bytes(id).unwrap_or_default();
            let looks_special = bytes.len() > 1 && bytes[0] == TokTrie::SPECIAL_TOKEN_MARKER;
            if looks_special || bytes.len() > MAX_TOKEN_BYTES { Vec::new() } else { bytes.into_owned() }
        }
        Some(TokenKind::Unused | TokenKind::Undefined) | None => Vec::new(),
    }
}
