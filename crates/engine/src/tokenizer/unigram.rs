//! Unigram: of all ways to cut a text into pieces, the one with the highest sum of scores.

use super::TokenizerError;
use super::charsmap::Charsmap;
use super::trie::Trie;
use super::vocab::{TokenKind, Vocab};
use crate::weights::gguf::Metadata;

const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";
const REMOVE_EXTRA_SPACES: &str = "tokenizer.ggml.remove_extra_whitespaces";
const ESCAPED_SPACE: &str = "\u{2581}";

/// How much worse an unknown character is than the worst token.
const UNKNOWN_PENALTY: f32 = 10.0;

/// The pieces of a Unigram vocabulary and how text is normalized for it.
pub(super) struct Unigram {
    pieces: Trie,
    unknown: u32,
    unknown_score: f64,
    charsmap: Option<Charsmap>,
    merge_spaces: bool,
    space_first: bool,
}

/// The best way to cut a text up to some place: the last token and where it begins.
#[derive(Clone, Copy)]
struct Best {
    id: u32,
    start: u32,
    score: f64,
}

impl Unigram {
    pub(super) fn read(m: &Metadata, vocab: &Vocab, unknown: Option<u32>, space_first: bool) -> Result<Self, TokenizerError> {
        let ids = 0..vocab.len() as u32;
        let made_of_text = |&id: &u32| {
            let apart = matches!(vocab.kind(id), TokenKind::Byte | TokenKind::Undefined);
            vocab.is_plain(id) && !apart
        };
        let pieces = ids.clone().filter(made_of_text).map(|id| (id, vocab.piece(id)));
        let normal = ids.filter(|&id| vocab.kind(id) == TokenKind::Normal);
        let lowest = normal.map(|id| vocab.score(id)).fold(f32::MAX, f32::min);
        let charsmap = match m.ints(CHARSMAP)? {
            None => None,
            Some(bytes) => {
                let bytes: Vec<u8> = bytes.iter().map(|byte| byte as u8).collect();
                Some(Charsmap::read(&bytes)?)
            }
        };
        Ok(Self {
            pieces: Trie::new(pieces).ok_or(TokenizerError::TooManyPrefixes)?,
            unknown: unknown.unwrap_or(0),
            unknown_score: f64::from(lowest - UNKNOWN_PENALTY),
            charsmap,
            merge_spaces: m.boolean(REMOVE_EXTRA_SPACES)?.unwrap_or(false),
            space_first,
        })
    }

    /// Appends the tokens of `text`.
    pub(super) fn encode(&self, vocab: &Vocab, text: &str, out: &mut Vec<u32>) {
        let text = self.normalize(text);
        let nothing = Best { id: self.unknown, start: 0, score: f64::NEG_INFINITY };
        let mut best = vec![nothing; text.len() + 1];
        best[0].score = 0.0;
        let mut start = 0;
        while start < text.len() {
            let width = utf8_width(text[start]).min(text.len() - start);
            let mut offer = |len: usize, id: u32, score: f64| {
                let score = best[start].score + score;
                let champion = &mut best[start + len];
                if score > champion.score {
                    *champion = Best { id, start: start as u32, score };
                }
            };
            let mut known = false;
            for (id, len) in self.pieces.prefixes(&text[start..]) {
                known |= len == width;
                let user_defined = vocab.kind(id) == TokenKind::UserDefined;
                offer(len, id, if user_defined { 0.0 } else { f64::from(vocab.score(id)) });
            }
            if !known {
                offer(width, self.unknown, self.unknown_score);
            }
            start += width;
        }

        let first = out.len();
        let mut end = text.len();
        let mut after_unknown = false;
        while end > 0 {
            let Best { id, start, .. } = best[end];
            let unknown = id == self.unknown;
            // Unknown characters side by side are one token.
            if !(unknown && after_unknown) {
                out.push(id);
            }
            after_unknown = unknown;
            end = start as usize;
        }
        out[first..].reverse();
    }

    /// Replaces characters as the map says, and spaces by U+2581.
    fn normalize(&self, text: &str) -> Vec<u8> {
        let mut normalized = Vec::with_capacity(text.len() + text.len() / 2 + 3);
        let (mut in_word, mut led) = (false, false);
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let replaced = self.charsmap.as_ref().and_then(|map| map.replace(rest.as_bytes()));
            // A rule that ends within a character matches nothing in valid text.
            let replaced = replaced.filter(|(_, len)| rest.is_char_boundary(*len));
            let (bytes, len) = replaced.unwrap_or((&rest.as_bytes()[..c.len_utf8()], c.len_utf8()));
            for &byte in bytes {
                if byte == b' ' {
                    in_word = false;
                    if !self.merge_spaces {
                        normalized.extend_from_slice(ESCAPED_SPACE.as_bytes());
                    }
                    continue;
                }
                if !in_word && (self.merge_spaces || (self.space_first && !led)) {
                    normalized.extend_from_slice(ESCAPED_SPACE.as_bytes());
                    led = true;
                }
                in_word = true;
                normalized.push(byte);
            }
            rest = &rest[len..];
        }
        normalized
    }
}

/// The width of a character by its first byte; of what is none, 1.
fn utf8_width(first: u8) -> usize {
    match first {
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0.. => 4,
        _ => 1,
    }
}
