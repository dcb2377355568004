//! Character classes as split rules name them (`\s`, `\p{L}`, ..), one byte a code point.
//! Does not know any rule; `rules` asks.

use std::sync::OnceLock;

use regex_syntax::hir::{Class, HirKind};

/// `\s`: Unicode's White_Space.
pub(super) const SPACE: u8 = 1;
/// `\p{L}`.
pub(super) const LETTER: u8 = 2;
/// `\p{N}`.
pub(super) const NUMBER: u8 = 4;
/// `\p{M}`.
pub(super) const MARK: u8 = 8;
/// `\p{P}`.
pub(super) const PUNCTUATION: u8 = 16;
/// `\p{S}`.
pub(super) const SYMBOL: u8 = 32;
/// `\p{Cc}`, `\p{Cf}`, `\p{Co}`.
pub(super) const CONTROL: u8 = 64;
/// Any character at all, so that 0 is left for the end of the text.
pub(super) const ANY: u8 = 128;

const N_CODE_POINTS: usize = 0x11_0000;

/// The classes of every code point. Flat, because a two-level table costs a dependent load per
/// character and only the pages that a text touches become resident.
pub(super) struct Classes(Box<[u8]>);

impl Classes {
    /// The table, built at the first call (well under a millisecond).
    pub(super) fn get() -> &'static Self {
        static CLASSES: OnceLock<Classes> = OnceLock::new();
        CLASSES.get_or_init(|| {
            let mut table = vec![0; N_CODE_POINTS];
            for (pattern, class) in [
                (r"\s", SPACE),
                (r"\p{L}", LETTER),
                (r"\p{N}", NUMBER),
                (r"\p{M}", MARK),
                (r"\p{P}", PUNCTUATION),
                (r"\p{S}", SYMBOL),
                (r"[\p{Cc}\p{Cf}\p{Co}]", CONTROL),
            ] {
                mark(&mut table, pattern, class);
            }
            Self(table.into())
        })
    }

    /// The classes of `c`, never 0.
    #[inline]
    pub(super) fn of(&self, c: char) -> u8 {
        self.0.get(c as usize).copied().unwrap_or(0) | ANY
    }
}

fn mark(table: &mut [u8], pattern: &str, class: u8) {
    let Ok(hir) = regex_syntax::parse(pattern) else { return };
    let HirKind::Class(Class::Unicode(ranges)) = hir.kind() else { return };
    for range in ranges.iter() {
        for slot in &mut table[range.start() as usize..=range.end() as usize] {
            *slot |= class;
        }
    }
}

/// A character of a text: its classes and width in bytes, both 0 at the end of the text.
#[derive(Clone, Copy)]
pub(super) struct Peek {
    /// The character, or NUL at the end of the text.
    pub(super) c: char,
    /// Its classes.
    pub(super) class: u8,
    /// Its width in bytes.
    pub(super) width: usize,
}

impl Peek {
    /// Whether the character is in one of the classes of `mask`.
    #[inline]
    pub(super) fn is(self, mask: u8) -> bool {
        self.class & mask != 0
    }

    /// Whether there is a character, and it is in none of the classes of `mask`.
    #[inline]
    pub(super) fn is_not(self, mask: u8) -> bool {
        self.class != 0 && self.class & mask == 0
    }
}

/// A text that is read by byte position.
#[derive(Clone, Copy)]
pub(super) struct Text<'t> {
    /// The text.
    pub(super) text: &'t str,
    classes: &'static Classes,
}

impl<'t> Text<'t> {
    pub(super) fn new(text: &'t str, classes: &'static Classes) -> Self {
        Self { text, classes }
    }

    /// The text from byte `start` to byte `end`, both at character boundaries.
    pub(super) fn part(self, start: usize, end: usize) -> Self {
        Self { text: &self.text[start..end], classes: self.classes }
    }

    /// The character that starts at byte `pos`.
    #[inline]
    pub(super) fn peek(&self, pos: usize) -> Peek {
        let Some(&byte) = self.text.as_bytes().get(pos) else {
            return Peek { c: '\0', class: 0, width: 0 };
        };
        if byte < 0x80 {
            let c = char::from(byte);
            return Peek { c, class: self.classes.of(c), width: 1 };
        }
        match self.text[pos..].chars().next() {
            Some(c) => Peek { c, class: self.classes.of(c), width: c.len_utf8() },
            None => Peek { c: '\0', class: 0, width: 0 },
        }
    }

    /// Where the characters from `pos` on stop satisfying `wanted`.
    #[inline]
    pub(super) fn run(&self, mut pos: usize, wanted: impl Fn(Peek) -> bool) -> usize {
        loop {
            let at = self.peek(pos);
            if at.width == 0 || !wanted(at) {
                return pos;
            }
            pos += at.width;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_have_the_classes_of_unicode() {
        let classes = Classes::get();
        for (c, expected) in [
            ('a', LETTER),
            ('é', LETTER),
            ('中', LETTER),
            ('½', NUMBER),
            ('٣', NUMBER),
            ('\u{301}', MARK),
            ('_', PUNCTUATION),
            ('$', SYMBOL),
            ('🦙', SYMBOL),
            (' ', SPACE),
            ('\u{3000}', SPACE),
            ('\u{85}', SPACE | CONTROL),
            ('\n', SPACE | CONTROL),
            ('\u{200b}', CONTROL),
            ('\u{378}', 0),
        ] {
            assert_eq!(classes.of(c), expected | ANY, "{c:?}");
        }
    }
}
