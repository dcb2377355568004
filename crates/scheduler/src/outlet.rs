//! The way of an answer to its caller: nothing passes before the first real text, thought or call, and what has passed is kept for continuing.

use std::time::Duration;

use downshift_worker::{Completion, Delta, Device, Failure, FailureKind, FinishReason, Resume, Stage, Timings, Usage};

use crate::config::ContentCheck;
use crate::loop_guard::LoopGuard;
use crate::running::Taken;
use crate::submit::{Event, Listener};

/// What the caller has seen of an answer, over all attempts.
#[derive(Default)]
pub(crate) struct Written {
    /// The text, byte for byte.
    pub text: String,
    /// The reasoning before it.
    reasoning: String,
    /// Whether a piece of a tool call was among it: only the model that began it can go on with that.
    pub has_calls: bool,
    /// Tokens it was made of, those held back included.
    pub tokens: u32,
    /// The model that wrote the last of it, with what it would need to go on itself.
    author: Option<Author>,
    /// Whether another model has taken over; that happens once.
    pub taken_over: bool,
}

/// The last model that wrote.
struct Author {
    index: usize,
    name: String,
    token_ids: Vec<u32>,
    shown_bytes: usize,
    /// Whether it began with the text of another, so that its tokens are not all of the answer.
    continued: bool,
}

impl Written {
    /// Whether the caller has seen anything.
    pub fn is_shown(&self) -> bool {
        self.has_calls || !(self.text.is_empty() && self.reasoning.is_empty())
    }

    /// What a worker of this model needs to go on; `None` if nothing was shown.
    pub fn resume(&self, index: usize) -> Option<Resume> {
        let author = self.author.as_ref().filter(|_| self.is_shown())?;
        if author.index == index && !author.continued {
            return Some(Resume::Tokens { token_ids: author.token_ids.clone(), shown_bytes: author.shown_bytes });
        }
        Some(Resume::Text { text: self.text.clone(), reasoning: self.reasoning.clone(), tokens: self.tokens })
    }

    fn note(&mut self, index: usize, name: &str, delta: &Delta) {
        let is_author = self.author.as_ref().is_some_and(|author| author.index == index);
        if !is_author {
            let continued = self.author.is_some();
            self.taken_over |= continued;
            self.author = Some(Author { index, name: name.to_owned(), token_ids: Vec::new(), shown_bytes: 0, continued });
        }
        self.text.push_str(&delta.text);
        self.reasoning.push_str(&delta.reasoning);
        self.has_calls |= !delta.tool_calls.is_empty();
        self.tokens = self.tokens.saturating_add(delta.token_ids.len() as u32);
        if let Some(author) = &mut self.author {
            author.token_ids.extend_from_slice(&delta.token_ids);
            author.shown_bytes += delta.shown_bytes();
        }
    }
}

/// The way of one attempt's deltas to the caller.
pub(crate) struct Outlet<'a, 'l> {
    /// Pass deltas on as they come; otherwise when the answer is whole.
    pub stream: bool,
    pub written: &'a mut Written,
    /// Why the text broke off that the caller has seen; taken when it goes on.
    pub reason: &'a mut Option<&'static str>,
    pub index: usize,
    pub model: &'a str,
    pub device: Device,
    pub listener: &'a mut Listener<'l>,
    pub guard: Option<LoopGuard>,
    held: Vec<Delta>,
    started: bool,
    produced: u32,
    first_at: Option<Duration>,
}

impl<'a, 'l> Outlet<'a, 'l> {
    pub fn new(
        stream: bool,
        written: &'a mut Written,
        reason: &'a mut Option<&'static str>,
        model: (usize, &'a str, Device),
        listener: &'a mut Listener<'l>,
    ) -> Self {
        let (index, model, device) = model;
        let started = written.is_shown();
        Self {
            stream,
            written,
            reason,
            index,
            model,
            device,
            listener,
            guard: None,
            held: Vec::new(),
            started,
            produced: 0,
            first_at: None,
        }
    }

    /// Takes a delta from the worker.
    pub fn take(&mut self, delta: Delta, now: Duration) -> Taken {
        self.first_at.get_or_insert(now);
        self.produced = self.produced.saturating_add(delta.token_ids.len() as u32);
        let real = delta.is_shown();
        let looped = self.guard.as_mut().is_some_and(|guard| delta.token_ids.iter().any(|id| guard.is_loop(*id)));
        self.held.push(delta);
        // Tokens without text of a resumed attempt wait too: the notice belongs on real text.
        let open = self.started && self.reason.is_none();
        if self.stream && (open || real) && !self.flush() {
            return Taken::Left;
        }
        match (looped, self.held.is_empty()) {
            (true, _) => Taken::Enough,
            (false, true) => Taken::Shown,
            (false, false) => Taken::Held,
        }
    }

    /// Sends all that was held; false if the client has left.
    pub fn flush(&mut self) -> bool {
        if !self.started {
            self.started = true;
            *self.reason = None;
            if (self.listener)(Event::Started { model: self.model, device: self.device }).is_break() {
                return false;
            }
        }
        if let Some(reason) = self.reason.take() {
            let from = self.written.author.as_ref().map_or("", |author| author.name.as_str());
            if (self.listener)(Event::Continued { from, to: self.model, reason }).is_break() {
                return false;
            }
        }
        for delta in self.held.drain(..) {
            self.written.note(self.index, self.model, &delta);
            if (self.listener)(Event::Delta(delta)).is_break() {
                return false;
            }
        }
        true
    }

    /// Whether the whole answer passes the checks that unstreamed answers may be put to. They are about content: an answer
    /// that calls tools needs none.
    pub fn check(&self, checks: &[ContentCheck]) -> Result<(), Failure> {
        if self.held.iter().any(|delta| !delta.tool_calls.is_empty()) {
            return Ok(());
        }
        let text = || self.held.iter().map(|delta| delta.text.as_str()).collect::<String>();
        for check in checks {
            let (fails, kind, message) = match check {
                ContentCheck::Empty => (text().trim().is_empty(), FailureKind::EmptyAnswer, "the answer is empty"),
                ContentCheck::InvalidJson => {
                    let is_json = serde_json::from_str::<serde::de::IgnoredAny>(&text()).is_ok();
                    (!is_json, FailureKind::InvalidJson, "the answer is no JSON")
                }
            };
            if fails {
                return Err(Failure::new(kind, Stage::Decode, message));
            }
        }
        Ok(())
    }

    /// The end of an answer that was cut because it had become a loop. `before`: tokens of earlier attempts.
    pub fn cut(&self, before: u32, prompt_tokens: u32, began: Duration, now: Duration) -> Completion {
        let first_at = self.first_at.unwrap_or(now);
        let ms = |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64() * 1e3;
        Completion {
            finish_reason: FinishReason::Length,
            usage: Usage { prompt_tokens, completion_tokens: before + self.produced },
            timings: Timings {
                cache_n: 0,
                prompt_n: prompt_tokens,
                prompt_ms: ms(began, first_at),
                predicted_n: self.produced,
                predicted_ms: ms(first_at, now),
            },
            stop_index: None,
        }
    }
}
