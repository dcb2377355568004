//! Where one answer stands under its grammar: thinking, writing freely, or bound.

use llguidance::Matcher;
use llguidance::api::StopReason;
use llguidance::toktrie::{SimpleVob, TokEnv};

use crate::output::Marker;
use crate::sampler::{Constraint, ConstraintError};

/// A text that changes what follows, and its token where the vocabulary has one.
pub(crate) struct Found {
    pub text: &'static str,
    pub token: Option<u32>,
}

impl Found {
    pub fn of(marker: &Marker) -> Self {
        Self { text: marker.text, token: marker.token }
    }
}

/// When the grammar begins.
pub(crate) struct Begin {
    /// The token with which the model may begin to think, where nothing has decided that yet.
    pub thought: Option<u32>,
    /// The model is thinking already.
    pub is_thinking: bool,
    /// What ends a thought.
    pub close: Option<Found>,
    /// The answer is free until this is written, and again when the grammar is complete.
    pub trigger: Option<Found>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing was written: a thought or the answer begins.
    First,
    Thinking,
    /// Until the trigger.
    Free,
    Bound,
}

/// A grammar over one answer.
pub(crate) struct Guide {
    matcher: Matcher,
    /// The grammar at its start, for the next trigger.
    fresh: Option<Matcher>,
    env: TokEnv,
    begin: Begin,
    phase: Phase,
    /// The end of what was written freely, as far as a marker may begin in it.
    tail: Vec<u8>,
    broken: Option<ConstraintError>,
}

impl Guide {
    pub fn new(matcher: Matcher, env: TokEnv, begin: Begin) -> Self {
        let fresh = begin.trigger.is_some().then(|| matcher.deep_clone());
        let phase = match &begin {
            Begin { is_thinking: true, .. } => Phase::Thinking,
            Begin { thought: Some(_), .. } => Phase::First,
            Begin { trigger: Some(_), .. } => Phase::Free,
            Begin { trigger: None, .. } => Phase::Bound,
        };
        Self { matcher, fresh, env, begin, phase, tail: Vec::new(), broken: None }
    }

    /// Takes the text of an answer that another model has begun; without any, it may still be thinking.
    pub fn accept_text(&mut self, is_thinking: bool, text: &str) {
        if text.is_empty() {
            if is_thinking && self.phase == Phase::First {
                self.phase = Phase::Thinking;
            }
            return;
        }
        match self.begin.trigger {
            None => {
                self.phase = Phase::Bound;
                self.bind(text.as_bytes());
            }
            Some(_) => {
                self.phase = Phase::Free;
                self.tail = text.as_bytes().to_vec();
                self.trim_tail();
            }
        }
    }

    /// Leaves the thought, or finds the trigger.
    fn take_bound(&mut self, rest: &[u8]) {
        self.tail.clear();
        let rest = rest.trim_ascii_start();
        match (self.phase, &self.begin.trigger) {
            (Phase::Thinking, Some(_)) => {
                self.phase = Phase::Free;
                self.tail.extend_from_slice(rest);
            }
            (Phase::Thinking, None) => {
                self.phase = Phase::Bound;
                self.bind(rest);
            }
            _ => {
                if let Some(fresh) = &self.fresh {
                    self.matcher = fresh.deep_clone();
                }
                self.phase = Phase::Bound;
                let tokens = self.env.tok_trie().greedy_tokenize(rest);
                // What follows the trigger is no call: then it is text, and stays free.
                if self.matcher.try_consume_tokens(&tokens).is_ok_and(|n| n < tokens.len()) || self.matcher.is_error() {
                    self.phase = Phase::Free;
                }
                self.leave_if_complete();
            }
        }
    }

    fn bind(&mut self, bytes: &[u8]) {
        let tokens = self.env.tok_trie().greedy_tokenize(bytes);
        self.consume(&tokens);
    }

    fn consume(&mut self, tokens: &[u32]) {
        if let Err(error) = self.matcher.consume_tokens(tokens) {
            self.broken = Some(self.refusal(&error.to_string()));
        }
        self.leave_if_complete();
    }

    fn leave_if_complete(&mut self) {
        if self.phase == Phase::Bound && self.begin.trigger.is_some() && self.matcher.is_stopped() {
            self.phase = Phase::Free;
            self.tail.clear();
        }
    }

    fn refusal(&self, reason: &str) -> ConstraintError {
        let is_too_complex = matches!(self.matcher.stop_reason(), StopReason::LexerTooComplex | StopReason::ParserTooComplex);
        let reason = match is_too_complex {
            true => format!("the grammar is too complex: {}", super::readable(reason)),
            false => "no token of this model may follow under the grammar".to_owned(),
        };
        ConstraintError { reason, is_too_complex }
    }

    /// What ends the free text, in this phase.
    fn awaited(&self) -> Option<&Found> {
        if self.phase == Phase::Thinking { self.begin.close.as_ref() } else { self.begin.trigger.as_ref() }
    }

    /// Looks for what ends the free text after `token_id`.
    fn look(&mut self, token_id: u32) {
        let Some(awaited) = self.awaited() else { return };
        if awaited.token == Some(token_id) {
            return self.take_bound(&[]);
        }
        let text = awaited.text.as_bytes();
        self.tail.extend_from_slice(spelled(&self.env, token_id));
        match memchr::memmem::find(&self.tail, text) {
            Some(at) => {
                let rest = self.tail[at + text.len()..].to_vec();
                self.take_bound(&rest);
            }
            None => self.trim_tail(),
        }
    }

    fn trim_tail(&mut self) {
        let keep = self.awaited().map_or(0, |awaited| awaited.text.len() - 1);
        let excess = self.tail.len().saturating_sub(keep);
        self.tail.drain(..excess);
    }

    /// A thought must end, and nothing that the grammar does not know may share a token with its end.
    fn mask_thought(&self, logits: &mut [f32]) {
        let trie = self.env.tok_trie();
        for &end in trie.eos_tokens() {
            if let Some(logit) = logits.get_mut(end as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
        let Some(close) = &self.begin.close else { return };
        let text = close.text.as_bytes();
        if !(1..text.len()).any(|n| self.tail.ends_with(&text[..n])) {
            return;
        }
        let mut joined = self.tail.clone();
        for token_id in 0..trie.vocab_size() as u32 {
            joined.truncate(self.tail.len());
            joined.extend_from_slice(spelled(&self.env, token_id));
            let rest = memchr::memmem::find(&joined, text).map(|at| &joined[at + text.len()..]);
            if rest.is_some_and(|rest| !rest.trim_ascii().is_empty())
                && let Some(logit) = logits.get_mut(token_id as usize)
            {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
}

/// The text of a token; nothing for those that are no text.
fn spelled(env: &TokEnv, token_id: u32) -> &[u8] {
    let trie = env.tok_trie();
    if token_id as usize >= trie.vocab_size() || trie.is_special_token(token_id) { &[] } else { trie.token(token_id) }
}

impl Constraint for Guide {
    fn mask(&mut self, logits: &mut [f32]) -> Result<(), ConstraintError> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        let is_lazy = self.begin.trigger.is_some();
        match self.phase {
            Phase::Free => return Ok(()),
            Phase::First | Phase::Thinking if is_lazy => return Ok(()),
            Phase::Thinking => {
                self.mask_thought(logits);
                return Ok(());
            }
            Phase::First | Phase::Bound => {}
        }
        let thought = self.begin.thought.filter(|_| self.phase == Phase::First);
        let kept = thought.and_then(|id| logits.get(id as usize).copied());
        let allowed = match self.matcher.compute_mask_or_eos() {
            Ok(allowed) => allowed,
            Err(error) => return Err(self.refusal(&error.to_string())),
        };
        apply(&allowed, logits);
        if let (Some(id), Some(kept)) = (thought, kept) {
            logits[id as usize] = kept;
        }
        match logits.iter().any(|logit| *logit > f32::NEG_INFINITY) {
            true => Ok(()),
            false => Err(self.refusal("")),
        }
    }

    fn accept(&mut self, token_id: u32) {
        if self.broken.is_some() {
            return;
        }
        match self.phase {
            Phase::First if self.begin.thought == Some(token_id) => self.phase = Phase::Thinking,
            Phase::First if self.begin.trigger.is_some() => {
                self.phase = Phase::Free;
                self.look(token_id);
            }
            Phase::Thinking | Phase::Free => self.look(token_id),
            Phase::First | Phase::Bound => {
                self.phase = Phase::Bound;
                self.consume(&[token_id]);
            }
        }
    }

    fn is_complete(&self) -> bool {
        self.phase == Phase::Bound && self.begin.trigger.is_none() && self.broken.is_none() && self.matcher.is_stopped()
    }
}

/// Bans what is not allowed, and what the mask does not know.
fn apply(allowed: &SimpleVob, logits: &mut [f32]) {
    let words = allowed.as_slice().iter().copied().chain(std::iter::repeat(0));
    for (logits, word) in logits.chunks_mut(32).zip(words) {
        match word {
            0 => logits.fill(f32::NEG_INFINITY),
            u32::MAX => {}
            _ => {
                for (bit, logit) in logits.iter_mut().enumerate() {
                    *logit = if word >> bit & 1 == 1 { *logit } else { f32::NEG_INFINITY };
                }
            }
        }
    }
}
