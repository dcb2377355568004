//! One answer in the making: tokens become text, the text thoughts, content and calls; stop strings end the content, and the
//! sink gets whole characters.

use std::time::Instant;

use downshift_worker::{
    Completion, Delta, Failure, FailureKind, FinishReason, PromptToken, Request, Resume, Sink, Stage, Timings, TokenLogprob, Usage,
};

use crate::error::Error;
use crate::output::{Piece, Splitter};
use crate::prompt::PromptBuilder;
use crate::sampler::StopMatcher;
use crate::tokenizer::Detokenizer;

/// The state of one request on the caller's side.
pub(crate) struct Answer<'a> {
    detokenizer: Detokenizer<'a>,
    splitter: Splitter,
    /// Of the content; thoughts and calls are not searched.
    stops: StopMatcher,
    /// The stop string that was found, as its index.
    stopped: Option<u16>,
    held: Delta,
    skip: Skip,
    /// Bytes of the text to come that were shown before it was rolled back.
    respelled: usize,
    prompt_tokens: u32,
    n_generated: u32,
    n_resumed: u32,
    n_cached: u32,
    admitted: Instant,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
}

/// Bytes that an earlier attempt has shown and that are not sent again.
#[derive(Default)]
struct Skip {
    /// Of anything, in order.
    any: usize,
    reasoning: usize,
    text: usize,
}

impl<'a> Answer<'a> {
    /// # Errors
    /// Stop strings that are empty or too long.
    pub fn new(prompts: &'a PromptBuilder, splitter: Splitter, request: &Request, prompt: &[u32], resumed: &[u32]) -> Result<Self, Error> {
        let continues_text = matches!(request.resume, Some(Resume::Text { .. }));
        let previous = resumed.last().filter(|_| continues_text).or(prompt.last()).copied();
        let detokenizer = Detokenizer::new(prompts.tokenizer(), previous).showing(&prompts.dialect().shown);
        let mut answer = Self {
            detokenizer: if request.input.is_infill() { detokenizer.within() } else { detokenizer },
            splitter,
            stops: StopMatcher::new(request.stop.clone())?,
            stopped: None,
            held: Delta::default(),
            skip: Skip::default(),
            respelled: 0,
            prompt_tokens: prompt.len() as u32,
            n_generated: resumed.len() as u32,
            n_resumed: resumed.len() as u32,
            n_cached: 0,
            admitted: Instant::now(),
            first_token: None,
            last_token: None,
        };
        match &request.resume {
            None => {}
            Some(Resume::Tokens { shown_bytes, .. }) => {
                answer.skip.any = *shown_bytes;
                for &id in resumed {
                    answer.read(id);
                }
            }
            Some(Resume::Text { text, reasoning, .. }) => {
                answer.skip = Skip { any: 0, reasoning: reasoning.len(), text: text.len() };
                let mut pieces = Vec::new();
                answer.splitter.resume(reasoning, text, &mut pieces);
                answer.take(pieces);
                answer.held = Delta::default();
            }
        }
        Ok(answer)
    }

    /// Leaves out the first `n` bytes of the text of its tokens: they are the end of what is resumed, and come again.
    pub fn respelling(mut self, n: usize) -> Self {
        self.respelled = n;
        self
    }

    /// Takes the text that `id` completes apart, and holds what may be shown.
    fn read(&mut self, id: u32) {
        let mut text = String::new();
        self.detokenizer.push(id, &mut text);
        self.respelled -= cut(&mut text, self.respelled);
        let mut pieces = Vec::new();
        if !text.is_empty() {
            self.splitter.push(&text, &mut pieces);
        }
        self.take(pieces);
    }

    fn take(&mut self, pieces: Vec<Piece>) {
        for piece in pieces {
            if self.stopped.is_some() {
                return;
            }
            match piece {
                Piece::Reasoning(mut text) => {
                    self.skip.any -= cut(&mut text, self.skip.any);
                    self.skip.reasoning -= cut(&mut text, self.skip.reasoning);
                    self.held.reasoning.push_str(&text);
                }
                Piece::Text(text) => {
                    let step = self.stops.push(&text);
                    self.stopped = step.stopped.map(|index| u16::try_from(index).unwrap_or(u16::MAX));
                    self.hold_text(step.text);
                }
                Piece::Call(mut call) => {
                    // No stop string goes on behind a call.
                    let text = self.stops.finish();
                    self.hold_text(text);
                    if let Some(name) = call.name.take_if(|name| self.skip.any >= name.len()) {
                        self.skip.any -= name.len();
                    }
                    self.skip.any -= cut(&mut call.arguments, self.skip.any);
                    match self.held.tool_calls.last_mut() {
                        _ if call.name.is_none() && call.arguments.is_empty() => {}
                        Some(last) if last.index == call.index => last.arguments.push_str(&call.arguments),
                        _ => self.held.tool_calls.push(call),
                    }
                }
            }
        }
    }

    fn hold_text(&mut self, mut text: String) {
        self.skip.any -= cut(&mut text, self.skip.any);
        self.skip.text -= cut(&mut text, self.skip.text);
        self.held.text.push_str(&text);
    }

    /// How far the answer has come.
    pub fn stage(&self) -> Stage {
        if self.first_token.is_none() { Stage::Prefill } else { Stage::Decode }
    }

    /// The prompt is computed, but for this many tokens that the cache held.
    pub fn prefilled(&mut self, n_cached: usize) -> Result<Option<Completion>, Failure> {
        self.n_cached = n_cached as u32;
        Ok(None)
    }

    /// Takes the next tokens of the prompt.
    pub fn prompt(&mut self, tokens: Vec<PromptToken>, sink: &mut dyn Sink) -> Result<Option<Completion>, Failure> {
        self.held.prompt = tokens;
        self.send(sink)?;
        Ok(None)
    }

    /// Takes the token that ends the answer, of which nothing but its probability is told.
    pub fn last(&mut self, logprob: TokenLogprob, sink: &mut dyn Sink) -> Result<Option<Completion>, Failure> {
        self.held.logprobs.push(logprob);
        self.send(sink)?;
        Ok(None)
    }

    /// Takes a token that was drawn `at` this time; the completion where it ended the answer.
    pub fn token(
        &mut self,
        id: u32,
        logprob: Option<TokenLogprob>,
        at: Instant,
        sink: &mut dyn Sink,
    ) -> Result<Option<Completion>, Failure> {
        self.first_token.get_or_insert(at);
        self.last_token = Some(at);
        self.n_generated += 1;
        self.read(id);
        self.held.token_ids.push(id);
        self.held.logprobs.extend(logprob);
        self.send(sink)?;
        Ok(self.stopped.map(|_| self.finish(FinishReason::Stop)))
    }

    /// The model has ended the answer: what was held back is sent.
    pub fn end(&mut self, reason: FinishReason, sink: &mut dyn Sink) -> Result<Option<Completion>, Failure> {
        let mut rest = String::new();
        self.detokenizer.finish(&mut rest);
        if self.respelled > 0 {
            rest.clear();
        }
        let mut pieces = Vec::new();
        self.splitter.push(&rest, &mut pieces);
        self.splitter.finish(&mut pieces);
        self.take(pieces);
        if self.stopped.is_none() {
            let text = self.stops.finish();
            self.hold_text(text);
        }
        if self.held.is_shown() {
            self.send(sink)?;
        }
        let called = reason == FinishReason::Stop && self.splitter.has_calls();
        Ok(Some(self.finish(if called { FinishReason::ToolCalls } else { reason })))
    }

    /// The summary.
    pub fn finish(&self, finish_reason: FinishReason) -> Completion {
        let first = self.first_token.unwrap_or_else(Instant::now);
        Completion {
            finish_reason,
            usage: Usage { prompt_tokens: self.prompt_tokens, completion_tokens: self.n_generated },
            timings: Timings {
                cache_n: self.n_cached,
                prompt_n: self.prompt_tokens + self.n_resumed - self.n_cached,
                prompt_ms: (first - self.admitted).as_secs_f64() * 1e3,
                predicted_n: self.n_generated - self.n_resumed,
                predicted_ms: self.last_token.map_or(0.0, |last| (last - first).as_secs_f64() * 1e3),
            },
            stop_index: self.stopped,
        }
    }

    fn send(&mut self, sink: &mut dyn Sink) -> Result<(), Failure> {
        if sink.send(std::mem::take(&mut self.held)).is_break() {
            return Err(Failure::new(FailureKind::Cancelled, self.stage(), "the client has left"));
        }
        Ok(())
    }
}

/// Takes up to `n` bytes off the front of `text`, whole characters; how many it were.
fn cut(text: &mut String, n: usize) -> usize {
    let end = text.floor_char_boundary(n.min(text.len()));
    text.drain(..end);
    end
}
