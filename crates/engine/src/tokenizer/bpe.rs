//! BPE by ranked merges: `gpt2` (one character for each byte) and `gemma4` (the text itself).
//! Does not split text into words; `pretokenize` does.

use std::sync::atomic::{AtomicU8, Ordering};

use super::TokenizerError;
use super::merge::{NO_ID, Scratch, Symbol, merge};
use super::merges::Merges;
use super::pretokenize::{Alphabet, PreTokenizer};
use super::vocab::Vocab;
use crate::weights::gguf::Metadata;

const MERGES: &str = "tokenizer.ggml.merges";

/// The merges of a vocabulary and the way from text to its first symbols.
pub(super) struct Bpe {
    pre: PreTokenizer,
    merges: Merges,
    /// The first symbol of each byte, for [`Alphabet::Bytes`].
    byte_symbols: [u32; 256],
    /// The token of each byte of a spelling that is no token.
    fallback: [Option<u32>; 256],
    whole: Whole,
}

/// Which tokens are what merging their own spelling gives: then a word that is spelled as the
/// token is the token, and need not be merged. Found out when a token is first met.
pub(super) struct Whole(Vec<AtomicU8>);

impl Whole {
    const YES: u8 = 1;
    const NO: u8 = 2;

    pub(super) fn new(n_tokens: usize) -> Self {
        Self((0..n_tokens).map(|_| AtomicU8::new(0)).collect())
    }

    /// `None` where it is not known yet.
    pub(super) fn get(&self, id: u32) -> Option<bool> {
        match self.0[id as usize].load(Ordering::Relaxed) {
            Self::YES => Some(true),
            Self::NO => Some(false),
            _ => None,
        }
    }

    /// Notes what merging the spelling of `id` gave.
    pub(super) fn set(&self, id: u32, merged: &[Symbol]) {
        let whole = matches!(merged, [only] if only.id == id);
        self.0[id as usize].store(if whole { Self::YES } else { Self::NO }, Ordering::Relaxed);
    }
}

impl Bpe {
    /// Reads the merges. `vocab` has its final types.
    pub(super) fn read(m: &Metadata, vocab: &Vocab, pre: PreTokenizer, merges_optional: bool) -> Result<Self, TokenizerError> {
        let merges = match m.strings(MERGES)? {
            Some(merges) => Merges::read(&merges, vocab)?,
            None if merges_optional => Merges::default(),
            None => return Err(m.missing(MERGES).into()),
        };
        let byte_symbols = std::array::from_fn(|byte| merges.symbol(vocab, letter(byte as u8)).unwrap_or(NO_ID));
        let fallback = match pre.alphabet {
            Alphabet::Bytes => std::array::from_fn(|byte| vocab.find_text(&[byte as u8])),
            Alphabet::Text | Alphabet::TextEscaped => vocab.byte_tokens(),
        };
        Ok(Self { pre, merges, byte_symbols, fallback, whole: Whole::new(vocab.len()) })
    }

    /// How this vocabulary's pieces stand for text.
    pub(super) fn alphabet(&self) -> Alphabet {
        self.pre.alphabet
    }

    /// Appends the tokens of `text`, in which special tokens were already found.
    pub(super) fn encode(&self, vocab: &Vocab, text: &str, out: &mut Vec<u32>) {
        let mut encoder = Encoder { bpe: self, vocab, scratch: Scratch::default(), symbols: vec![], letters: vec![] };
        if self.pre.alphabet == Alphabet::TextEscaped {
            let escaped = text.replace(' ', "\u{2581}");
            self.pre.split(&escaped, &mut |word| encoder.word(word.as_bytes(), out));
        } else {
            self.pre.split(text, &mut |word| encoder.word(word.as_bytes(), out));
        }
    }
}

struct Encoder<'b> {
    bpe: &'b Bpe,
    vocab: &'b Vocab,
    scratch: Scratch,
    symbols: Vec<Symbol>,
    letters: Vec<u8>,
}

impl Encoder<'_> {
    fn word(&mut self, word: &[u8], out: &mut Vec<u32>) {
        let whole = self.whole_word(word);
        if let Some(id) = whole
            && (self.bpe.pre.ignore_merges || self.bpe.whole.get(id) == Some(true))
        {
            out.push(id);
            return;
        }
        if let Some(id) = whole
            && self.bpe.pre.is_gemma4
            && word.iter().all(|&byte| byte == b'\n')
        {
            out.push(id);
            return;
        }
        self.first_symbols(word);
        merge(&mut self.symbols, &mut self.scratch, |left, right| self.bpe.merges.get(left.id, right.id));
        if let Some(id) = whole {
            self.bpe.whole.set(id, &self.symbols);
        }
        for symbol in &self.symbols {
            if (symbol.id as usize) < self.vocab.len() {
                out.push(symbol.id);
            } else {
                self.fall_back(word, symbol, out);
            }
        }
    }

    fn whole_word(&mut self, word: &[u8]) -> Option<u32> {
        if word.len() > self.vocab.longest_bytes() {
            return None;
        }
        if self.bpe.pre.alphabet != Alphabet::Bytes {
            return self.vocab.find_text(word);
        }
        self.letters.clear();
        for &byte in word {
            self.letters.extend_from_slice(letter(byte));
        }
        self.vocab.find_text(&self.letters)
    }

    fn first_symbols(&mut self, word: &[u8]) {
        self.symbols.clear();
        if self.bpe.pre.alphabet == Alphabet::Bytes {
            let symbols =
                word.iter().zip(0..).map(|(&byte, start)| Symbol { id: self.bpe.byte_symbols[usize::from(byte)], start, end: start + 1 });
            self.symbols.extend(symbols);
            return;
        }
        let mut start = 0;
        for chunk in word.utf8_chunks() {
            for c in chunk.valid().chars() {
                let end = start + c.len_utf8();
                let id = self.bpe.merges.symbol(self.vocab, &word[start..end]).unwrap_or(NO_ID);
                self.symbols.push(Symbol { id, start: start as u32, end: end as u32 });
                start = end;
            }
        }
    }

    /// Appends the tokens of the bytes of a symbol that is no token; bytes without a token are
    /// dropped, as llama.cpp does.
    fn fall_back(&self, word: &[u8], symbol: &Symbol, out: &mut Vec<u32>) {
        let fallback = &self.bpe.fallback;
        let tokens = |bytes: &[u8], out: &mut Vec<u32>| {
            out.extend(bytes.iter().filter_map(|&byte| fallback[usize::from(byte)]));
        };
        let bytes = &word[symbol.start as usize..symbol.end as usize];
        if self.bpe.pre.alphabet != Alphabet::Bytes {
            return tokens(bytes, out);
        }
        for &byte in bytes {
            tokens(letter(byte), out);
        }
    }
}

fn letter(byte: u8) -> &'static [u8] {
    let (letter, width) = &BYTE_LETTERS[usize::from(byte)];
    &letter[..usize::from(*width)]
}

/// GPT-2's character for each byte, in UTF-8 with its width: printable characters of Latin-1
/// stand for themselves, the others for the 68 bytes that are left, from U+0100 on.
const BYTE_LETTERS: [([u8; 2], u8); 256] = byte_letters();

const fn byte_letters() -> [([u8; 2], u8); 256] {
    let mut letters = [([0; 2], 1); 256];
    let (mut byte, mut n_moved) = (0, 0);
    while byte < 256 {
        let moved = !is_own_letter(byte as u8);
        let c = if moved { 256 + n_moved } else { byte };
        if moved {
            n_moved += 1;
        }
        letters[byte] = if c < 128 { ([c as u8, 0], 1) } else { ([0xc0 | (c >> 6) as u8, 0x80 | (c & 0x3f) as u8], 2) };
        byte += 1;
    }
    letters
}

const fn is_own_letter(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff)
}

/// The byte that a character of a byte-level piece stands for.
pub(super) fn letter_byte(c: char) -> Option<u8> {
    if let Ok(byte) = u8::try_from(c) {
        return is_own_letter(byte).then_some(byte);
    }
    let moved = u8::try_from((c as u32).checked_sub(256)?).ok()?;
    (0..=255).filter(|&byte| !is_own_letter(byte)).nth(usize::from(moved))
}
