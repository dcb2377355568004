//! Splits thoughts from the answer. White space around the marks belongs to neither.

use super::{Piece, Tags, begun};

#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// Nothing but white space, or the beginning of a mark, was written.
    Start,
    /// Within a thought, before its first letter.
    Opened,
    Thought,
    /// Behind a thought, before the answer's first letter.
    Closed,
    Answer,
}

pub(super) struct ThoughtSplitter {
    open: &'static str,
    close: &'static str,
    at: At,
    /// What may be a mark, with the white space before it.
    held: String,
}

impl ThoughtSplitter {
    pub fn new(tags: &Tags, is_begun: bool) -> Self {
        let at = if is_begun { At::Opened } else { At::Start };
        Self { open: tags.open.text, close: tags.close.text, at, held: String::new() }
    }

    pub fn push(&mut self, text: &str, out: &mut Vec<Piece>, content: &mut String) {
        if self.at == At::Answer {
            content.push_str(text);
            return;
        }
        self.held.push_str(text);
        loop {
            match self.at {
                At::Start => {
                    let begin = self.held.trim_start();
                    if let Some(rest) = begin.strip_prefix(self.open) {
                        self.held = rest.to_owned();
                        self.at = At::Opened;
                    } else if self.open.starts_with(begin) {
                        return;
                    } else {
                        self.at = At::Answer;
                    }
                }
                At::Opened | At::Closed => {
                    let rest = self.held.trim_start().to_owned();
                    self.held = rest;
                    if self.held.is_empty() {
                        return;
                    }
                    self.at = if self.at == At::Opened { At::Thought } else { At::Answer };
                }
                At::Thought => {
                    let Some(end) = self.held.find(self.close) else {
                        let kept = begun(&self.held, self.close);
                        let free = self.held[..self.held.len() - kept].trim_end().len();
                        push(self.held.drain(..free).collect(), out);
                        return;
                    };
                    push(self.held[..end].trim_end().to_owned(), out);
                    self.held.drain(..end + self.close.len());
                    self.at = At::Closed;
                }
                At::Answer => {
                    content.push_str(&std::mem::take(&mut self.held));
                    return;
                }
            }
        }
    }

    /// Goes on behind a thought, and behind the beginning of an answer.
    pub fn resume(&mut self, reasoning: &str, answer: &str, out: &mut Vec<Piece>) {
        if !answer.is_empty() {
            self.at = At::Answer;
        } else if !reasoning.is_empty() {
            self.at = At::Thought;
        }
        if self.at != At::Start {
            push(reasoning.to_owned(), out);
        }
    }

    pub fn finish(&mut self, out: &mut Vec<Piece>, content: &mut String) {
        let held = std::mem::take(&mut self.held);
        match self.at {
            At::Thought | At::Opened => push(held.trim_end().to_owned(), out),
            At::Start | At::Answer => content.push_str(&held),
            At::Closed => {}
        }
    }
}

fn push(text: String, out: &mut Vec<Piece>) {
    if !text.is_empty() {
        out.push(Piece::Reasoning(text));
    }
}
