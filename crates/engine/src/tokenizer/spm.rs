//! SentencePiece BPE: neighbours merge by the score of the token that they spell together.

use super::bpe::Whole;
use super::merge::{Merged, NO_ID, Scratch, Symbol, merge};
use super::vocab::Vocab;

const ESCAPED_SPACE: &str = "\u{2581}";

/// What SentencePiece BPE needs besides the tokens and their scores.
pub(super) struct Spm {
    bytes: [Option<u32>; 256],
    unknown: Option<u32>,
    /// The last bytes of characters that some piece has before an escaped space. After any other
    /// character, an escaped space begins a word of its own: nothing merges across.
    joins: [bool; 256],
    whole: Whole,
}

impl Spm {
    pub(super) fn new(vocab: &Vocab, unknown: Option<u32>) -> Self {
        let mut bytes = vocab.byte_tokens();
        for (byte, token) in (0..=255).zip(&mut bytes) {
            *token = token.or_else(|| vocab.find_text(&[byte]));
        }
        let mut joins = [false; 256];
        for id in 0..vocab.len() as u32 {
            let piece = vocab.piece(id);
            for at in memchr::memmem::find_iter(piece, ESCAPED_SPACE) {
                if at > 0 && !piece[..at].ends_with(ESCAPED_SPACE.as_bytes()) {
                    joins[usize::from(piece[at - 1])] = true;
                }
            }
        }
        Self { bytes, unknown, joins, whole: Whole::new(vocab.len()) }
    }

    /// Appends the tokens of `text`, after a space where `space_first`.
    pub(super) fn encode(&self, vocab: &Vocab, text: &str, space_first: bool, out: &mut Vec<u32>) {
        let mut escaped = String::with_capacity(text.len() + text.len() / 2 + 3);
        if space_first {
            escaped.push_str(ESCAPED_SPACE);
        }
        for (i, run) in text.split(' ').enumerate() {
            if i > 0 {
                escaped.push_str(ESCAPED_SPACE);
            }
            escaped.push_str(run);
        }
        let mut encoder = Encoder { spm: self, vocab, scratch: Scratch::default(), symbols: vec![] };
        let mut start = 0;
        for at in memchr::memmem::find_iter(escaped.as_bytes(), ESCAPED_SPACE) {
            let before = &escaped.as_bytes()[..at];
            let Some(&last) = before.last() else { continue };
            if before.ends_with(ESCAPED_SPACE.as_bytes()) || self.joins[usize::from(last)] {
                continue;
            }
            encoder.word(&escaped[start..at], out);
            start = at;
        }
        encoder.word(&escaped[start..], out);
    }
}

struct Encoder<'s> {
    spm: &'s Spm,
    vocab: &'s Vocab,
    scratch: Scratch,
    symbols: Vec<Symbol>,
}

impl Encoder<'_> {
    fn word(&mut self, word: &str, out: &mut Vec<u32>) {
        let (spm, vocab) = (self.spm, self.vocab);
        let bytes = word.as_bytes();
        let whole = vocab.find_text(bytes);
        if let Some(id) = whole
            && spm.whole.get(id) == Some(true)
        {
            out.push(id);
            return;
        }
        self.symbols.clear();
        for (start, c) in word.char_indices() {
            let end = start + c.len_utf8();
            let id = vocab.find_text(&bytes[start..end]).unwrap_or(NO_ID);
            self.symbols.push(Symbol { id, start: start as u32, end: end as u32 });
        }
        merge(&mut self.symbols, &mut self.scratch, |left, right| {
            let id = vocab.find_text(&bytes[left.start as usize..right.end as usize])?;
            Some(Merged { rank: rank(vocab.score(id)), id })
        });
        if let Some(id) = whole {
            spm.whole.set(id, &self.symbols);
        }
        for symbol in &self.symbols {
            if symbol.id != NO_ID {
                out.push(symbol.id);
                continue;
            }
            let bytes = &bytes[symbol.start as usize..symbol.end as usize];
            let tokens = || bytes.iter().map(|&byte| spm.bytes[usize::from(byte)]);
            if tokens().all(|token| token.is_some()) {
                out.extend(tokens().flatten());
            } else {
                out.extend(spm.unknown);
            }
        }
    }
}

/// The higher the score, the lower the rank; equal scores have equal ranks.
fn rank(score: f32) -> u32 {
    // Adding 0 turns -0 into 0.
    let bits = (score + 0.0).to_bits();
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    (!ascending).min(u32::MAX - 1)
}

#[cfg(test)]
mod tests {
    use super::rank;

    #[test]
    fn higher_scores_have_lower_ranks() {
        let scores = [f32::INFINITY, 2.0, 1.0, 0.0, -0.5, -1.0, -1e30, f32::NEG_INFINITY];
        for pair in scores.windows(2) {
            assert!(rank(pair[0]) < rank(pair[1]), "{pair:?}");
        }
        assert_eq!(rank(0.0), rank(-0.0));
    }
}
