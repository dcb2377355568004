//! Split rules: how one pass cuts a piece of text into words. Each is what a regular expression
//! of a published tokenizer matches, written as a scan so that no text makes it slow; the
//! expression stands beside it. Which model uses which rules is `pretokenize`'s business.

use super::classes::{LETTER, NUMBER, Peek, SPACE, Text};
use super::words::{Memory, Words, all_but_one, contraction};

/// One pass over a piece of text. What it matches is cut out; what lies between stays together.
#[derive(Clone, Copy)]
pub(super) enum Rule {
    /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
    Gpt2,
    /// The family of GPT-4's expression.
    Words(Words),
    /// `LEAD? CLASS{1,most}`
    Run {
        /// An optional character before the run.
        lead: Lead,
        /// The characters of the run.
        class: fn(Peek) -> bool,
        /// How many characters a match has at least.
        least: usize,
        /// How many characters a match has at most.
        most: usize,
    },
    /// `\s+$`
    TrailingSpace,
    /// Digits in groups of three from the right. What stands before a number stays with its
    /// first group, as llama.cpp does it; later passes part them.
    GroupedDigits,
    /// `(?=(\d{3})+(?!\d))`: a cut before each group of three ASCII digits from the right.
    CutDigits,
    /// `<sentinel:[0-9]+>`
    Sentinel,
    /// `(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z`
    ImageToken,
    /// `([\t\n]|    |  )`
    Indent,
}

/// The optional character before a [`Rule::Run`].
#[derive(Clone, Copy)]
pub(super) enum Lead {
    /// None.
    No,
    /// ` ?`
    Blank,
    /// `\s?`
    Space,
}

impl Rule {
    /// Calls `emit` with the words of `text` in order: all of `text`, nothing empty.
    pub(super) fn split<'t>(self, text: Text<'t>, emit: &mut dyn FnMut(Text<'t>)) {
        match self {
            Rule::Gpt2 => split_by(text, emit, gpt2),
            Rule::Words(words) => {
                let mut memory = Memory::default();
                split_by(text, emit, |text, pos| words.at(text, pos, &mut memory));
            }
            Rule::Run { lead, class, least, most } => {
                split_by(text, emit, |text, pos| run(text, pos, lead, class, least..=most));
            }
            Rule::TrailingSpace => {
                let kept = text.text.trim_end().len();
                for (start, end) in [(0, kept), (kept, text.text.len())] {
                    if start < end {
                        emit(text.part(start, end));
                    }
                }
            }
            Rule::GroupedDigits => grouped_digits(text, emit),
            Rule::CutDigits => cut_digits(text, emit),
            Rule::Sentinel => split_by(text, emit, sentinel),
            Rule::ImageToken => split_by(text, emit, image_token),
            Rule::Indent => split_by(text, emit, indent),
        }
    }
}

/// `matcher` says where a match that starts at a position ends, or gives the position itself.
fn split_by<'t>(text: Text<'t>, emit: &mut dyn FnMut(Text<'t>), mut matcher: impl FnMut(&Text<'t>, usize) -> usize) {
    let (mut unmatched, mut pos) = (0, 0);
    while pos < text.text.len() {
        let end = matcher(&text, pos);
        if end == pos {
            pos += text.peek(pos).width;
            continue;
        }
        if unmatched < pos {
            emit(text.part(unmatched, pos));
        }
        emit(text.part(pos, end));
        (unmatched, pos) = (end, end);
    }
    if unmatched < pos {
        emit(text.part(unmatched, pos));
    }
}

fn gpt2(text: &Text<'_>, pos: usize) -> usize {
    let first = text.peek(pos);
    if first.c == '\''
        && let Some(end) = contraction(text, pos, |c| c)
    {
        return end;
    }
    let start = if first.c == ' ' { pos + 1 } else { pos };
    let head = text.peek(start);
    if head.is(LETTER) {
        return text.run(start, |at| at.is(LETTER));
    }
    if head.is(NUMBER) {
        return text.run(start, |at| at.is(NUMBER));
    }
    if head.is_not(SPACE) {
        return text.run(start, |at| !at.is(SPACE | LETTER | NUMBER));
    }
    all_but_one(text, pos, text.run(pos, |at| at.is(SPACE)))
}

/// Where the run of `class` that begins at `pos`, after an optional character, ends, or `pos`.
pub(super) fn run(
    text: &Text<'_>,
    pos: usize,
    lead: Lead,
    class: impl Fn(Peek) -> bool,
    n_chars: std::ops::RangeInclusive<usize>,
) -> usize {
    let first = text.peek(pos);
    let leads = match lead {
        Lead::No => false,
        Lead::Blank => first.c == ' ',
        Lead::Space => first.is(SPACE),
    };
    let mut end = if leads { pos + first.width } else { pos };
    for n in 0..*n_chars.end() {
        let at = text.peek(end);
        if at.width == 0 || !class(at) {
            return if n < *n_chars.start() { pos } else { end };
        }
        end += at.width;
    }
    end
}

fn grouped_digits<'t>(text: Text<'t>, emit: &mut dyn FnMut(Text<'t>)) {
    let (mut start, mut pos) = (0, 0);
    while pos < text.text.len() {
        let at = text.peek(pos);
        if !at.is(NUMBER) {
            pos += at.width;
            continue;
        }
        let end = text.run(pos, |at| at.is(NUMBER));
        let mut n_left = text.text[pos..end].chars().count();
        for (i, c) in text.text[pos..end].char_indices() {
            n_left -= 1;
            if n_left.is_multiple_of(3) {
                let cut = pos + i + c.len_utf8();
                emit(text.part(start, cut));
                start = cut;
            }
        }
        pos = end;
    }
    if start < text.text.len() {
        emit(text.part(start, text.text.len()));
    }
}

fn cut_digits<'t>(text: Text<'t>, emit: &mut dyn FnMut(Text<'t>)) {
    let (mut start, mut pos) = (0, 0);
    while pos < text.text.len() {
        let end = text.run(pos, |at| at.c.is_ascii_digit());
        for cut in pos..end {
            if (end - cut).is_multiple_of(3) && cut > start {
                emit(text.part(start, cut));
                start = cut;
            }
        }
        pos = end + text.peek(end).width;
    }
    if start < text.text.len() {
        emit(text.part(start, text.text.len()));
    }
}

fn sentinel(text: &Text<'_>, pos: usize) -> usize {
    const OPEN: &str = "<sentinel:";
    if !text.text[pos..].starts_with(OPEN) {
        return pos;
    }
    let digits = pos + OPEN.len();
    let end = text.run(digits, |at| at.c.is_ascii_digit());
    if end > digits && text.peek(end).c == '>' { end + 1 } else { pos }
}

fn image_token(text: &Text<'_>, pos: usize) -> usize {
    const OPEN: &str = "IMGIMG";
    if !text.text[pos..].starts_with(OPEN) {
        return pos;
    }
    let start = pos + OPEN.len();
    let end = text.run(start, |at| ('A'..='I').contains(&at.c));
    if (1..=4).contains(&(end - start)) && text.peek(end).c == 'Z' { end + 1 } else { pos }
}

fn indent(text: &Text<'_>, pos: usize) -> usize {
    let rest = &text.text[pos..];
    let width = match rest.as_bytes() {
        [b'\t' | b'\n', ..] => 1,
        [b' ', b' ', b' ', b' ', ..] => 4,
        [b' ', b' ', ..] => 2,
        _ => 0,
    };
    pos + width
}
