//! Splitting as GPT-4 and most tokenizers after it do: words with what stands before them, numbers,
//! punctuation, white space. One rule with a handful of choices; other rules are in `rules`.

use super::classes::{LETTER, MARK, NUMBER, PUNCTUATION, Peek, SPACE, SYMBOL, Text};
use super::rules::{Lead, run};

/// `CONTRACTION|WORD|\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+TAIL|\s*[\r\n]+|\s+(?!\S)|\s+`
#[derive(Clone, Copy)]
pub(super) struct Words {
    /// Where English contractions are cut.
    pub(super) contraction: Contraction,
    /// What a word is.
    pub(super) word: Word,
    /// Most digits of a number; 0 where numbers are not matched.
    pub(super) digits: usize,
    /// What stands for `[^\s\p{L}\p{N}]`.
    pub(super) symbols: Symbols,
    /// What may follow a run of punctuation.
    pub(super) tail: Tail,
    /// How white space without line ends is cut.
    pub(super) blanks: Blanks,
}

/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)`
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Contraction {
    /// Not matched.
    No,
    /// A match of its own.
    Alone,
    /// The optional end of a word.
    Suffix,
}

/// The punctuation of a [`Words`] rule.
#[derive(Clone, Copy)]
pub(super) enum Symbols {
    /// All characters but these classes.
    Not(u8),
    /// These classes.
    Only(u8),
}

/// The word of a [`Words`] rule.
#[derive(Clone, Copy)]
pub(super) enum Word {
    /// `[^\r\n\p{L}\p{N}]?[mask]+`
    Letters(u8),
    /// `[^\r\n\p{L}\p{N}]?U*l+|[^\r\n\p{L}\p{N}]?U+l*`, where `U` is `[mask]` without a-z and
    /// `l` is `[mask]` without A-Z.
    Cased(u8),
    /// `\p{Han}+`, then as `Letters(LETTER)` without Han.
    NotHan,
    /// `[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+`
    Spaced,
    /// `[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+`
    Marked,
}

/// What may follow a run of punctuation.
#[derive(Clone, Copy)]
pub(super) enum Tail {
    /// Nothing.
    No,
    /// `[\r\n]*`
    Lines,
    /// `[\r\n/]*`
    LinesSlashes,
    /// `[\r\n/]?`
    OneLineSlash,
}

/// How white space is cut where no line end follows in it.
#[derive(Clone, Copy)]
pub(super) enum Blanks {
    /// `\s*[\r\n]+|\s+(?!\S)|\s+`
    AllButOne,
    /// `\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|..|\s{4}(?!\S)|\s{1,2}(?!\S)|\s`
    PowersOfTwo,
    /// `[\r\n]|\s+(?!\S)|\s+`
    LineByLine,
}

/// `\s+(?!\S)|\s+`, where the white space from `pos` ends at `end`: the last character of it is
/// left for the word that follows.
pub(super) fn all_but_one(text: &Text<'_>, pos: usize, end: usize) -> usize {
    if end == text.text.len() {
        return end;
    }
    match text.text[pos..end].char_indices().next_back() {
        Some((last, _)) if last > 0 => pos + last,
        _ => end,
    }
}

/// The end of a contraction at `pos`, if one stands there. `fold` maps letters to lower case.
pub(super) fn contraction(text: &Text<'_>, pos: usize, fold: fn(u8) -> u8) -> Option<usize> {
    let rest = text.text.as_bytes().get(pos..)?;
    let letter = |i: usize| rest.get(i).copied().map(fold);
    match (rest.first()?, letter(1)?, letter(2)) {
        (b'\'', b's' | b't' | b'm' | b'd', _) => Some(pos + 2),
        (b'\'', b'r' | b'v', Some(b'e')) | (b'\'', b'l', Some(b'l')) => Some(pos + 3),
        _ => None,
    }
}

fn any_case(letter: u8) -> u8 {
    letter.to_ascii_lowercase()
}

fn is_line_end(c: char) -> bool {
    c == '\r' || c == '\n'
}

/// What a [`Words`] rule remembers from one match to the next: that there is no line end before
/// a position, so that a long run of blanks is searched for one only once.
#[derive(Default)]
pub(super) struct Memory {
    no_line_end_before: usize,
}

impl Words {
    /// Where the match that begins at `pos` ends, or `pos`.
    pub(super) fn at(&self, text: &Text<'_>, pos: usize, memory: &mut Memory) -> usize {
        let first = text.peek(pos);
        if first.c == '\''
            && self.contraction == Contraction::Alone
            && let Some(end) = contraction(text, pos, any_case)
        {
            return end;
        }
        if let Some(end) = self.word.at(text, pos, first) {
            let suffix = match self.contraction {
                Contraction::Suffix => contraction(text, end, any_case),
                _ => None,
            };
            return suffix.unwrap_or(end);
        }
        if first.is(NUMBER) && self.digits > 0 {
            return run(text, pos, Lead::No, |at| at.is(NUMBER), 1..=self.digits);
        }
        let start = if first.c == ' ' { pos + 1 } else { pos };
        let end = match self.symbols {
            Symbols::Not(mask) => text.run(start, |at| !at.is(mask)),
            Symbols::Only(mask) => text.run(start, |at| at.is(mask)),
        };
        if end > start {
            return self.tail.at(text, end);
        }
        if !first.is(SPACE) {
            return pos;
        }
        self.blanks.at(text, pos, memory)
    }
}

impl Word {
    fn at(self, text: &Text<'_>, pos: usize, first: Peek) -> Option<usize> {
        let leads = first.is_not(LETTER | NUMBER) && !is_line_end(first.c);
        let after_lead = pos + first.width;
        match self {
            Word::Letters(mask) => {
                let start = if leads && !first.is(mask) { after_lead } else { pos };
                let end = text.run(start, |at| at.is(mask));
                (end > start).then_some(end)
            }
            Word::Cased(mask) => {
                let starts = [leads.then_some(after_lead), Some(pos)];
                let ends_low = starts.iter().flatten().find_map(|&at| ends_low(text, at, mask));
                ends_low.or_else(|| {
                    starts.iter().flatten().find_map(|&start| {
                        let end = text.run(start, |at| is_upper(at, mask));
                        (end > start).then(|| text.run(end, |at| is_lower(at, mask)))
                    })
                })
            }
            Word::NotHan => {
                if is_han(first.c) {
                    return Some(text.run(pos, |at| is_han(at.c)));
                }
                let start = if leads { after_lead } else { pos };
                let end = text.run(start, |at| at.is(LETTER) && !is_han(at.c));
                (end > start).then_some(end)
            }
            Word::Spaced => spaced_letters(text, if leads { after_lead } else { pos }),
            Word::Marked => {
                if first.c.is_ascii_punctuation() {
                    let end = text.run(after_lead, |at| at.c.is_ascii_alphabetic());
                    if end > after_lead {
                        return Some(end);
                    }
                }
                let leads = first.is_not(LETTER | PUNCTUATION | SYMBOL | MARK) && !is_line_end(first.c);
                let start = if leads { after_lead } else { pos };
                let end = text.run(start, |at| at.is(LETTER | MARK));
                (end > start).then_some(end)
            }
        }
    }
}

fn is_upper(at: Peek, mask: u8) -> bool {
    at.is(mask) && !at.c.is_ascii_lowercase()
}

fn is_lower(at: Peek, mask: u8) -> bool {
    at.is(mask) && !at.c.is_ascii_uppercase()
}

/// `U*l+` from `start`, greedy: `U*` gives back letters until one is an `l`.
fn ends_low(text: &Text<'_>, start: usize, mask: u8) -> Option<usize> {
    let upper_end = text.run(start, |at| is_upper(at, mask));
    let end = text.run(upper_end, |at| is_lower(at, mask));
    if end > upper_end {
        return Some(end);
    }
    let mut backwards = text.text[start..upper_end].char_indices().rev();
    let (last, c) = backwards.find(|(_, c)| !c.is_ascii_uppercase())?;
    Some(start + last + c.len_utf8())
}

fn spaced_letters(text: &Text<'_>, start: usize) -> Option<usize> {
    let mut end = start;
    loop {
        let mut at = text.peek(end);
        let mut next = end;
        if at.c == ' ' && end > start {
            next += 1;
            at = text.peek(next);
        }
        if !at.is(LETTER) {
            return (end > start).then_some(end);
        }
        end = text.run(next + at.width, |at| at.is(MARK));
    }
}

impl Tail {
    fn at(self, text: &Text<'_>, pos: usize) -> usize {
        match self {
            Tail::No => pos,
            Tail::Lines => text.run(pos, |at| is_line_end(at.c)),
            Tail::LinesSlashes => text.run(pos, |at| is_line_end(at.c) || at.c == '/'),
            Tail::OneLineSlash => {
                let at = text.peek(pos);
                if is_line_end(at.c) || at.c == '/' { pos + 1 } else { pos }
            }
        }
    }
}

impl Blanks {
    fn at(self, text: &Text<'_>, pos: usize, memory: &mut Memory) -> usize {
        if let Blanks::LineByLine = self {
            if is_line_end(text.peek(pos).c) {
                return pos + 1;
            }
            return all_but_one(text, pos, text.run(pos, |at| at.is(SPACE)));
        }
        if memory.no_line_end_before <= pos {
            let end = text.run(pos, |at| at.is(SPACE));
            if let Some(last) = text.text[pos..end].rfind(['\r', '\n']) {
                return pos + last + 1;
            }
            memory.no_line_end_before = end;
        }
        let end = memory.no_line_end_before;
        let Blanks::PowersOfTwo = self else { return all_but_one(text, pos, end) };
        // One look-ahead character stays behind unless the white space ends the text.
        let spare = usize::from(end < text.text.len());
        let n_blanks = text.text[pos..end].chars().take(512 + spare).count() - spare;
        let taken = match n_blanks {
            0 => 1,
            1..4 => n_blanks.min(2),
            n => 1 << n.min(512).ilog2(),
        };
        let rest = text.text[pos..end].char_indices().nth(taken);
        rest.map_or(end, |(width, _)| pos + width)
    }
}

/// The blocks of Han characters that Kimi's tokenizer keeps apart.
fn is_han(c: char) -> bool {
    matches!(c,
        '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{2a6df}' | '\u{2a700}'..='\u{2ebef}' | '\u{2f800}'..='\u{2fa1f}')
}
