//! Finding special tokens in a text: the text is cut at each of them before anything else.

use std::ops::Range;

use super::roles::Roles;
use super::vocab::{TokenKind, Vocab};
use crate::weights::gguf::{GgufError, Metadata};

/// What the spellings of special tokens in a text mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// Those of control tokens are plain text; only user-defined tokens are matched. For text
    /// that a user or a tool wrote.
    Plain,
    /// All are matched. For what a chat template wrote.
    Parse,
}

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fragment {
    /// Ordinary text, by its bytes.
    Text(Range<usize>),
    /// A special token.
    Token(u32),
}

/// The special tokens of a vocabulary, the longest first.
pub(super) struct SpecialTokens(Vec<Token>);

struct Token {
    id: u32,
    /// The first two bytes of its spelling, or only one.
    head: (u8, Option<u8>),
    /// Matched in plain text too.
    plain: bool,
    /// White space before it belongs to it.
    strips_left: bool,
    /// White space after it belongs to it.
    strips_right: bool,
}

impl SpecialTokens {
    /// `vocab` has its final types.
    pub(super) fn new(m: &Metadata, vocab: &Vocab, roles: &Roles) -> Result<Self, GgufError> {
        use TokenKind::{Control, Unknown, UserDefined};
        let strips = Strips::named(m)?;
        let ids = 0..vocab.len() as u32;
        let special = |&id: &u32| matches!(vocab.kind(id), Control | UserDefined | Unknown);
        let token = |id| {
            let piece = vocab.piece(id);
            let user_defined = vocab.kind(id) == UserDefined;
            Token {
                id,
                head: (piece[0], piece.get(1).copied()),
                plain: user_defined && !roles.markers.contains(&id),
                strips_left: strips.left(piece),
                strips_right: strips.right(piece),
            }
        };
        let mut tokens: Vec<Token> = ids.filter(special).map(token).collect();
        tokens.sort_by_key(|token| std::cmp::Reverse(vocab.piece(token.id).len()));
        Ok(Self(tokens))
    }

    /// The ids of tokens that are matched only where special tokens are parsed.
    pub(super) fn parsed_only(&self) -> impl Iterator<Item = u32> {
        self.0.iter().filter(|token| !token.plain).map(|token| token.id)
    }

    /// Cuts `text` at special tokens. As llama.cpp does it, each token is looked for in all of
    /// the text that longer ones left, so that the longest wins even where a shorter one begins
    /// before it.
    pub(super) fn partition(&self, vocab: &Vocab, text: &str, special: Special) -> Vec<Fragment> {
        if text.is_empty() {
            return Vec::new();
        }
        let bytes = text.as_bytes();
        let present = Bigrams::of(bytes);
        let mut fragments = vec![Fragment::Text(0..text.len())];
        for token in &self.0 {
            if special == Special::Plain && !token.plain {
                continue;
            }
            let piece = vocab.piece(token.id);
            if present.may_contain(token.head, piece) {
                token.cut(piece, bytes, &mut fragments);
            }
        }
        fragments
    }
}

impl Token {
    fn cut(&self, piece: &[u8], text: &[u8], fragments: &mut Vec<Fragment>) {
        let finder = memchr::memmem::Finder::new(piece);
        let found = |fragment: &Fragment| match fragment {
            Fragment::Text(range) => finder.find(&text[range.clone()]).is_some(),
            Fragment::Token(_) => false,
        };
        let Some(first) = fragments.iter().position(found) else { return };
        let rest = fragments.split_off(first);
        for fragment in rest {
            let Fragment::Text(Range { mut start, end }) = fragment else {
                fragments.push(fragment);
                continue;
            };
            while let Some(at) = finder.find(&text[start..end]) {
                let before = &text[start..start + at];
                let kept = if self.strips_left { trim_end(before) } else { before };
                if !kept.is_empty() {
                    fragments.push(Fragment::Text(start..start + kept.len()));
                }
                fragments.push(Fragment::Token(self.id));
                start += at + piece.len();
                if self.strips_right {
                    start = end - trim_start(&text[start..end]).len();
                }
            }
            if start < end {
                fragments.push(Fragment::Text(start..end));
            }
        }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ')
}

fn trim_end(mut text: &[u8]) -> &[u8] {
    while let [rest @ .., last] = text
        && is_space(*last)
    {
        text = rest;
    }
    text
}

fn trim_start(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text
        && is_space(*first)
    {
        text = rest;
    }
    text
}

/// Which two bytes stand side by side in a text: rules out most of thousands of special tokens
/// without searching for them.
struct Bigrams(Vec<u64>);

impl Bigrams {
    fn of(text: &[u8]) -> Self {
        let mut seen = vec![0; (1 << 16) / 64];
        for pair in text.windows(2) {
            let at = usize::from(pair[0]) << 8 | usize::from(pair[1]);
            seen[at / 64] |= 1 << (at % 64);
        }
        Self(seen)
    }

    fn contains(&self, first: u8, second: u8) -> bool {
        let at = usize::from(first) << 8 | usize::from(second);
        self.0[at / 64] >> (at % 64) & 1 == 1
    }

    fn may_contain(&self, head: (u8, Option<u8>), piece: &[u8]) -> bool {
        let (first, Some(second)) = head else { return true };
        self.contains(first, second) && piece.windows(2).all(|two| self.contains(two[0], two[1]))
    }
}

/// Which special tokens take the white space beside them. GGUF has no key for it, so that, as in
/// llama.cpp, the names of model, tokenizer and architecture tell.
enum Strips {
    No,
    /// `<mask>` or `[MASK]`, to its left.
    Mask(&'static [u8]),
    /// All but three of Phi-3's, to their right.
    Phi3,
}

impl Strips {
    fn named(m: &Metadata) -> Result<Self, GgufError> {
        let pre = m.string("tokenizer.ggml.pre")?.unwrap_or_default();
        let arch = m.string("general.architecture")?.unwrap_or_default();
        // A name that is no text is no name; the file is still usable.
        let name = m.string("general.name").ok().flatten().unwrap_or_default();
        let name = name.to_ascii_lowercase();
        let contains = |text: &str, names: &[&str]| names.iter().any(|name| text.contains(name));
        Ok(if contains(pre, &["jina-v2-de", "jina-v2-es", "jina-v2-code"]) || contains(arch, &["nomic-bert-moe", "jina-bert-v3"]) {
            Self::Mask(b"<mask>")
        } else if contains(&name, &["phi-3", "phi3"]) {
            Self::Phi3
        } else if name.contains("modern-bert") {
            Self::Mask(b"[MASK]")
        } else {
            Self::No
        })
    }

    fn left(&self, piece: &[u8]) -> bool {
        matches!(self, Self::Mask(mask) if *mask == piece)
    }

    fn right(&self, piece: &[u8]) -> bool {
        matches!(self, Self::Phi3) && !matches!(piece, b"<unk>" | b"<s>" | b"<|endoftext|>")
    }
}
