//! `POST /v1/completions`: text or tokens, continued as they are or up to a suffix.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use downshift_worker::{Delta, Input, Prompt};

use crate::app::App;
use crate::body::Payload;
use crate::error::ApiError;
use crate::gather::{Gathered, gather};
use crate::generation::{Generation, suffix, top_logprobs};
use crate::guard::Id;
use crate::legacy_logprobs::LegacyLogprobs;
use crate::openai::{CommonFields, CompletionChoice, CompletionChunkChoice, CompletionFields};
use crate::stream::{Dialect, respond};
use crate::text::text_of;
use crate::token_names::NamedLogprob;

/// Prompts times answers of one request.
const MOST_ANSWERS: usize = 128;
/// Log-probabilities of prompts that one request may ask for, alternatives counted; there is a token for a byte at most.
const MOST_OF_PROMPTS: usize = 1 << 20;
/// Tokens of an answer whose length is left open, as OpenAI has it.
const USUAL_TOKENS: u32 = 16;

pub(crate) async fn create(State(app): State<Arc<App>>, Extension(Id(id)): Extension<Id>, payload: Payload) -> Result<Response, ApiError> {
    let fields: CompletionFields = payload.parse()?;
    let mut generation = Generation::from_fields(&app, payload.parse::<CommonFields>()?)?;
    let prompts = fields.prompt.0;
    if prompts.is_empty() {
        return Err(ApiError::param("prompt", "`prompt` is an empty list"));
    }
    let suffix = suffix(fields.suffix)?;
    generation.max_tokens = generation.max_tokens.or(Some(USUAL_TOKENS));
    let wants_logprobs = fields.logprobs.is_some();
    generation.logprobs = fields.logprobs.map(|number| top_logprobs("logprobs", number)).transpose()?;
    let shown = generation.n as usize;
    let drawn = best_of(fields.best_of, &mut generation)?;
    if prompts.len() * drawn > MOST_ANSWERS {
        let message = format!("the request asks for {} answers, and may ask for {MOST_ANSWERS}", prompts.len() * drawn);
        return Err(ApiError::param("prompt", message));
    }
    let echoes = fields.echo.unwrap_or(false);
    if echoes && wants_logprobs {
        check_scored(&prompts, suffix.as_deref(), drawn, &generation)?;
        generation.prompt_logprobs = generation.logprobs;
    }
    let echoed = if echoes { echoed(&app, &generation, &prompts).await? } else { Vec::new() };
    let inputs = prompts.into_iter().map(|prompt| up_to(suffix.clone(), prompt)).collect();
    let mut answers = app.ask(generation.submissions(&app, id, inputs))?;
    answers.hold(payload.into_room());
    if generation.options.stream {
        let dialect = CompletionDialect { n: drawn, wants_logprobs, echoed, offsets: Vec::new() };
        return respond(answers, &app, dialect, drawn, generation.include_usage).await;
    }
    let whole = gather(answers, &app, drawn, false).await?;
    let mut choices = Vec::new();
    for (prompt_at, mut group) in in_groups(whole.gathered, drawn).into_iter().enumerate() {
        if drawn > shown {
            group.sort_by(|one, two| mean_logprob(two).total_cmp(&mean_logprob(one)));
            group.truncate(shown);
        }
        let echo = echoed.get(prompt_at).map_or("", String::as_str);
        for gathered in group {
            let logprobs = wants_logprobs.then(|| {
                let mut logprobs = LegacyLogprobs::of_prompt(echo, &gathered.prompt);
                logprobs.extend(&gathered.logprobs, echo.chars().count());
                logprobs
            });
            let finish_reason = gathered.finish_reason();
            choices.push(CompletionChoice { index: choices.len(), text: format!("{echo}{}", gathered.text), logprobs, finish_reason });
        }
    }
    Ok(whole.told.response("cmpl-", "text_completion", choices))
}

fn up_to(suffix: Option<String>, prompt: Prompt) -> Input {
    match suffix {
        Some(suffix) => Input::Infill { prefix: prompt, suffix },
        None => Input::Completion(prompt),
    }
}

/// Answers drawn per prompt, of which the best are shown; they are told apart by their log-probabilities.
fn best_of(best_of: Option<u32>, generation: &mut Generation) -> Result<usize, ApiError> {
    let n = generation.n;
    // 0 is how some clients say that it is not given.
    let drawn = best_of.filter(|drawn| *drawn > 0).unwrap_or(n);
    if drawn < n || drawn > 16 {
        return Err(ApiError::param("best_of", format!("`best_of` is {drawn}, and can be from `n` ({n}) to 16")));
    }
    if drawn > n && generation.options.stream {
        return Err(ApiError::param("best_of", "`best_of` cannot be streamed: which answer is best is known at the end"));
    }
    if drawn > n {
        generation.n = drawn;
        generation.logprobs = generation.logprobs.or(Some(0));
    }
    Ok(drawn as usize)
}

fn mean_logprob(gathered: &Gathered) -> f32 {
    let logprobs = &gathered.logprobs;
    logprobs.iter().map(|found| found.logprob.max(-9999.0)).sum::<f32>() / logprobs.len().max(1) as f32
}

fn in_groups(gathered: Vec<Gathered>, of: usize) -> Vec<Vec<Gathered>> {
    let mut groups: Vec<Vec<Gathered>> = Vec::new();
    for (at, gathered) in gathered.into_iter().enumerate() {
        if at.is_multiple_of(of) {
            groups.push(Vec::new());
        }
        if let Some(group) = groups.last_mut() {
            group.push(gathered);
        }
    }
    groups
}

/// Whether the tokens of the prompts may be told with their log-probabilities.
fn check_scored(prompts: &[Prompt], suffix: Option<&str>, drawn: usize, generation: &Generation) -> Result<(), ApiError> {
    if generation.options.stream {
        return Err(ApiError::param("echo", "`echo` with `logprobs` cannot be streamed"));
    }
    if suffix.is_some() {
        return Err(ApiError::param("echo", "`echo` with `logprobs` is of a prompt without `suffix`"));
    }
    let longest = |prompt: &Prompt| match prompt {
        Prompt::Text(text) => text.len(),
        Prompt::Tokens(token_ids) => token_ids.len(),
    };
    let per_token = 1 + usize::from(generation.logprobs.unwrap_or(0));
    let asked = prompts.iter().map(longest).sum::<usize>() * per_token * drawn;
    if asked > MOST_OF_PROMPTS {
        let message =
            format!("`echo` with `logprobs` asks for up to {asked} log-probabilities of the prompt, and may ask for {MOST_OF_PROMPTS}");
        return Err(ApiError::param("prompt", message));
    }
    Ok(())
}

/// The texts of the prompts.
async fn echoed(app: &Arc<App>, generation: &Generation, prompts: &[Prompt]) -> Result<Vec<String>, ApiError> {
    let model = app.requested(&generation.models);
    let mut texts = Vec::new();
    for prompt in prompts {
        texts.push(match prompt {
            Prompt::Text(text) => text.clone(),
            Prompt::Tokens(ids) => text_of(app, model.clone(), ids.clone()).await?,
        });
    }
    Ok(texts)
}

/// The chunks of completions.
struct CompletionDialect {
    /// Answers per prompt.
    n: usize,
    wants_logprobs: bool,
    /// By prompt; empty if prompts are not repeated.
    echoed: Vec<String>,
    /// Characters said of each choice.
    offsets: Vec<usize>,
}

impl Dialect for CompletionDialect {
    type Choice = CompletionChunkChoice;
    const ID: &'static str = "cmpl-";
    const OBJECT: &'static str = "text_completion";

    fn opening(&mut self, index: usize) -> Option<CompletionChunkChoice> {
        let text = self.echoed.get(index / self.n)?.clone();
        Some(CompletionChunkChoice { index, text, logprobs: None, finish_reason: None })
    }

    fn piece(&mut self, index: usize, delta: Delta, logprobs: Vec<NamedLogprob>) -> Option<CompletionChunkChoice> {
        if delta.text.is_empty() && logprobs.is_empty() {
            return None;
        }
        if self.offsets.len() <= index {
            self.offsets.resize(index + 1, 0);
        }
        let legacy = (self.wants_logprobs && !logprobs.is_empty()).then(|| LegacyLogprobs::new(&logprobs, self.offsets[index]));
        self.offsets[index] += logprobs.iter().map(|found| found.token.chars().count()).sum::<usize>();
        Some(CompletionChunkChoice { index, text: delta.text, logprobs: legacy, finish_reason: None })
    }

    fn finish(&mut self, index: usize, reason: &'static str) -> CompletionChunkChoice {
        CompletionChunkChoice { index, text: String::new(), logprobs: None, finish_reason: Some(reason) }
    }
}
