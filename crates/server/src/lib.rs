//! downshift over HTTP: OpenAI's API and one page, over a [`Scheduler`](downshift_scheduler::Scheduler).
//!
//! Owns the socket, the JSON of the API, and what is refused before a model hears of it. Does not own which model answers: that
//! is the scheduler's, and what it decided is passed on in headers and bodies. Knows no engine; tests put fakes behind it.
//!
//! ```text
//! listen   connections: caps, timeouts, shutdown
//!   guard  Host, Origin, Content-Type, key; every answer gets its x-request-id
//!     chat completions embeddings models status text     one file per group of routes
//!       body        bytes -> typed request, or an error that names the parameter
//!       generation  the fields that all generating routes share -> Request and Options
//!       ask         a blocking submission -> an async sequence of events; dropping it cancels
//!       gather      events -> a whole answer
//!       stream      events -> the chunks of an OpenAI stream, written to sse
//!       disclosure  who answered and why, in headers      error every refusal, one shape
//! ```
//!
//! Another dialect is one file: read its body with `Payload`, fill a `Generation`, call `App::ask`, and write what comes.

mod app;
mod ask;
mod body;
mod chat;
mod completions;
mod connections;
mod dialect;
mod disclosure;
mod embeddings;
mod error;
mod gather;
mod generation;
mod guard;
mod ids;
mod legacy_logprobs;
mod listen;
mod messages;
mod metrics;
mod models;
mod narration;
mod ollama;
mod openai;
mod openapi;
mod options;
mod page;
mod patient;
mod responses;
mod sse;
mod status;
mod stream;
mod text;
mod token_names;

pub use listen::{Server, Stopper};
pub use options::{ApiKey, Limits, ServeOptions};
