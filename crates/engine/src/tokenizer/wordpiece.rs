//! WordPiece, as BERT uses it: words are cleaned, then cut into the longest known pieces.

use unicode_normalization_alignments::char::decompose_canonical;

use super::TokenizerError;
use super::classes::{CONTROL, Classes, MARK, PUNCTUATION, SPACE, SYMBOL};
use super::trie::Trie;
use super::vocab::Vocab;
use crate::weights::gguf::Metadata;

const LOWERCASE: &str = "tokenizer.ggml.normalizer.lowercase";
const STRIP_ACCENTS: &str = "tokenizer.ggml.normalizer.strip_accents";

/// Stands at the beginning of a word; pieces without it continue one.
const WORD_START: &str = "\u{2581}";

/// The pieces of a WordPiece vocabulary and how text is cleaned for it.
pub(super) struct WordPiece {
    pieces: Trie,
    unknown: Option<u32>,
    lowercase: bool,
    strip_accents: bool,
}

impl WordPiece {
    pub(super) fn read(m: &Metadata, vocab: &Vocab, unknown: Option<u32>) -> Result<Self, TokenizerError> {
        let plain = (0..vocab.len() as u32).filter(|&id| vocab.is_plain(id));
        let pieces = Trie::new(plain.map(|id| (id, vocab.piece(id))));
        let lowercase = m.boolean(LOWERCASE)?.unwrap_or(true);
        Ok(Self {
            pieces: pieces.ok_or(TokenizerError::TooManyPrefixes)?,
            unknown,
            lowercase,
            strip_accents: m.boolean(STRIP_ACCENTS)?.unwrap_or(lowercase),
        })
    }

    /// Appends the tokens of `text`.
    pub(super) fn encode(&self, text: &str, out: &mut Vec<u32>) {
        let classes = Classes::get();
        let mut word = String::from(WORD_START);
        for c in text.chars() {
            let c = if self.strip_accents { base(c) } else { c };
            let class = classes.of(c);
            if class & SPACE != 0 {
                self.word(&mut word, out);
                continue;
            }
            let dropped = c == '\0' || c == char::REPLACEMENT_CHARACTER || class & CONTROL != 0;
            if dropped || (self.strip_accents && class & MARK != 0) {
                continue;
            }
            let lower = if self.lowercase { c.to_lowercase().next().unwrap_or(c) } else { c };
            let alone = class & PUNCTUATION != 0 || (c.is_ascii() && class & SYMBOL != 0) || is_ideograph(c);
            if alone {
                self.word(&mut word, out);
                word.push(lower);
                self.word(&mut word, out);
            } else {
                word.push(lower);
            }
        }
        self.word(&mut word, out);
    }

    /// Appends the tokens of `word`, which begins with [`WORD_START`], and empties it.
    fn word(&self, word: &mut String, out: &mut Vec<u32>) {
        if word.len() == WORD_START.len() {
            return;
        }
        let start = out.len();
        let mut rest = word.as_bytes();
        while !rest.is_empty() {
            let Some((id, len)) = self.pieces.prefixes(rest).last() else {
                out.truncate(start);
                out.extend(self.unknown);
                break;
            };
            out.push(id);
            rest = &rest[len..];
        }
        word.truncate(WORD_START.len());
    }
}

/// The first character of the canonical decomposition of `c`: a letter without its accents.
fn base(c: char) -> char {
    let mut first = None;
    if !c.is_ascii() {
        decompose_canonical(c, |part| {
            first.get_or_insert(part);
        });
    }
    first.unwrap_or(c)
}

/// Each of these is a word. As in BERT's own tokenizer, extension E begins 256 characters late.
fn is_ideograph(c: char) -> bool {
    matches!(c,
        '\u{4e00}'..='\u{9fff}' | '\u{3400}'..='\u{4dbf}' | '\u{20000}'..='\u{2a6df}'
        | '\u{2a700}'..='\u{2b81f}' | '\u{2b920}'..='\u{2ceaf}' | '\u{f900}'..='\u{faff}'
        | '\u{2f800}'..='\u{2fa1f}')
}
