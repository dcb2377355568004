//! The chunks of an OpenAI stream: chat and completions differ only in their choices.
//!
//! Owns the order of a stream: nothing before the first real text, one id, one opening per choice, exactly one ending. What came
//! before it in vain is told in the headers if they are not sent yet, else in the first chunk; always in the first chunk.

use std::sync::Arc;

use axum::response::Response;
use downshift_scheduler::{Answer, Refused};
use downshift_worker::Delta;
use serde::Serialize;
use serde_json::{Value, json};

use crate::app::{App, unix_seconds};
use crate::ask::{Answers, Begun, Heard, Next};
use crate::disclosure::{Disclosure, fallback};
use crate::error::ApiError;
use crate::gather::Totals;
use crate::ids::random_id;
use crate::openai::{Chunk, TimingsBody, UsageBody};
use crate::sse::{self, Framing, Gone, Writer};
use crate::token_names::NamedLogprob;

/// What makes a stream one of chat or of completions.
pub(crate) trait Dialect: Send + 'static {
    /// The choice of a chunk.
    type Choice: Serialize + Send + Sync;
    /// What ids begin with.
    const ID: &'static str;
    /// `object` of each chunk.
    const OBJECT: &'static str;

    /// What a choice begins with.
    fn opening(&mut self, index: usize) -> Option<Self::Choice>;

    /// A piece of a choice; `None` if it would say nothing.
    fn piece(&mut self, index: usize, delta: Delta, logprobs: Vec<NamedLogprob>) -> Option<Self::Choice>;

    /// The end of a choice.
    fn finish(&mut self, index: usize, reason: &'static str) -> Self::Choice;
}

/// Streams `answers`, which have `n` choices per prompt; an error before the first text is a plain one.
pub(crate) async fn respond<D: Dialect>(
    mut answers: Answers,
    app: &Arc<App>,
    dialect: D,
    n: usize,
    include_usage: bool,
) -> Result<Response, ApiError> {
    let begun = answers.begin(app.options.limits.silence).await;
    if let Begun::Refused(refused) = begun {
        return Err(ApiError::refused(&refused));
    }
    let (writer, mut response) = sse::stream(Framing::Events);
    Disclosure::new(answers.requested(), answers.author(), answers.attempts()).write(response.headers_mut());
    let stream = Stream {
        app: app.clone(),
        id: random_id(D::ID, 24),
        created: unix_seconds(),
        author: answers.requested().to_owned(),
        dialect,
        writer,
        n,
        include_usage,
        told_attempts: 0,
        notice: None,
        totals: Totals::default(),
    };
    // A client that has left stops the task by its writer; nobody waits for the task itself.
    app.runtime.spawn(stream.run(answers, matches!(begun, Begun::Silent)));
    Ok(response)
}

/// A stream that is under way.
struct Stream<D> {
    app: Arc<App>,
    id: String,
    created: u64,
    /// The model that wrote last.
    author: String,
    dialect: D,
    writer: Writer,
    n: usize,
    include_usage: bool,
    /// Failed attempts that were told.
    told_attempts: usize,
    /// What is to be told on the next chunk with a choice.
    notice: Option<Value>,
    totals: Totals,
}

impl<D: Dialect> Stream<D> {
    async fn run(mut self, mut answers: Answers, silent: bool) {
        let written = async {
            if silent {
                self.writer.comment(&answers.waits_for()).await?;
            }
            self.pass_on(&mut answers).await
        };
        // The client has left, and dropping `answers` ends what it asked for.
        let _ = written.await;
    }

    async fn pass_on(&mut self, answers: &mut Answers) -> Result<(), Gone> {
        let silence = self.app.options.limits.silence;
        let writer = self.writer.clone();
        loop {
            let (index, heard) = match writer.unless_gone(answers.next(silence)).await? {
                Next::Silence => {
                    self.writer.comment(&answers.waits_for()).await?;
                    continue;
                }
                Next::End => return self.break_off(0, &answers.broken()).await,
                Next::Heard(index, heard) => (index, heard),
            };
            match heard {
                // No stream tells of the prompt.
                Heard::Loading { .. } | Heard::Failed(_) | Heard::Prompt(_) => {}
                Heard::Started { model, .. } => {
                    self.author = model;
                    if answers.attempts().len() > self.told_attempts {
                        self.told_attempts = answers.attempts().len();
                        self.notice = Some(json!(fallback(answers.requested(), answers.attempts())));
                    }
                    if let Some(choice) = self.dialect.opening(index) {
                        self.choice(choice).await?;
                    }
                }
                Heard::Continued { from, to, reason } => {
                    self.author = to;
                    self.told_attempts = answers.attempts().len();
                    self.notice = Some(json!({"from": from, "reason": reason}));
                }
                Heard::Delta(delta, logprobs) => {
                    if let Some(choice) = self.dialect.piece(index, delta, logprobs) {
                        self.choice(choice).await?;
                    }
                }
                Heard::Done(Err(refused)) => return self.break_off(index, &refused).await,
                Heard::Done(Ok(answer)) => {
                    if self.end_choice(index, answer, answers.has_ended()).await? {
                        return self.writer.done().await;
                    }
                }
            }
        }
    }

    /// True after the last one.
    async fn end_choice(&mut self, index: usize, answer: Answer, is_last: bool) -> Result<bool, Gone> {
        self.totals.add(&answer.output, !index.is_multiple_of(self.n));
        self.app.metrics.tokens(&answer);
        let choice = self.dialect.finish(index, answer.output.finish_reason.as_str());
        let timings = is_last.then(|| TimingsBody::from(self.totals.timings));
        let mut chunk = self.chunk(vec![choice]);
        chunk.fallback = self.notice.take();
        if !self.include_usage {
            chunk.timings = timings;
        }
        self.writer.event(&chunk).await?;
        if is_last && self.include_usage {
            let usage = UsageBody::new(self.totals.usage, self.totals.timings.cache_n);
            self.writer.event(&Chunk { usage: Some(Some(usage)), timings, ..self.chunk(Vec::new()) }).await?;
        }
        Ok(is_last)
    }

    /// The end of a stream that was cut: one error, and nothing that could be taken for a good end.
    async fn break_off(&mut self, index: usize, refused: &Refused) -> Result<(), Gone> {
        let error = ApiError::refused(refused).to_json();
        let choice = self.dialect.finish(index, "error");
        self.writer.event(&Chunk { error: Some(error), ..self.chunk(vec![choice]) }).await
    }

    async fn choice(&mut self, choice: D::Choice) -> Result<(), Gone> {
        let mut chunk = self.chunk(vec![choice]);
        chunk.fallback = self.notice.take();
        self.writer.event(&chunk).await
    }

    fn chunk(&self, choices: Vec<D::Choice>) -> Chunk<D::Choice> {
        Chunk {
            id: self.id.clone(),
            object: D::OBJECT,
            created: self.created,
            model: self.author.clone(),
            choices,
            usage: self.include_usage.then_some(None),
            fallback: None,
            timings: None,
            error: None,
        }
    }
}
