//! What a model writes, taken apart: thoughts, content and calls of tools, in the forms that chat templates teach.
//!
//! Owns the forms and how a stream of text is split by them; every split of the text into pieces gives the same result.
//! Does not own the text of tokens (the tokenizer) nor what forces a model into a form (the grammar).

mod call_object;
mod calls;
mod dialect;
mod thinking;

#[cfg(test)]
mod tests;

use downshift_worker::ToolCallDelta;

use calls::CallSplitter;
pub(crate) use dialect::{Dialect, Marker, Tags, Thought, ToolForm};
use thinking::ThoughtSplitter;

/// A part of an answer, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Reasoning(String),
    Text(String),
    Call(ToolCallDelta),
}

/// Takes an answer apart as it comes.
#[derive(Default)]
pub(crate) struct Splitter {
    thoughts: Option<ThoughtSplitter>,
    calls: Option<CallSplitter>,
}

impl Splitter {
    /// A splitter for a model of this dialect that was offered `tools`, by name.
    pub fn new(dialect: &Dialect, thought: Thought, tools: Vec<String>) -> Self {
        Self {
            thoughts: dialect.thinking.as_ref().map(|tags| ThoughtSplitter::new(tags, thought == Thought::Begun)),
            calls: (!tools.is_empty()).then(|| CallSplitter::new(dialect.form(), tools)),
        }
    }

    /// Takes more text; what can be told of it goes to `out`.
    pub fn push(&mut self, text: &str, out: &mut Vec<Piece>) {
        let Some(thoughts) = &mut self.thoughts else { return self.content(text, out) };
        let mut content = String::new();
        thoughts.push(text, out, &mut content);
        self.content(&content, out);
    }

    /// Takes what another model has written of the answer.
    pub fn resume(&mut self, reasoning: &str, text: &str, out: &mut Vec<Piece>) {
        if let Some(thoughts) = &mut self.thoughts {
            thoughts.resume(reasoning, text, out);
        }
        self.content(text, out);
    }

    /// No more text comes.
    pub fn finish(&mut self, out: &mut Vec<Piece>) {
        if let Some(thoughts) = &mut self.thoughts {
            let mut content = String::new();
            thoughts.finish(out, &mut content);
            self.content(&content, out);
        }
        if let Some(calls) = &mut self.calls {
            calls.finish(out);
        }
    }

    /// Whether a call was made.
    pub fn has_calls(&self) -> bool {
        self.calls.as_ref().is_some_and(CallSplitter::has_calls)
    }

    fn content(&mut self, text: &str, out: &mut Vec<Piece>) {
        match &mut self.calls {
            _ if text.is_empty() => {}
            Some(calls) => calls.push(text, out),
            None => out.push(Piece::Text(text.to_owned())),
        }
    }
}

/// Bytes at the end of `text` with which `marker` may begin, but not all of it.
fn begun(text: &str, marker: &str) -> usize {
    (1..marker.len()).rev().find(|&n| marker.is_char_boundary(n) && text.ends_with(&marker[..n])).unwrap_or(0)
}
