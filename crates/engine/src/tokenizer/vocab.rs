//! The tokens of a vocabulary: spelling, type, score, and the way back from a spelling.
//! Spellings are copied out of the file, so that a file that changes cannot break look-ups.

use super::TokenizerError;
use super::index::{Index, Query};
use crate::weights::gguf::Metadata;

const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const TYPES: &str = "tokenizer.ggml.token_type";

/// What a token is for, as `tokenizer.ggml.token_type` numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Part of ordinary text.
    Normal,
    /// Stands for text that has no token.
    Unknown,
    /// Steers a model, such as `<|im_end|>`; is never made from text of a user.
    Control,
    /// Added to the vocabulary; matched whole, before anything else.
    UserDefined,
    /// Not used.
    Unused,
    /// One byte, spelled `<0xNN>`.
    Byte,
    /// Of no known type.
    Undefined,
}

impl TokenKind {
    fn numbered(number: i32) -> Self {
        match number {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => Self::Undefined,
        }
    }
}

/// The tokens of a vocabulary, by id and by spelling.
pub(super) struct Vocab {
    text: Vec<u8>,
    /// Where each spelling ends in `text`; it begins where the one before ends.
    ends: Vec<u32>,
    kinds: Vec<TokenKind>,
    /// Whether the file says that ordinary text may become this token. A spelling that gives a
    /// token a role does not take it away: `</s>` is ordinary text to some models.
    plain: Vec<bool>,
    scores: Vec<f32>,
    index: Index,
    longest_bytes: usize,
    n_duplicates: usize,
}

impl Vocab {
    /// Reads tokens, types and, if `scored`, scores.
    pub(super) fn read(m: &Metadata, scored: bool) -> Result<Self, TokenizerError> {
        let tokens = m.strings(TOKENS)?.ok_or_else(|| m.missing(TOKENS))?;
        let n_tokens = tokens.len();
        let expect = |key, found| {
            let same = found == n_tokens;
            same.then_some(()).ok_or(TokenizerError::LengthsDiffer { key, found, expected: n_tokens })
        };
        let kinds = match m.ints(TYPES)? {
            None => vec![TokenKind::Normal; n_tokens],
            Some(types) => {
                expect(TYPES, types.len())?;
                types.iter().map(TokenKind::numbered).collect()
            }
        };
        let scores = if scored {
            let scores = m.floats(SCORES)?.ok_or_else(|| m.missing(SCORES))?;
            expect(SCORES, scores.len())?;
            scores.iter().collect()
        } else {
            Vec::new()
        };

        let n_bytes = tokens.iter().map(<[u8]>::len).sum::<usize>();
        // An empty spelling is replaced by a longer one, so the sum alone does not bound `text`.
        if n_tokens == 0 || n_tokens.max(n_bytes) > 1 << 30 {
            return Err(TokenizerError::Size { n_tokens, n_bytes });
        }
        let mut text = Vec::with_capacity(n_bytes);
        let mut ends = Vec::with_capacity(n_tokens);
        for (id, token) in tokens.iter().enumerate() {
            if token.is_empty() {
                text.extend_from_slice(format!("[EMPTY_{id}]").as_bytes());
            } else {
                text.extend_from_slice(token);
            }
            let end = u32::try_from(text.len());
            ends.push(end.map_err(|_| TokenizerError::Size { n_tokens, n_bytes })?);
        }
        let steers = |kind: &TokenKind| matches!(kind, TokenKind::Control | TokenKind::Unknown);
        let mut vocab = Self {
            text,
            ends,
            plain: kinds.iter().map(|kind| !steers(kind)).collect(),
            kinds,
            scores,
            index: Index::for_spellings(n_tokens),
            longest_bytes: 0,
            n_duplicates: 0,
        };
        vocab.fill_index();
        Ok(vocab)
    }

    /// Fills `index`. Of tokens with one spelling the last is found.
    fn fill_index(&mut self) {
        for id in 0..self.ends.len() as u32 {
            let spelled = |id: u32| spelling(&self.text, &self.ends, id as usize);
            let piece = spelled(id);
            self.longest_bytes = self.longest_bytes.max(piece.len());
            let query = self.index.query(piece);
            let there = self.index.insert(query, id, |other| spelled(other) == piece);
            self.n_duplicates += usize::from(there);
        }
    }

    /// Number of tokens, at most 2^30.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Tokens whose spelling another token has too.
    pub(super) fn n_duplicates(&self) -> usize {
        self.n_duplicates
    }

    /// The length of the longest spelling.
    pub(super) fn longest_bytes(&self) -> usize {
        self.longest_bytes
    }

    /// The spelling of `id`, which is below `len`.
    pub(super) fn piece(&self, id: u32) -> &[u8] {
        spelling(&self.text, &self.ends, id as usize)
    }

    /// The type of `id`, which is below `len`.
    pub(super) fn kind(&self, id: u32) -> TokenKind {
        self.kinds[id as usize]
    }

    pub(super) fn set_kind(&mut self, id: u32, kind: TokenKind) {
        self.kinds[id as usize] = kind;
    }

    /// Makes `id` a control token that no ordinary text becomes, whatever the file says.
    pub(super) fn reserve(&mut self, id: u32) {
        self.set_kind(id, TokenKind::Control);
        self.plain[id as usize] = false;
    }

    /// The score of `id`, or 0 where the vocabulary was read without scores.
    pub(super) fn score(&self, id: u32) -> f32 {
        self.scores.get(id as usize).copied().unwrap_or(0.0)
    }

    /// The token that is spelled `piece`, whatever its type.
    pub(super) fn find(&self, piece: &[u8]) -> Option<u32> {
        if piece.len() > self.longest_bytes {
            return None;
        }
        self.index.find(self.index.query(piece), |id| self.piece(id) == piece)
    }

    /// `piece` as [`Vocab::find_all`] looks for it.
    pub(super) fn query(&self, piece: &[u8]) -> Query {
        self.index.query(piece)
    }

    /// Appends to `found` the tokens with many spellings; see [`Index::find_all`].
    pub(super) fn find_all(&self, queries: &[Query], found: &mut Vec<Option<u32>>) {
        self.index.find_all(queries, found);
    }

    /// The token that ordinary text spelled `piece` may become: never one that steers a model.
    pub(super) fn find_text(&self, piece: &[u8]) -> Option<u32> {
        self.find(piece).filter(|&id| self.is_plain(id))
    }

    /// Whether ordinary text may become `id`, which is below `len`.
    pub(super) fn is_plain(&self, id: u32) -> bool {
        self.plain[id as usize]
    }

    /// The byte that `<0xNN>` stands for.
    pub(super) fn byte(piece: &[u8]) -> Option<u8> {
        let [b'<', b'0', b'x', high, low, b'>'] = piece else { return None };
        let digit = |c: &u8| char::from(*c).to_digit(16);
        u8::try_from(digit(high)? * 16 + digit(low)?).ok()
    }

    /// The token spelled `<0xNN>` for each byte.
    pub(super) fn byte_tokens(&self) -> [Option<u32>; 256] {
        std::array::from_fn(|byte| self.find(format!("<0x{byte:02X}>").as_bytes()))
    }

    /// Checks that each token of type BYTE is spelled as one.
    pub(super) fn check_byte_tokens(&self) -> Result<(), TokenizerError> {
        let ids = (0..self.ends.len() as u32).filter(|&id| self.kind(id) == TokenKind::Byte);
        for id in ids {
            let piece = self.piece(id);
            if Self::byte(piece).is_none() {
                return Err(TokenizerError::BrokenByteToken { id, piece: shown(piece) });
            }
        }
        Ok(())
    }
}

fn spelling<'v>(text: &'v [u8], ends: &[u32], id: usize) -> &'v [u8] {
    let start = if id == 0 { 0 } else { ends[id - 1] as usize };
    &text[start..ends[id] as usize]
}

/// Text of a file for an error message: cut, and with anything that is not UTF-8 replaced.
pub(super) fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(80)]).into_owned()
}
