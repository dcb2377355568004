//! Cuts a template into raw text and the tokens of its tags, with Jinja2's whitespace rules under
//! `trim_blocks` and `lstrip_blocks`. Does not own grammar.

use std::sync::Arc;

use super::error::{Fault, Result};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Raw(Box<str>),
    BlockStart,
    BlockEnd,
    PrintStart,
    PrintEnd,
    Name(Arc<str>),
    Str(Arc<str>),
    Int(i128),
    Float(f64),
    Op(&'static str),
    End,
}

/// A token and the line it starts on.
pub(super) type Spanned = (Token, usize);

/// Longest name: each use of one costs its length, which is not charged for.
const MAX_NAME_BYTES: usize = 256;

const OPERATORS: [&str; 27] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".", ":", "|", ",", ";",
    "!",
];

#[derive(Clone, Copy, PartialEq)]
enum Tag {
    Block,
    Print,
    Comment,
}

/// All tokens of `source`, ending in `Token::End`.
pub(super) fn tokenize(source: &str) -> Result<Vec<Spanned>> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut lexer = Lexer { source, at: 0, line: 1, counted: 0, line_starting: true, out: Vec::new() };
    lexer.run()?;
    let line = lexer.line_of(source.len());
    lexer.out.push((Token::End, line));
    Ok(lexer.out)
}

struct Lexer<'s> {
    source: &'s str,
    at: usize,
    line: usize,
    counted: usize,
    line_starting: bool,
    out: Vec<Spanned>,
}

impl Lexer<'_> {
    fn line_of(&mut self, at: usize) -> usize {
        self.line += self.source.as_bytes()[self.counted..at].iter().filter(|&&b| b == b'\n').count();
        self.counted = at;
        self.line
    }

    fn error(&mut self, message: &str) -> Fault {
        let line = self.line_of(self.at.max(self.counted));
        Fault::error(message).at(line)
    }

    fn rest(&self) -> &str {
        &self.source[self.at..]
    }

    fn run(&mut self) -> Result<()> {
        while let Some((start, tag)) = self.find_tag() {
            let mark = self.source.as_bytes().get(start + 2).copied();
            self.raw_before(start, tag, mark);
            self.at = start + 2 + usize::from(matches!(mark, Some(b'-' | b'+')));
            match tag {
                Tag::Comment => self.comment()?,
                Tag::Block if self.raw_tag("raw").is_some_and(|(_, mark)| mark != Some(b'+')) => self.raw_block()?,
                Tag::Block => self.tag(start, Token::BlockStart, Token::BlockEnd)?,
                Tag::Print => self.tag(start, Token::PrintStart, Token::PrintEnd)?,
            }
        }
        self.push_raw(self.at, self.source.len());
        Ok(())
    }

    /// The next `{%`, `{{` or `{#`.
    fn find_tag(&self) -> Option<(usize, Tag)> {
        let bytes = self.source.as_bytes();
        let mut at = self.at;
        loop {
            at += self.source[at..].find('{')?;
            match bytes.get(at + 1) {
                Some(b'%') => return Some((at, Tag::Block)),
                Some(b'{') => return Some((at, Tag::Print)),
                Some(b'#') => return Some((at, Tag::Comment)),
                _ => at += 1,
            }
        }
    }

    /// Pushes the text up to the tag at `start`, stripped as its opening mark asks.
    fn raw_before(&mut self, start: usize, tag: Tag, mark: Option<u8>) {
        let text = &self.source[self.at..start];
        let end = match mark {
            Some(b'-') => text.trim_end_matches(is_space).len(),
            Some(b'+') => text.len(),
            _ if tag == Tag::Print => text.len(),
            _ => {
                let line_start = text.rfind('\n').map_or(0, |i| i + 1);
                let blank = text[line_start..].chars().all(is_space);
                if blank && (line_start > 0 || self.line_starting) { line_start } else { text.len() }
            }
        };
        self.push_raw(self.at, self.at + end);
    }

    fn push_raw(&mut self, from: usize, to: usize) {
        if from < to {
            let line = self.line_of(from.max(self.counted));
            self.out.push((Token::Raw(self.source[from..to].into()), line));
        }
    }

    /// Moves past a tag's end: `at` is behind the closing characters.
    fn closed(&mut self, at: usize, stripped: bool, trim: bool) {
        let begin = at;
        self.at = at;
        if stripped {
            self.at += self.rest().len() - self.rest().trim_start_matches(is_space).len();
        } else if trim && self.rest().starts_with('\n') {
            self.at += 1;
        }
        self.line_starting = self.at > begin && self.source[..self.at].ends_with('\n');
    }

    fn comment(&mut self) -> Result<()> {
        let Some(end) = self.rest().find("#}") else {
            return Err(self.error("missing end of comment tag"));
        };
        let mark = self.rest()[..end].bytes().last();
        self.closed(self.at + end + 2, mark == Some(b'-'), mark != Some(b'+'));
        Ok(())
    }

    /// Bytes from `at` to behind `NAME %}` if that is what stands there, and whether it strips after it.
    fn raw_tag(&self, name: &str) -> Option<(usize, Option<u8>)> {
        let rest = self.rest();
        let body = rest.trim_start_matches(is_space).strip_prefix(name)?.trim_start_matches(is_space);
        let mark = body.bytes().next().filter(|b| matches!(b, b'-' | b'+'));
        let tail = body[usize::from(mark.is_some())..].strip_prefix("%}")?;
        Some((rest.len() - tail.len(), mark))
    }

    fn raw_block(&mut self) -> Result<()> {
        let (skip, mark) = self.raw_tag("raw").unwrap_or_default();
        self.closed(self.at + skip, mark == Some(b'-'), false);
        let begin = self.at;
        let mut from = begin;
        loop {
            let Some(open) = self.source[from..].find("{%").map(|i| i + from) else {
                return Err(self.error("missing end of raw directive"));
            };
            let before = self.source.as_bytes().get(open + 2).copied();
            self.at = open + 2 + usize::from(matches!(before, Some(b'-' | b'+')));
            if let Some((skip, after)) = self.raw_tag("endraw") {
                let end = self.at + skip;
                self.at = begin;
                self.raw_before(open, Tag::Block, before);
                self.closed(end, after == Some(b'-'), after != Some(b'+'));
                return Ok(());
            }
            from = open + 2;
        }
    }

    fn tag(&mut self, start: usize, open: Token, close: Token) -> Result<()> {
        let line = self.line_of(start);
        self.out.push((open, line));
        let ends: [&str; 3] = if close == Token::BlockEnd { ["-%}", "+%}", "%}"] } else { ["-}}", "}}", "}}"] };
        let mut brackets: Vec<char> = Vec::new();
        loop {
            self.at += self.rest().len() - self.rest().trim_start_matches(is_space).len();
            let rest = &self.source[self.at..];
            if brackets.is_empty()
                && let Some(end) = ends.iter().find(|e| rest.starts_with(**e))
            {
                let line = self.line_of(self.at);
                let trim = close == Token::BlockEnd && !end.starts_with('+');
                self.out.push((close, line));
                self.closed(self.at + end.len(), end.starts_with('-'), trim);
                return Ok(());
            }
            let line = self.line_of(self.at);
            let Some(first) = rest.chars().next() else {
                return Err(self.error("unexpected end of template"));
            };
            let token = match first {
                '\'' | '"' => self.string(first)?,
                c if c.is_ascii_digit() => self.number()?,
                c if c.is_alphanumeric() || c == '_' => {
                    let len = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
                    if len > MAX_NAME_BYTES {
                        return Err(self.error("name is too long"));
                    }
                    self.at += len;
                    Token::Name(rest[..len].into())
                }
                _ => {
                    let Some(op) = OPERATORS.iter().find(|op| rest.starts_with(**op)) else {
                        return Err(self.error(&format!("unexpected char {first:?}")));
                    };
                    self.at += op.len();
                    match *op {
                        "(" => brackets.push(')'),
                        "[" => brackets.push(']'),
                        "{" => brackets.push('}'),
                        ")" | "]" | "}" if brackets.pop() != op.chars().next() => {
                            return Err(self.error(&format!("unexpected '{op}'")));
                        }
                        _ => {}
                    }
                    Token::Op(op)
                }
            };
            self.out.push((token, line));
        }
    }

    fn number(&mut self) -> Result<Token> {
        let rest = &self.source[self.at..];
        let bytes = rest.as_bytes();
        let radix = match bytes.get(1) {
            Some(b'x' | b'X') => 16,
            Some(b'o' | b'O') => 8,
            Some(b'b' | b'B') => 2,
            _ => 10,
        };
        if bytes[0] == b'0' && radix != 10 {
            let len = 2 + rest[2..].find(|c: char| !(c.is_digit(radix) || c == '_')).unwrap_or(rest.len() - 2);
            let value = i128::from_str_radix(&rest[2..len].replace('_', ""), radix);
            self.at += len;
            return value.map(Token::Int).map_err(|_| self.error("invalid number"));
        }
        let digits = |from: usize| from + rest[from..].find(|c: char| !(c.is_ascii_digit() || c == '_')).unwrap_or(rest.len() - from);
        let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
        let mut len = digits(0);
        let mut float = false;
        if bytes.get(len) == Some(&b'.') && is_digit(len + 1) {
            float = true;
            len = digits(len + 1);
        }
        if matches!(bytes.get(len), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(len + 1), Some(b'+' | b'-')));
            if is_digit(len + 1 + sign) {
                float = true;
                len = digits(len + 1 + sign);
            }
        }
        let text = rest[..len].replace('_', "");
        self.at += len;
        if float {
            text.parse().map(Token::Float).map_err(|_| self.error("invalid number"))
        } else {
            text.parse().map(Token::Int).map_err(|_| self.error("number too large"))
        }
    }

    fn string(&mut self, quote: char) -> Result<Token> {
        let mut text = String::new();
        let mut chars = self.source[self.at + 1..].char_indices().peekable();
        while let Some((i, c)) = chars.next() {
            if c == quote {
                self.at += 1 + i + 1;
                return Ok(Token::Str(text.into()));
            }
            if c != '\\' {
                text.push(c);
                continue;
            }
            let Some((_, escape)) = chars.next() else { break };
            let mut digits = |n: usize, radix: u32, first: Option<char>| {
                let mut code = first.and_then(|c| c.to_digit(radix)).unwrap_or(0);
                for _ in 0..n {
                    let Some(d) = chars.peek().and_then(|&(_, c)| c.to_digit(radix)) else { return (code, false) };
                    code = code * radix + d;
                    chars.next();
                }
                (code, true)
            };
            let code = match escape {
                '\n' => continue,
                'a' => 7,
                'b' => 8,
                'f' => 12,
                'n' => 10,
                'r' => 13,
                't' => 9,
                'v' => 11,
                '0'..='7' => digits(2, 8, Some(escape)).0,
                'x' | 'u' | 'U' => {
                    let (code, complete) = digits(
                        match escape {
                            'x' => 2,
                            'u' => 4,
                            _ => 8,
                        },
                        16,
                        None,
                    );
                    if !complete {
                        return Err(self.error("truncated escape in string"));
                    }
                    code
                }
                '\\' | '\'' | '"' => escape.into(),
                _ => {
                    text.push('\\');
                    escape.into()
                }
            };
            match char::from_u32(code) {
                Some(c) => text.push(c),
                None => return Err(self.error("escape is not a character")),
            }
        }
        Err(self.error("string is not closed"))
    }
}

/// Python's idea of white space.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}
