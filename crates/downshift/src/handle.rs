//! The handle a program holds.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use downshift_scheduler::{Answer, Config, Scheduler};
use downshift_worker::{Input, RequestId, Usage};

use crate::Error;
use crate::ask::{Ask, Chat, Completion, Embed};
use crate::builder::{Builder, in_process};
use crate::pending::Pending;
use crate::reply::{Embeddings, Gather, Piece, Reply};
use crate::stream::ReplyStream;

/// Models that answer for each other. Clones are the same engine; it may be used from any thread.
///
/// When the last clone is dropped, running answers are stopped and the models are unloaded.
#[derive(Clone)]
pub struct Downshift {
    scheduler: Arc<Scheduler>,
}

impl Downshift {
    /// The models of a models.toml, in this process: `isolate` says what happens where the host names a worker program, as
    /// [`Builder::worker_program`] does.
    ///
    /// # Errors
    /// The file cannot be read, or something in it is wrong; the error names line, key and remedy.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        let config = Config::from_file(path.as_ref())?;
        Ok(Self::with_scheduler(Scheduler::new(config, in_process()?)))
    }

    /// One model, without any models.toml. A file that cannot be loaded shows when it is asked.
    ///
    /// # Errors
    /// The path has no name in it.
    pub fn from_model(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let spec = downshift_worker::ModelSpec::from_path(path);
        Self::builder().entry(downshift_scheduler::config::ModelEntry::new(spec)).build()
    }

    /// Models and settings made in code.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// An engine over a scheduler of the caller's making.
    pub fn with_scheduler(scheduler: Scheduler) -> Self {
        Self { scheduler: Arc::new(scheduler) }
    }

    /// What chooses among the models: states, counters, unloading.
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// The same, to be kept: a server holds it.
    pub fn share_scheduler(&self) -> Arc<Scheduler> {
        self.scheduler.clone()
    }

    /// What models.toml says.
    pub fn config(&self) -> &Config {
        self.scheduler.config()
    }

    /// Answers a conversation; blocks until the answer is whole. A model that fails half-way is replaced unnoticed.
    ///
    /// # Errors
    /// [`Error::Refused`] with every attempt.
    ///
    /// ```
    /// # use downshift::{Chat, Downshift, testing::Scripted};
    /// # let engine = Downshift::builder().model("chat", "c").launcher(Scripted::new().answers("chat", "Paris.")).build()?;
    /// let reply = engine.chat(Chat::new().system("Be brief.").user("Capital of France?").max_tokens(8))?;
    /// assert_eq!(reply.content, "Paris.");
    /// # Ok::<(), downshift::Error>(())
    /// ```
    pub fn chat(&self, chat: impl Into<Chat>) -> Result<Reply, Error> {
        self.ask(chat.into(), false, &mut |_| ControlFlow::Continue(()))
    }

    /// Answers a conversation and passes each piece to `take` as it comes; `Break` stops the answer.
    ///
    /// # Errors
    /// As [`Downshift::chat`]; also if the answer broke off after pieces were passed, and after `Break`.
    ///
    /// ```
    /// # use downshift::{Downshift, testing::Scripted};
    /// # let engine = Downshift::builder().model("chat", "c").launcher(Scripted::new().answers("chat", "one two")).build()?;
    /// use std::ops::ControlFlow;
    /// let mut shown = String::new();
    /// engine.chat_with("Count.", |piece| {
    ///     shown.push_str(&piece.text);
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert_eq!(shown, "one two");
    /// # Ok::<(), downshift::Error>(())
    /// ```
    pub fn chat_with(&self, chat: impl Into<Chat>, mut take: impl FnMut(Piece) -> ControlFlow<()>) -> Result<Reply, Error> {
        self.ask(chat.into(), true, &mut take)
    }

    /// Answers a conversation in a thread of its own; await it with any runtime. Dropping it stops the answer.
    ///
    /// ```
    /// # use downshift::{Downshift, testing::Scripted, testing::block_on};
    /// # let engine = Downshift::builder().model("chat", "c").launcher(Scripted::new().answers("chat", "Hello!")).build()?;
    /// let reply = block_on(async { engine.chat_async("Hi").await })?;
    /// assert_eq!(reply.content, "Hello!");
    /// # Ok::<(), downshift::Error>(())
    /// ```
    pub fn chat_async(&self, chat: impl Into<Chat>) -> Pending<Reply> {
        self.pending(chat.into())
    }

    /// Answers a conversation in a thread of its own, as a stream of pieces for any runtime. Dropping it stops the answer.
    ///
    /// ```
    /// # use downshift::{Downshift, testing::Scripted, testing::block_on};
    /// # let engine = Downshift::builder().model("chat", "c").launcher(Scripted::new().answers("chat", "one two")).build()?;
    /// use downshift::Update;
    /// let mut stream = engine.chat_stream("Count.");
    /// let mut shown = String::new();
    /// block_on(async {
    ///     while let Some(update) = stream.next().await {
    ///         match update? {
    ///             Update::Piece(piece) => shown.push_str(&piece.text),
    ///             Update::End(reply) => assert_eq!(reply.content, "one two"),
    ///         }
    ///     }
    ///     Ok::<(), downshift::Error>(())
    /// })?;
    /// assert_eq!(shown, "one two");
    /// # Ok::<(), downshift::Error>(())
    /// ```
    pub fn chat_stream(&self, chat: impl Into<Chat>) -> ReplyStream {
        ReplyStream::new(self, chat.into())
    }

    /// Continues a text; blocks until the answer is whole.
    ///
    /// # Errors
    /// As [`Downshift::chat`].
    pub fn completion(&self, text: impl Into<Completion>) -> Result<Reply, Error> {
        self.ask(text.into(), false, &mut |_| ControlFlow::Continue(()))
    }

    /// Continues a text and passes each piece to `take` as it comes; `Break` stops the answer.
    ///
    /// # Errors
    /// As [`Downshift::chat_with`].
    pub fn completion_with(&self, text: impl Into<Completion>, mut take: impl FnMut(Piece) -> ControlFlow<()>) -> Result<Reply, Error> {
        self.ask(text.into(), true, &mut take)
    }

    /// Continues a text in a thread of its own; see [`Downshift::chat_async`].
    pub fn completion_async(&self, text: impl Into<Completion>) -> Pending<Reply> {
        self.pending(text.into())
    }

    /// Continues a text as a stream of pieces; see [`Downshift::chat_stream`].
    pub fn completion_stream(&self, text: impl Into<Completion>) -> ReplyStream {
        ReplyStream::new(self, text.into())
    }

    /// Vectors of texts, in order. A fallback must declare the same `embedding_space` as the model asked for.
    ///
    /// # Errors
    /// As [`Downshift::chat`].
    ///
    /// ```no_run
    /// let engine = downshift::Downshift::from_file("models.toml")?;
    /// let found = engine.embed(["a cat", "a kitten"])?;
    /// assert_eq!(found.vectors.len(), 2);
    /// # Ok::<(), downshift::Error>(())
    /// ```
    pub fn embed(&self, texts: impl Into<Embed>) -> Result<Embeddings, Error> {
        self.vectors(self.scheduler.next_request_id(), texts.into())
    }

    /// Vectors of texts in a thread of its own; see [`Downshift::chat_async`].
    pub fn embed_async(&self, texts: impl Into<Embed>) -> Pending<Embeddings> {
        let (id, texts) = (self.scheduler.next_request_id(), texts.into());
        Pending::start(self, id, move |engine| engine.vectors(id, texts))
    }

    fn vectors(&self, id: RequestId, texts: Embed) -> Result<Embeddings, Error> {
        let (inputs, models, options) = texts.into_parts();
        let Answer { model, device, output, retries, fallback } = self.scheduler.embed(id, inputs, models, options)?;
        let usage = Usage { prompt_tokens: output.prompt_tokens, completion_tokens: 0 };
        Ok(Embeddings { model, device, vectors: output.vectors, usage, retries, fallback })
    }

    fn pending<I: Into<Input>>(&self, ask: Ask<I>) -> Pending<Reply> {
        let id = self.scheduler.next_request_id();
        let submission = ask.submission(id, false);
        Pending::start(self, id, move |engine| engine.submit(submission, &mut |_| ControlFlow::Continue(())))
    }

    fn ask<I: Into<Input>>(&self, ask: Ask<I>, stream: bool, take: &mut dyn FnMut(Piece) -> ControlFlow<()>) -> Result<Reply, Error> {
        let submission = ask.submission(self.scheduler.next_request_id(), stream);
        self.submit(submission, take)
    }

    pub(crate) fn submit(
        &self,
        submission: downshift_scheduler::Submission,
        take: &mut dyn FnMut(Piece) -> ControlFlow<()>,
    ) -> Result<Reply, Error> {
        let mut gather = Gather::new();
        let answer = self.scheduler.submit(submission, &mut |event| gather.hear(event, take))?;
        Ok(gather.reply(answer))
    }
}
