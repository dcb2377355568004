//! Events of one submission, put together to a whole answer.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;
use downshift_scheduler::{Answer, Fallback};
use downshift_worker::{Completion, Delta, FinishReason, Timings, ToolCallDelta, Usage};
use serde::Serialize;

use crate::app::{App, unix_seconds};
use crate::ask::{Answers, Heard, Next};
use crate::disclosure::{Disclosure, fallback};
use crate::error::{ApiError, json_response};
use crate::ids::{CallIds, random_id};
use crate::openai::{FunctionCall, ToolCall, UsageBody, Whole};
use crate::token_names::{NamedLogprob, NamedPromptToken};

/// What one submission produced so far.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    pub text: String,
    pub reasoning: String,
    /// Tokens whose text is reasoning.
    pub reasoning_tokens: u32,
    pub calls: Vec<ToolCall>,
    pub logprobs: Vec<NamedLogprob>,
    /// Tokens of the prompt.
    pub prompt: Vec<NamedPromptToken>,
    /// Set at the end.
    pub answer: Option<Answer>,
    ids: CallIds,
}

impl Gathered {
    /// Takes a piece. With `one_call`, calls after the first are left out.
    pub fn take(&mut self, delta: Delta, logprobs: Vec<NamedLogprob>, one_call: bool) {
        self.reasoning_tokens += reasoning_tokens(&delta);
        self.text.push_str(&delta.text);
        self.reasoning.push_str(&delta.reasoning);
        self.logprobs.extend(logprobs);
        for ToolCallDelta { index, name, arguments } in delta.tool_calls {
            if one_call && index > 0 {
                continue;
            }
            let at = index as usize;
            while self.calls.len() <= at {
                let id = self.ids.of(self.calls.len() as u32).to_owned();
                self.calls.push(ToolCall { id, kind: "function", function: FunctionCall::default() });
            }
            let call = &mut self.calls[at].function;
            call.name.push_str(name.as_deref().unwrap_or_default());
            call.arguments.push_str(&arguments);
        }
    }
}

/// Tokens of `delta` whose text is reasoning.
pub(crate) fn reasoning_tokens(delta: &Delta) -> u32 {
    if delta.reasoning.is_empty() { 0 } else { delta.token_ids.len() as u32 }
}

/// Whole answers, and what is told of them together.
pub(crate) struct WholeAnswers {
    /// By index of the submission.
    pub gathered: Vec<Gathered>,
    pub told: Told,
}

/// What is told of one or several answers to a request.
pub(crate) struct Told {
    pub disclosure: Disclosure,
    pub fallback: Option<Fallback>,
    /// The model that gave the first answer.
    pub model: String,
    pub totals: Totals,
}

/// Waits for all of `answers`, which have `n` per prompt. The first that nobody gives ends them all.
pub(crate) async fn gather(mut answers: Answers, app: &App, n: usize, one_call: bool) -> Result<WholeAnswers, ApiError> {
    const AGES: Duration = Duration::from_secs(3600);
    let mut gathered: Vec<Gathered> = Vec::new();
    let mut totals = Totals::default();
    loop {
        let (index, heard) = match answers.next(AGES).await {
            Next::Silence => continue,
            Next::End => break,
            Next::Heard(index, heard) => (index, heard),
        };
        if gathered.len() <= index {
            gathered.resize_with(index + 1, Gathered::default);
        }
        match heard {
            Heard::Prompt(tokens) => gathered[index].prompt.extend(tokens),
            Heard::Delta(delta, logprobs) => gathered[index].take(delta, logprobs, one_call),
            Heard::Done(Err(refused)) => return Err(ApiError::refused(&refused)),
            Heard::Done(Ok(answer)) => {
                app.metrics.tokens(&answer);
                totals.add(&answer.output, !index.is_multiple_of(n));
                gathered[index].answer = Some(answer);
            }
            Heard::Loading { .. } | Heard::Failed(_) | Heard::Started { .. } | Heard::Continued { .. } => {}
        }
    }
    let first = gathered.first().and_then(|gathered| gathered.answer.as_ref());
    let Some(answer) = first.filter(|_| gathered.iter().all(|gathered| gathered.answer.is_some())) else {
        return Err(ApiError::refused(&answers.broken()));
    };
    let author = Some((answer.model.clone(), answer.device));
    let disclosure = Disclosure::new(answers.requested(), author, answers.attempts());
    let fallback = fallback(answers.requested(), answers.attempts());
    let told = Told { disclosure, fallback, model: answer.model.clone(), totals };
    Ok(WholeAnswers { gathered, told })
}

impl Told {
    /// The answer of an OpenAI route.
    pub fn response<C: Serialize>(self, id: &str, object: &'static str, choices: Vec<C>) -> Response {
        let Self { disclosure, fallback, model, totals } = self;
        let whole = Whole {
            id: random_id(id, 24),
            object,
            created: unix_seconds(),
            model,
            choices,
            usage: UsageBody::new(totals.usage, totals.timings.cache_n),
            fallback,
            timings: totals.timings.into(),
        };
        let mut response = json_response(StatusCode::OK, &whole);
        disclosure.write(response.headers_mut());
        response
    }
}

impl Gathered {
    /// OpenAI's word for why it ended.
    pub fn finish_reason(&self) -> &'static str {
        self.answer.as_ref().map_or(FinishReason::Stop, |answer| answer.output.finish_reason).as_str()
    }
}

/// Tokens and times of several submissions with one prompt each.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub usage: Usage,
    pub timings: Timings,
}

impl Totals {
    /// Adds a submission; `same_prompt` if its prompt was counted already.
    pub fn add(&mut self, completion: &Completion, same_prompt: bool) {
        let (usage, timings) = (&mut self.usage, &mut self.timings);
        if !same_prompt {
            usage.prompt_tokens = usage.prompt_tokens.saturating_add(completion.usage.prompt_tokens);
        }
        usage.completion_tokens = usage.completion_tokens.saturating_add(completion.usage.completion_tokens);
        timings.cache_n = timings.cache_n.saturating_add(completion.timings.cache_n);
        timings.prompt_n = timings.prompt_n.saturating_add(completion.timings.prompt_n);
        timings.predicted_n = timings.predicted_n.saturating_add(completion.timings.predicted_n);
        timings.prompt_ms += completion.timings.prompt_ms;
        timings.predicted_ms += completion.timings.predicted_ms;
    }
}
