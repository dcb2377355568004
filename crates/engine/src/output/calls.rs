//! Splits calls of tools from content. What begins like a call and is none is given back as content; once a call's name was
//! told it stays a call. White space before a call belongs to it.

use std::collections::VecDeque;

use downshift_worker::ToolCallDelta;

use super::call_object::{CallObject, Scanned, Step, ValueScan};
use super::{Piece, ToolForm, begun};

/// Text that may become a call is given back beyond this length.
const MAX_UNDECIDED_BYTES: usize = 16 << 10;
/// White space that is held back because a call may follow it.
const MAX_SPACE_BYTES: usize = 64;

enum At {
    /// Nothing but white space was written, and a call may begin without a marker.
    Start,
    /// Content, in which a marker may appear.
    Content,
    /// Behind a marker.
    Marked,
    Object(CallObject),
    /// A name before `[ARGS]`.
    Name(String),
    /// Arguments behind `[ARGS]`.
    Arguments(ValueScan),
    /// Behind a call: its end, or the next one.
    Behind,
}

pub(super) struct CallSplitter {
    form: ToolForm,
    tools: Vec<String>,
    at: At,
    /// What is still to be read.
    queue: VecDeque<char>,
    /// What is not decided yet, white space before it included.
    undecided: String,
    /// Calls whose name was told.
    told: u32,
    /// The call under way was told.
    is_told: bool,
    /// Within the list of `[TOOL_CALLS][..]`.
    in_list: bool,
}

impl CallSplitter {
    pub fn new(form: ToolForm, tools: Vec<String>) -> Self {
        let mut splitter = Self {
            form,
            tools,
            at: At::Content,
            queue: VecDeque::new(),
            undecided: String::new(),
            told: 0,
            is_told: false,
            in_list: false,
        };
        if form == ToolForm::Llama {
            splitter.at = At::Start;
        }
        splitter
    }

    pub fn has_calls(&self) -> bool {
        self.told > 0
    }

    pub fn push(&mut self, text: &str, out: &mut Vec<Piece>) {
        self.queue.extend(text.chars());
        while let Some(c) = self.queue.pop_front() {
            self.take(c, out);
        }
    }

    pub fn finish(&mut self, out: &mut Vec<Piece>) {
        if !(self.is_told || matches!(self.at, At::Behind)) {
            content(&self.undecided, out);
        }
        self.undecided.clear();
    }

    fn take(&mut self, c: char, out: &mut Vec<Piece>) {
        let is_space = c.is_whitespace();
        if !self.is_told {
            self.undecided.push(c);
            if self.undecided.len() > MAX_UNDECIDED_BYTES {
                return self.give_back(out);
            }
        }
        match &mut self.at {
            At::Start => match c {
                _ if is_space => {}
                '{' => self.object(c, out),
                _ => {
                    self.at = At::Content;
                    self.content(out);
                }
            },
            At::Content => self.content(out),
            At::Marked => match c {
                _ if is_space => {}
                '[' if self.form == ToolForm::MistralList || self.form == ToolForm::MistralNamed => {
                    if self.in_list {
                        return self.give_back(out);
                    }
                    self.in_list = true;
                }
                '{' => self.object(c, out),
                _ if self.form == ToolForm::MistralNamed && !self.in_list => self.at = At::Name(c.to_string()),
                _ => self.give_back(out),
            },
            At::Object(object) => {
                let step = object.push(c);
                self.pass_on(step, out);
            }
            At::Name(name) => {
                name.push(c);
                self.name(out);
            }
            At::Arguments(scan) => {
                call(out, self.told - 1, None, c.to_string());
                if scan.push(c) != Scanned::More {
                    self.end_call();
                }
            }
            At::Behind => self.behind(c, out),
        }
    }

    /// Content goes on, but for what may be a marker and the white space before it.
    fn content(&mut self, out: &mut Vec<Piece>) {
        let marker = self.form.prefix();
        if self.undecided.ends_with(marker) {
            self.at = At::Marked;
            return;
        }
        let before = self.undecided.len() - begun(&self.undecided, marker);
        let trimmed = self.undecided[..before].trim_end().len();
        let free = if before - trimmed > MAX_SPACE_BYTES { before } else { trimmed };
        let text: String = self.undecided.drain(..free).collect();
        content(&text, out);
    }

    fn object(&mut self, c: char, out: &mut Vec<Piece>) {
        let mut object = CallObject::new();
        let step = object.push(c);
        self.at = At::Object(object);
        self.pass_on(step, out);
    }

    /// Tells what an object's last character has shown.
    fn pass_on(&mut self, step: Step, out: &mut Vec<Piece>) {
        let At::Object(object) = &mut self.at else { return };
        if step == Step::Invalid {
            return if self.is_told { self.end_call() } else { self.give_back(out) };
        }
        if let Some(name) = object.name() {
            let first = !self.is_told;
            if first && !self.tools.iter().any(|tool| tool == name) {
                return self.give_back(out);
            }
            let name = first.then(|| name.to_owned());
            let arguments = object.take_arguments();
            if first {
                self.begin_call();
            }
            if name.is_some() || !arguments.is_empty() {
                call(out, self.told - 1, name, arguments);
            }
        }
        if step == Step::Done {
            self.end_call();
        }
    }

    /// `name`, `name[ARGS]` or `name[CALL_ID]id[ARGS]`, as far as it was written.
    fn name(&mut self, out: &mut Vec<Piece>) {
        const ARGUMENTS: &str = "[ARGS]";
        let At::Name(written) = &self.at else { return };
        let Some(head) = written.strip_suffix('{') else {
            if written.contains(ARGUMENTS) && !written.ends_with(char::is_whitespace) && !written.ends_with(ARGUMENTS) {
                self.give_back(out);
            }
            return;
        };
        let head = head.trim_end();
        let head = head.strip_suffix(ARGUMENTS).unwrap_or(head);
        let name = head.split_once("[CALL_ID]").map_or(head, |(name, _)| name).trim();
        if !self.tools.iter().any(|tool| tool == name) {
            return self.give_back(out);
        }
        let name = name.to_owned();
        self.begin_call();
        call(out, self.told - 1, Some(name), "{".to_owned());
        let mut scan = ValueScan::default();
        scan.push('{');
        self.at = At::Arguments(scan);
    }

    fn begin_call(&mut self) {
        self.is_told = true;
        self.told += 1;
        self.undecided.clear();
    }

    fn end_call(&mut self) {
        self.is_told = false;
        self.at = At::Behind;
    }

    /// Behind a call there are its closing mark, separators, the next call, or content again.
    fn behind(&mut self, c: char, out: &mut Vec<Piece>) {
        let begin = self.undecided.trim_start();
        match self.form {
            _ if begin.is_empty() => return,
            ToolForm::Hermes => {
                const CLOSE: &str = "</tool_call>";
                if begin == CLOSE {
                    self.undecided.clear();
                    self.at = At::Content;
                    return;
                }
                if CLOSE.starts_with(begin) {
                    return;
                }
            }
            ToolForm::Llama => match c {
                ';' | ',' => return self.undecided.clear(),
                '{' => return self.object(c, out),
                _ => {}
            },
            ToolForm::MistralList | ToolForm::MistralNamed if self.in_list => match c {
                ',' => return self.undecided.clear(),
                '{' => return self.object(c, out),
                ']' => {
                    self.in_list = false;
                    self.undecided.clear();
                    self.at = At::Content;
                    return;
                }
                _ => {}
            },
            ToolForm::MistralList | ToolForm::MistralNamed => {}
        }
        self.in_list = false;
        self.at = At::Content;
        self.read_again();
    }

    /// It was no call: its first character is content, and a call may begin behind that.
    fn give_back(&mut self, out: &mut Vec<Piece>) {
        self.in_list = false;
        self.at = At::Content;
        let first = self.undecided.char_indices().find(|(_, c)| !c.is_whitespace());
        let end = first.map_or(self.undecided.len(), |(at, c)| at + c.len_utf8());
        let head: String = self.undecided.drain(..end).collect();
        content(&head, out);
        self.read_again();
    }

    fn read_again(&mut self) {
        for c in std::mem::take(&mut self.undecided).chars().rev() {
            self.queue.push_front(c);
        }
    }
}

fn content(text: &str, out: &mut Vec<Piece>) {
    match out.last_mut() {
        _ if text.is_empty() => {}
        Some(Piece::Text(last)) => last.push_str(text),
        _ => out.push(Piece::Text(text.to_owned())),
    }
}

fn call(out: &mut Vec<Piece>, index: u32, name: Option<String>, arguments: String) {
    match out.last_mut() {
        Some(Piece::Call(last)) if last.index == index && name.is_none() => last.arguments.push_str(&arguments),
        _ => out.push(Piece::Call(ToolCallDelta { index, name, arguments })),
    }
}
