//! One answer in the making: tokens become text, stop strings end it, and the sink gets whole characters.

use std::time::Instant;

use downshift_worker::{Completion, Delta, Failure, FailureKind, FinishReason, Request, Resume, Sink, Stage, Timings, TokenLogprob, Usage};

use crate::error::Error;
use crate::prompt::PromptBuilder;
use crate::sampler::{StopMatcher, StopStep};
use crate::tokenizer::Detokenizer;

/// The state of one request on the caller's side.
pub(crate) struct Answer<'a> {
    detokenizer: Detokenizer<'a>,
    stops: StopMatcher,
    held: Delta,
    /// Bytes that an earlier attempt has shown and that are not sent again.
    shown_bytes: usize,
    prompt_tokens: u32,
    n_generated: u32,
    n_resumed: u32,
    n_cached: u32,
    admitted: Instant,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
}

impl<'a> Answer<'a> {
    /// # Errors
    /// Stop strings that are empty or too long.
    pub fn new(prompts: &'a PromptBuilder, request: &Request, prompt: &[u32], resumed: &[u32]) -> Result<Self, Error> {
        let mut answer = Self {
            detokenizer: Detokenizer::new(prompts.tokenizer(), prompt.last().copied()),
            stops: StopMatcher::new(request.stop.clone())?,
            held: Delta::default(),
            shown_bytes: 0,
            prompt_tokens: prompt.len() as u32,
            n_generated: resumed.len() as u32,
            n_resumed: resumed.len() as u32,
            n_cached: 0,
            admitted: Instant::now(),
            first_token: None,
            last_token: None,
        };
        if let Some(Resume::Tokens { shown_bytes, .. }) = &request.resume {
            answer.shown_bytes = *shown_bytes;
            for &id in resumed {
                let matched = answer.matched(id);
                answer.held.text.push_str(&matched.text);
            }
            let shown = answer.shown_bytes.min(answer.held.text.len());
            answer.held.text.drain(..shown);
        }
        Ok(answer)
    }

    /// The text that `id` completes, as far as it can be no stop string.
    fn matched(&mut self, id: u32) -> StopStep {
        let mut text = String::new();
        self.detokenizer.push(id, &mut text);
        self.stops.push(&text)
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
        let matched = self.matched(id);
        self.held.text.push_str(&matched.text);
        self.held.token_ids.push(id);
        self.held.logprobs.extend(logprob);
        self.send(sink)?;
        Ok(matched.stopped.map(|_| self.finish(FinishReason::Stop)))
    }

    /// The model has ended the answer: what was held back is sent.
    pub fn end(&mut self, reason: FinishReason, sink: &mut dyn Sink) -> Result<Option<Completion>, Failure> {
        let mut rest = String::new();
        self.detokenizer.finish(&mut rest);
        let matched = self.stops.push(&rest);
        self.held.text.push_str(&matched.text);
        if matched.stopped.is_none() {
            self.held.text.push_str(&self.stops.finish());
        }
        if !self.held.text.is_empty() {
            self.send(sink)?;
        }
        Ok(Some(self.finish(reason)))
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
        }
    }

    fn send(&mut self, sink: &mut dyn Sink) -> Result<(), Failure> {
        if sink.send(std::mem::take(&mut self.held)).is_break() {
            return Err(Failure::new(FailureKind::Cancelled, self.stage(), "the client has left"));
        }
        Ok(())
    }
}
