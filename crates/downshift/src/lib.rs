//! Local models that fall back to the next one instead of failing.
//!
//! An ordered list of models on disk; the first is the primary. When one cannot be loaded, does not fit, crashes, stalls or
//! answers with nonsense, the next one answers, and the reply says so: sync, with a callback, or async.
//!
//! ```
//! use downshift::{Downshift, FailureKind, testing::Scripted};
//!
//! // Without `.launcher(..)` these would be real files.
//! let models = Scripted::new().fails("chat", FailureKind::Missing).answers("tiny", "Hello!");
//! let engine = Downshift::builder().model("chat", "chat.gguf").model("tiny", "tiny.gguf").launcher(models).build()?;
//!
//! let reply = engine.chat("Hi")?;
//! assert_eq!(reply.content, "Hello!");
//! assert_eq!(reply.model, "tiny");
//! let fallback = reply.fallback.expect("the first model failed");
//! assert_eq!(fallback.requested, "chat");
//! assert_eq!(fallback.attempts[0].kind, FailureKind::Missing);
//! # Ok::<(), downshift::Error>(())
//! ```
//!
//! With real models, name them in a `models.toml` beside your program:
//!
//! ```toml
//! [models.chat]
//! path = "Qwen3-4B-Q4_K_M.gguf"
//!
//! [models.tiny]                 # answers when `chat` cannot
//! path = "Qwen3-0.6B-Q8_0.gguf"
//! ```
//!
//! ```no_run
//! use std::ops::ControlFlow;
//! let engine = downshift::Downshift::from_file("models.toml")?;
//! engine.chat_with("Why is the sky blue?", |piece| {
//!     eprint!("{}", piece.text);
//!     ControlFlow::Continue(())
//! })?;
//! # Ok::<(), downshift::Error>(())
//! ```
//!
//! Models run in this process by default: errors and panics are caught, but an abort, SIGBUS (a file cut short while it is
//! mapped) or the kernel's out-of-memory killer end the host. [`Builder::worker_program`] gives each model a process of its own instead.

mod ask;
mod builder;
mod error;
mod handle;
mod pending;
mod reply;
mod stream;
pub mod testing;

pub use ask::{Ask, Chat, Completion, Conversation, Embed, Text, Texts};
pub use builder::Builder;
pub use downshift_scheduler::config::{KeepAlive, MemoryLimit, ModelEntry, OnStreamFailure, Settings};
pub use downshift_scheduler::{
    Attempt, Config, ConfigError, Counters, Fallback, ModelState, ModelStatus, ModelVerdict, Refused, RefusedClass,
};
/// What a launcher of one's own is made of: the contract between what chooses a model and what runs it.
pub use downshift_worker as worker;
pub use downshift_worker::{
    Device, Failure, FailureKind, FinishReason, Launcher, Message, ModelInfo, ModelKind, ModelSpec, Prompt, ResponseFormat, Role,
    SamplingParams, Stage, Timings, TokenLogprob, ToolCallDelta, ToolChoice, Usage, Worker,
};
pub use error::Error;
pub use handle::Downshift;
pub use pending::Pending;
pub use reply::{Continued, Embeddings, Piece, Reply, ToolCall};
pub use stream::{ReplyStream, Update};
