//! The stream of a dialect that is not OpenAI's chunks: one answer, told in frames of the dialect's own.
//!
//! Owns the order, as `stream` does for chunks: nothing before the first real text, exactly one ending, and a client that has
//! left ends the submission. The dialect owns what its frames say.

use std::sync::Arc;

use axum::response::Response;
use downshift_scheduler::Answer;
use downshift_worker::Delta;
use serde_json::{Value, json};

use crate::app::App;
use crate::ask::{Answers, Begun, Heard, Next};
use crate::disclosure::{Disclosure, fallback};
use crate::error::ApiError;
use crate::sse::{Framing, Gone, Writer, stream};
use crate::token_names::NamedLogprob;

/// One piece of a stream.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Frame {
    /// A line of JSON.
    Line(Value),
    /// A server-sent event of this name.
    Event(&'static str, Value),
    /// A server-sent comment.
    Comment(String),
}

/// Says in its dialect what happens. `notice` is what clients are told when a gear was dropped.
pub(crate) trait Narrator: Send + 'static {
    const FRAMING: Framing;

    /// `model` answers; text follows.
    fn begin(&mut self, model: &str, notice: Option<Value>) -> Vec<Frame>;

    /// A piece of the answer.
    fn piece(&mut self, delta: Delta, logprobs: Vec<NamedLogprob>) -> Vec<Frame>;

    /// The answer broke off, and `model` goes on.
    fn continued(&mut self, model: &str, notice: Value) -> Vec<Frame>;

    /// The answer is whole.
    fn end(&mut self, answer: &Answer) -> Vec<Frame>;

    /// The answer ends here, and is not whole.
    fn broken(&mut self, error: &ApiError) -> Vec<Frame>;

    /// Nothing has come for a while; `what` is being done.
    fn silence(&mut self, what: &str) -> Option<Frame>;
}

/// Streams the one submission of `answers`; an error before the first text is a plain one.
pub(crate) async fn narrate<N: Narrator>(mut answers: Answers, app: &Arc<App>, narrator: N) -> Result<Response, ApiError> {
    let begun = answers.begin(app.options.limits.silence).await;
    if let Begun::Refused(refused) = begun {
        return Err(ApiError::refused(&refused));
    }
    let (writer, mut response) = stream(N::FRAMING);
    Disclosure::new(answers.requested(), answers.author(), answers.attempts()).write(response.headers_mut());
    let silent = matches!(begun, Begun::Silent);
    let narration = Narration { app: app.clone(), narrator, writer };
    // A client that has left stops the task by its writer; nobody waits for the task itself.
    app.runtime.spawn(narration.run(answers, silent));
    Ok(response)
}

struct Narration<N> {
    app: Arc<App>,
    narrator: N,
    writer: Writer,
}

impl<N: Narrator> Narration<N> {
    async fn run(mut self, mut answers: Answers, silent: bool) {
        let told = async {
            if silent {
                let frames = Vec::from_iter(self.narrator.silence(&answers.waits_for()));
                write(&self.writer, frames).await?;
            }
            self.tell(&mut answers).await
        };
        // The client has left, and dropping `answers` ends what it asked for.
        let _ = told.await;
    }

    async fn tell(&mut self, answers: &mut Answers) -> Result<(), Gone> {
        let silence = self.app.options.limits.silence;
        let writer = self.writer.clone();
        loop {
            let frames = match writer.unless_gone(answers.next(silence)).await? {
                Next::Silence => Vec::from_iter(self.narrator.silence(&answers.waits_for())),
                Next::End => {
                    let frames = self.narrator.broken(&ApiError::refused(&answers.broken()));
                    return write(&self.writer, frames).await;
                }
                Next::Heard(_, Heard::Loading { .. } | Heard::Failed(_) | Heard::Prompt(_)) => continue,
                Next::Heard(_, Heard::Started { model, .. }) => {
                    let notice = fallback(answers.requested(), answers.attempts()).map(|fallback| json!(fallback));
                    self.narrator.begin(&model, notice)
                }
                Next::Heard(_, Heard::Continued { from, to, reason }) => {
                    self.narrator.continued(&to, json!({"from": from, "reason": reason}))
                }
                Next::Heard(_, Heard::Delta(delta, logprobs)) => self.narrator.piece(delta, logprobs),
                Next::Heard(_, Heard::Done(Ok(answer))) => {
                    self.app.metrics.tokens(&answer);
                    let frames = self.narrator.end(&answer);
                    return write(&self.writer, frames).await;
                }
                Next::Heard(_, Heard::Done(Err(refused))) => {
                    let frames = self.narrator.broken(&ApiError::refused(&refused));
                    return write(&self.writer, frames).await;
                }
            };
            write(&self.writer, frames).await?;
        }
    }
}

async fn write(writer: &Writer, frames: Vec<Frame>) -> Result<(), Gone> {
    for frame in frames {
        match frame {
            Frame::Line(value) => writer.write(b"", &value, b"\n").await?,
            Frame::Event(name, value) => writer.write(format!("event: {name}\ndata: ").as_bytes(), &value, b"\n\n").await?,
            Frame::Comment(text) => writer.comment(&text).await?,
        }
    }
    Ok(())
}
