//! `downshift chat`: one answer, streamed as it comes or as one line of JSON. The conversation is in `repl.rs`.

use std::io::{self, IsTerminal, Write, stdin, stdout};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use downshift::{Attempt, Downshift, Message, Refused, ResponseFormat, SamplingParams};
use downshift_scheduler::{Answer, Event, Options, Submission};
use downshift_worker::{Input, Request, RequestId};
use serde_json::{Value, json};

use crate::setup::{self, Overrides};
use crate::terminal::{self, DIM, Progress};
use crate::{args, repl};

/// Longer prompts fit no context.
const MAX_PROMPT_BYTES: u64 = 64 << 20;
/// Longer schemas are refused by every model.
const MAX_SCHEMA_BYTES: u64 = 1 << 20;

pub fn run(args: &args::Chat) -> Result<ExitCode> {
    let overrides = Overrides { context: args.context, device: args.device, in_process: args.isolation.in_process, ..Overrides::default() };
    let setup = setup::engine(args.model.as_deref(), &args.config, overrides)?;
    let sampling = SamplingParams { temperature: args.temperature, seed: args.seed, ..SamplingParams::default() };
    let format = format(args)?;
    let asker = Asker { engine: setup.engine, model: setup.model, sampling, max_tokens: args.max_tokens, format };
    let messages = if args.messages {
        conversation()?
    } else {
        let system = args.system.as_deref().map(Message::system);
        let Some(prompt) = prompt(args)? else { return repl::run(asker, args.system.clone()) };
        system.into_iter().chain([Message::user(prompt)]).collect()
    };
    if args.json { once_as_json(&asker, messages) } else { once(&asker, messages) }
}

/// What the answer is to look like.
fn format(args: &args::Chat) -> Result<ResponseFormat> {
    let Some(given) = &args.json_schema else {
        return Ok(if args.json_object { ResponseFormat::JsonObject } else { ResponseFormat::Text });
    };
    let is_json = given.trim_start().starts_with(['{', '[']) || matches!(given.trim(), "true" | "false");
    let text = if is_json { given.clone() } else { terminal::read_file(Path::new(given), MAX_SCHEMA_BYTES)? };
    let schema = serde_json::from_str(&text)
        .with_context(|| if is_json { "--json-schema is not valid JSON".to_owned() } else { format!("{given} is not valid JSON") })?;
    Ok(ResponseFormat::JsonSchema(schema))
}

/// The prompt, or `None` where a person waits at the terminal.
fn prompt(args: &args::Chat) -> Result<Option<String>> {
    let prompt = match &args.prompt {
        Some(prompt) => prompt.clone(),
        None if stdin().is_terminal() && !args.json => return Ok(None),
        None => terminal::read_stdin("the prompt", MAX_PROMPT_BYTES)?,
    };
    if prompt.trim().is_empty() {
        bail!("the prompt is empty; give it as an argument or on stdin");
    }
    Ok(Some(prompt))
}

/// The conversation on stdin.
fn conversation() -> Result<Vec<Message>> {
    let text = terminal::read_stdin("the conversation", MAX_PROMPT_BYTES)?;
    let messages: Vec<Message> =
        serde_json::from_str(&text).context("stdin must be a JSON list of messages such as [{\"role\": \"user\", \"content\": \"Hi\"}]")?;
    if messages.is_empty() {
        bail!("the conversation on stdin has no messages");
    }
    Ok(messages)
}

fn once(asker: &Asker, messages: Vec<Message>) -> Result<ExitCode> {
    match asker.ask(asker.next_id(), messages)?.outcome {
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(refused) => {
            refusal(&refused);
            Ok(ExitCode::FAILURE)
        }
    }
}

fn once_as_json(asker: &Asker, messages: Vec<Message>) -> Result<ExitCode> {
    let mut hearing = Hearing::new(false);
    let (line, code) = match asker.submit(asker.next_id(), messages, &mut hearing) {
        Ok(answer) => (reply_json(answer, hearing.content, hearing.reasoning), ExitCode::SUCCESS),
        Err(refused) => {
            refusal(&refused);
            (refusal_json(&refused), ExitCode::FAILURE)
        }
    };
    writeln!(stdout().lock(), "{line}")?;
    Ok(code)
}

/// Asks an engine the same way each time.
pub struct Asker {
    pub engine: Downshift,
    /// The model a request names; `None` leaves it to models.toml.
    pub model: Option<String>,
    pub sampling: SamplingParams,
    pub max_tokens: Option<u32>,
    pub format: ResponseFormat,
}

/// What was shown, and how it ended.
pub struct Shown {
    pub content: String,
    pub outcome: Result<Answer, Refused>,
}

impl Asker {
    /// An id for the next question, by which it can be cancelled.
    pub fn next_id(&self) -> RequestId {
        self.engine.scheduler().next_request_id()
    }

    /// Streams an answer to stdout.
    ///
    /// # Errors
    /// Stdout cannot be written. That no model answers is an outcome.
    pub fn ask(&self, id: RequestId, messages: Vec<Message>) -> io::Result<Shown> {
        let mut hearing = Hearing::new(true);
        let outcome = self.submit(id, messages, &mut hearing);
        hearing.written?;
        let thought = hearing.to_terminal && hearing.content.is_empty() && !hearing.reasoning.is_empty();
        if thought || !(hearing.content.is_empty() || hearing.content.ends_with('\n')) {
            writeln!(stdout().lock())?;
        }
        Ok(Shown { content: hearing.content, outcome })
    }

    fn submit(&self, id: RequestId, messages: Vec<Message>, hearing: &mut Hearing) -> Result<Answer, Refused> {
        let input = Input::chat(messages);
        let (sampling, format) = (self.sampling.clone(), self.format.clone());
        let request = Request { sampling, max_tokens: self.max_tokens, format, ..Request::new(id, input) };
        let options = Options { stream: hearing.streams, ..Options::default() };
        let submission = Submission { request, models: self.model.iter().cloned().collect(), options };
        self.engine.scheduler().submit(submission, &mut |event| hearing.hear(event))
    }
}

/// Hears of an answer as it comes, and shows it.
struct Hearing {
    streams: bool,
    to_terminal: bool,
    progress: Option<Progress>,
    failed: Vec<Attempt>,
    content: String,
    reasoning: String,
    written: io::Result<()>,
}

impl Hearing {
    fn new(streams: bool) -> Self {
        let to_terminal = stdout().is_terminal();
        Self { streams, to_terminal, progress: None, failed: Vec::new(), content: String::new(), reasoning: String::new(), written: Ok(()) }
    }

    fn hear(&mut self, event: Event<'_>) -> ControlFlow<()> {
        match event {
            Event::Loading { model, done_bytes, total_bytes } => {
                let progress = self.progress.get_or_insert_with(|| Progress::new(format!("loading {model}")));
                progress.update(done_bytes, total_bytes);
            }
            Event::Failed(attempt) => {
                self.progress = None;
                self.failed.push(attempt.clone());
            }
            Event::Started { model, .. } => {
                self.progress = None;
                self.announce(&format!("{model} answers instead"));
            }
            Event::Continued { from, to, .. } => {
                self.progress = None;
                self.announce(&format!("{to} goes on where {from} broke off"));
            }
            Event::Delta(delta) => {
                if self.streams {
                    self.written = self.think(&delta.reasoning).and_then(|()| self.show(&delta.text));
                }
                self.reasoning.push_str(&delta.reasoning);
                self.content.push_str(&delta.text);
            }
        }
        if self.written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    /// One line where a gear was dropped.
    fn announce(&mut self, what: &str) {
        let reasons: Vec<String> = self.failed.drain(..).map(|attempt| attempt.to_string()).collect();
        if reasons.is_empty() {
            return;
        }
        // A half-written line of the answer is left alone.
        let apart = if self.streams && self.to_terminal && !self.content.is_empty() { "\n" } else { "" };
        terminal::note(&format!("{apart}{what}: {}", reasons.join("; ")));
    }

    /// Thoughts are for a person who watches, and no part of the answer.
    fn think(&self, text: &str) -> io::Result<()> {
        if self.to_terminal && !text.is_empty() {
            let mut out = anstream::stdout().lock();
            write!(out, "{DIM}{}{DIM:#}", tame(text))?;
            out.flush()?;
        }
        Ok(())
    }

    fn show(&self, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let mut out = stdout().lock();
        if self.to_terminal {
            let apart = if self.content.is_empty() && !self.reasoning.is_empty() { "\n\n" } else { "" };
            write!(out, "{apart}{}", tame(text))?;
        } else {
            out.write_all(text.as_bytes())?;
        }
        out.flush()
    }
}

/// What a model says must not steer the terminal.
fn tame(text: &str) -> String {
    let tame = |c: char| if c.is_control() && !matches!(c, '\n' | '\t') { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().map(tame).collect()
}

/// Says why nobody answered, with every attempt.
pub fn refusal(refused: &Refused) {
    if refused.attempts.is_empty() {
        return terminal::error(&anyhow::anyhow!("{}", refused.failure));
    }
    let what = if refused.shown { "the answer broke off" } else { "no model could answer" };
    terminal::error(&anyhow::anyhow!("{what}"));
    for attempt in &refused.attempts {
        terminal::say(&format!("  {attempt}"));
    }
    match refused.retry_after {
        Some(_) => terminal::note("Trying again later may help."),
        None => terminal::note("`downshift check` looks at every model of models.toml, `downshift verify FILE` at one file."),
    }
}

fn reply_json(answer: Answer, content: String, reasoning: String) -> Value {
    let (usage, timings) = (answer.output.usage, answer.output.timings);
    let mut reply = json!({
        "model": answer.model,
        "content": content,
        "finish_reason": answer.output.finish_reason,
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        },
        "timings": {
            "cache_n": timings.cache_n,
            "prompt_n": timings.prompt_n,
            "prompt_ms": timings.prompt_ms,
            "prompt_per_second": per_second(timings.prompt_n, timings.prompt_ms),
            "predicted_n": timings.predicted_n,
            "predicted_ms": timings.predicted_ms,
            "predicted_per_second": per_second(timings.predicted_n, timings.predicted_ms),
        },
    });
    if !reasoning.is_empty() {
        reply["reasoning"] = json!(reasoning);
    }
    if let Some(fallback) = answer.fallback {
        reply["fallback"] = json!(fallback);
    }
    reply
}

fn refusal_json(refused: &Refused) -> Value {
    json!({"error": {
        "message": refused.failure.message,
        "kind": refused.failure.kind.as_str(),
        "stage": refused.failure.stage,
        "attempts": refused.attempts,
    }})
}

/// `null` where no time passed.
fn per_second(tokens: u32, ms: f64) -> Option<f64> {
    (ms > 0.0).then(|| f64::from(tokens) * 1000.0 / ms)
}
