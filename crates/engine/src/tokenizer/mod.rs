//! Text to tokens and back, from the vocabulary in a GGUF file's metadata.
//! Does not own chat templates, nor what an engine does with a token; knows no tensor.
//!
//! Token ids agree with llama.cpp's, but for one thing: plain text never becomes a control token.

mod bpe;
mod charsmap;
mod classes;
mod detokenizer;
mod error;
mod index;
mod merge;
mod merges;
mod pretokenize;
mod roles;
mod rules;
mod special;
mod spm;
mod trie;
mod unigram;
mod vocab;
mod wordpiece;
mod words;

#[cfg(test)]
mod infill_tests;
#[cfg(test)]
mod split_tests;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

pub use detokenizer::Detokenizer;
pub use error::TokenizerError;
pub use roles::InfillTokens;
pub use special::Special;
pub use vocab::TokenKind;

use crate::weights::gguf::Metadata;
use bpe::{Bpe, letter_byte};
use pretokenize::{Alphabet, PreTokenizer};
use roles::{Defaults, Roles};
use special::{Fragment, SpecialTokens};
use spm::Spm;
use unigram::Unigram;
use vocab::Vocab;
use wordpiece::WordPiece;

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
const ADD_SPACE: &str = "tokenizer.ggml.add_space_prefix";

/// Longer texts are encoded in pieces of this many bytes, so that positions fit 32 bits.
const LONGEST_TEXT_BYTES: usize = 1 << 30;

/// Text to tokens and back.
pub struct Tokenizer {
    vocab: Vocab,
    model: Model,
    roles: Roles,
    special: SpecialTokens,
    begin: Option<u32>,
    end: Option<u32>,
    add_space: bool,
    strip_space: bool,
    warnings: Vec<String>,
}

/// The kinds of vocabularies that `tokenizer.ggml.model` names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bpe,
    Gemma4,
    Spm,
    WordPiece,
    Unigram,
}

impl Kind {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "gpt2" => Self::Bpe,
            "gemma4" => Self::Gemma4,
            "llama" => Self::Spm,
            "bert" => Self::WordPiece,
            "t5" => Self::Unigram,
            _ => return None,
        })
    }

    fn defaults(self) -> Defaults {
        let none = Defaults::default();
        match self {
            Self::Bpe | Self::Gemma4 => none,
            Self::Spm => Defaults { bos: Some(1), eos: Some(2), unknown: Some(0), ..none },
            Self::WordPiece => {
                Defaults { bos: Some(101), unknown: Some(100), separator: Some(102), padding: Some(0), mask: Some(103), ..none }
            }
            Self::Unigram => Defaults { eos: Some(1), unknown: Some(2), padding: Some(0), ..none },
        }
    }
}

enum Model {
    Bpe(Box<Bpe>),
    Spm(Box<Spm>),
    WordPiece(Box<WordPiece>),
    Unigram(Box<Unigram>),
}

impl Tokenizer {
    /// Reads the vocabulary.
    pub fn from_metadata(m: &Metadata) -> Result<Self, TokenizerError> {
        let name = m.string(MODEL)?.ok_or_else(|| m.missing(MODEL))?;
        let mut warnings = Vec::new();
        let kind = Kind::named(name).ok_or_else(|| TokenizerError::UnknownModel { found: name.to_owned() })?;
        let mut vocab = Vocab::read(m, matches!(kind, Kind::Spm | Kind::Unigram))?;
        vocab.check_byte_tokens()?;
        if vocab.n_duplicates() > 0 {
            let n = vocab.n_duplicates();
            warnings.push(format!("{n} tokens have the spelling of another; the last of them is used"));
        }
        let roles = Roles::read(m, &mut vocab, kind.defaults())?;
        let special = SpecialTokens::new(m, &vocab, &roles)?;
        let add_space = m.boolean(ADD_SPACE)?.unwrap_or(kind == Kind::Spm);
        let mut add_bos = matches!(kind, Kind::Spm | Kind::WordPiece);
        let mut needs_bos = false;
        let model = match kind {
            Kind::Spm => Model::Spm(Box::new(Spm::new(&vocab, roles.unknown))),
            Kind::WordPiece => Model::WordPiece(Box::new(WordPiece::read(m, &vocab, roles.unknown)?)),
            Kind::Unigram => Model::Unigram(Box::new(Unigram::read(m, &vocab, roles.unknown, add_space)?)),
            Kind::Bpe | Kind::Gemma4 => {
                let pre = pre_tokenizer(m, kind, &mut warnings)?;
                (add_bos, needs_bos) = (pre.add_bos, pre.is_gemma4);
                let merges_optional = m.string(PRE)? == Some("kimi-k2");
                Model::Bpe(Box::new(Bpe::read(m, &vocab, pre, merges_optional)?))
            }
        };
        // Files of Gemma 4 that say it needs none are wrong.
        let add_bos = m.boolean(ADD_BOS)?.unwrap_or(add_bos) || needs_bos;
        let add_eos = m.boolean(ADD_EOS)?.unwrap_or(kind == Kind::Unigram);
        let end = if kind == Kind::WordPiece { roles.separator } else { roles.eos.filter(|_| add_eos) };
        Ok(Self {
            begin: roles.bos.filter(|_| add_bos),
            end,
            strip_space: add_space || kind == Kind::WordPiece,
            vocab,
            model,
            roles,
            special,
            add_space,
            warnings,
        })
    }

    /// Appends the tokens of `text` to `out`, without a beginning or end of text.
    pub fn encode(&self, text: &str, special: Special, out: &mut Vec<u32>) {
        self.encode_parts(text, special, true, out);
    }

    /// As [`Tokenizer::encode`] of plain text that stands within another: no space is added before it.
    pub fn encode_within(&self, text: &str, out: &mut Vec<u32>) {
        self.encode_parts(text, Special::Plain, false, out);
    }

    fn encode_parts(&self, text: &str, special: Special, begins: bool, out: &mut Vec<u32>) {
        let mut rest = text;
        while rest.len() > LONGEST_TEXT_BYTES {
            let (head, tail) = rest.split_at(rest.floor_char_boundary(LONGEST_TEXT_BYTES));
            self.encode_part(head, special, begins, out);
            rest = tail;
        }
        self.encode_part(rest, special, begins, out);
    }

    /// `begins`: where words begin with a space, one is added before the text.
    fn encode_part(&self, text: &str, special: Special, begins: bool, out: &mut Vec<u32>) {
        let mut after_special = begins;
        for fragment in self.special.partition(&self.vocab, text, special) {
            let text = match fragment {
                Fragment::Token(id) => {
                    out.push(id);
                    after_special = true;
                    continue;
                }
                Fragment::Text(range) => &text[range],
            };
            match &self.model {
                Model::Bpe(bpe) => bpe.encode(&self.vocab, text, out),
                Model::WordPiece(wordpiece) => wordpiece.encode(text, out),
                Model::Unigram(unigram) => unigram.encode(&self.vocab, text, out),
                Model::Spm(spm) => {
                    spm.encode(&self.vocab, text, self.add_space && after_special, out);
                }
            }
            after_special = false;
        }
    }

    /// The bytes that `id` stands for: the spelling of special tokens, nothing for unused ones.
    /// `None` if there is no such token.
    pub fn token_bytes(&self, id: u32) -> Option<Cow<'_, [u8]>> {
        let kind = self.kind(id)?;
        let piece = self.vocab.piece(id);
        Some(match kind {
            TokenKind::Control | TokenKind::Unknown | TokenKind::UserDefined => piece.into(),
            TokenKind::Byte => Vocab::byte(piece).into_iter().collect::<Vec<u8>>().into(),
            TokenKind::Unused | TokenKind::Undefined => Cow::Borrowed(&[]),
            TokenKind::Normal => match &self.model {
                Model::Bpe(bpe) if bpe.alphabet() == Alphabet::Bytes => letter_bytes(piece),
                Model::Bpe(bpe) if bpe.alphabet() == Alphabet::Text => piece.into(),
                _ => unescaped(piece),
            },
        })
    }

    /// The bytes of `ids`. The inverse of `encode`: a space that encoding added is taken away.
    pub fn decode(&self, ids: &[u32], skip_control: bool) -> Vec<u8> {
        let mut text = Vec::new();
        let mut strip_space = self.strip_space;
        for &id in ids {
            if skip_control && self.kind(id) == Some(TokenKind::Control) {
                continue;
            }
            let Some(bytes) = self.token_bytes(id) else { continue };
            let mut bytes = &bytes[..];
            if strip_space && !bytes.is_empty() {
                strip_space = false;
                bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
            }
            text.extend_from_slice(bytes);
        }
        text
    }

    /// Whether a beginning-of-text token belongs before a text.
    pub fn add_bos(&self) -> bool {
        self.begin.is_some()
    }

    /// Whether a token belongs after a text: see [`Tokenizer::end`].
    pub fn add_eos(&self) -> bool {
        self.end.is_some()
    }

    /// The token that belongs before a text, if one does.
    pub fn begin(&self) -> Option<u32> {
        self.begin
    }

    /// The token that belongs after a text, if one does: end of text, or BERT's separator.
    pub fn end(&self) -> Option<u32> {
        self.end
    }

    /// The beginning-of-text token.
    pub fn bos(&self) -> Option<u32> {
        self.roles.bos
    }

    /// The end-of-text token.
    pub fn eos(&self) -> Option<u32> {
        self.roles.eos
    }

    /// The end-of-turn token.
    pub fn eot(&self) -> Option<u32> {
        self.roles.eot
    }

    /// The end-of-message token, after which a tool answers.
    pub fn eom(&self) -> Option<u32> {
        self.roles.eom
    }

    /// The token for text that has none.
    pub fn unknown(&self) -> Option<u32> {
        self.roles.unknown
    }

    /// The token between two texts.
    pub fn separator(&self) -> Option<u32> {
        self.roles.separator
    }

    /// The padding token.
    pub fn padding(&self) -> Option<u32> {
        self.roles.padding
    }

    /// The token that hides a word.
    pub fn mask(&self) -> Option<u32> {
        self.roles.mask
    }

    /// The tokens that ask for what is missing between two texts, if the model knows such a question.
    pub fn infill(&self) -> Option<InfillTokens> {
        self.roles.infill
    }

    /// Whether generation ends with `id`.
    pub fn is_end_of_generation(&self, id: u32) -> bool {
        self.roles.end_of_generation.binary_search(&id).is_ok()
    }

    /// The tokens with which generation ends, ascending.
    pub fn end_of_generation(&self) -> &[u32] {
        &self.roles.end_of_generation
    }

    /// Number of tokens; ids are below it.
    pub fn n_vocab(&self) -> usize {
        self.vocab.len()
    }

    /// What `id` is for. `None` if there is no such token.
    pub fn kind(&self, id: u32) -> Option<TokenKind> {
        ((id as usize) < self.vocab.len()).then(|| self.vocab.kind(id))
    }

    /// The spelling of `id` in the vocabulary. `None` if there is no such token, or it is not
    /// UTF-8.
    pub fn piece(&self, id: u32) -> Option<&str> {
        self.kind(id)?;
        std::str::from_utf8(self.vocab.piece(id)).ok()
    }

    /// The token with this spelling in the vocabulary.
    pub fn token_id(&self, piece: &str) -> Option<u32> {
        self.vocab.find(piece.as_bytes())
    }

    /// The spellings that mean something only where special tokens are parsed. Text of a user
    /// may contain them.
    pub fn control_spellings(&self) -> impl Iterator<Item = &str> {
        self.special.parsed_only().filter_map(|id| self.piece(id))
    }

    /// What is odd about the vocabulary, for people.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

fn pre_tokenizer(m: &Metadata, kind: Kind, warnings: &mut Vec<String>) -> Result<PreTokenizer, TokenizerError> {
    let name = match m.string(PRE)? {
        _ if kind == Kind::Gemma4 => "gemma4",
        None | Some("") => {
            warnings.push(format!("{PRE} is missing, so that text is split by the default rules; answers may be worse"));
            "default"
        }
        Some(name) => name,
    };
    PreTokenizer::named(name).ok_or_else(|| TokenizerError::UnknownPre { found: name.to_owned() })
}

/// The bytes of a piece with one character for each byte. Other characters stand for themselves.
fn letter_bytes(piece: &[u8]) -> Cow<'_, [u8]> {
    if piece.iter().all(|byte| matches!(byte, 0x21..=0x7e)) {
        return piece.into();
    }
    let mut bytes = Vec::with_capacity(piece.len());
    for chunk in piece.utf8_chunks() {
        for c in chunk.valid().chars() {
            match letter_byte(c) {
                Some(byte) => bytes.push(byte),
                None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        bytes.extend_from_slice(chunk.invalid());
    }
    bytes.into()
}

/// The bytes of a piece that has U+2581 for spaces.
fn unescaped(piece: &[u8]) -> Cow<'_, [u8]> {
    const ESCAPED_SPACE: &[u8] = "\u{2581}".as_bytes();
    let mut rest = piece;
    let mut bytes = Vec::new();
    while let Some(at) = memchr::memmem::find(rest, ESCAPED_SPACE) {
        bytes.extend_from_slice(&rest[..at]);
        bytes.push(b' ');
        rest = &rest[at + ESCAPED_SPACE.len()..];
    }
    if bytes.is_empty() {
        return rest.into();
    }
    bytes.extend_from_slice(rest);
    bytes.into()
}
