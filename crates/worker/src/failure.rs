//! What can go wrong with a model, typed where it happens.
//!
//! Owns the names of the causes. Does not own what is done about them: that is the scheduler's policy.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A failed attempt: its cause, where it happened, and one sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The cause, for machines.
    pub kind: FailureKind,
    /// How far the attempt had come.
    pub stage: Stage,
    /// One lower-case sentence that names the file, tensor, key or limit.
    pub message: String,
}

impl Failure {
    /// A failure of `kind` at `stage`.
    pub fn new(kind: FailureKind, stage: Stage, message: impl Into<String>) -> Self {
        Self { kind, stage, message: one_line(message.into()) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Whatever a file or a template has put into it, a message is one line and steers no terminal.
fn one_line(message: String) -> String {
    if !message.contains(char::is_control) {
        return message;
    }
    message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// How far an attempt had come when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Before any model was touched.
    Admission,
    /// Reading the header, mapping, building the tokenizer, reserving memory.
    Load,
    /// Computing the prompt.
    Prefill,
    /// Generating; text may already have been shown.
    Decode,
}

impl Stage {
    /// The word used in reports, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admission => "admission",
            Self::Load => "load",
            Self::Prefill => "prefill",
            Self::Decode => "decode",
        }
    }
}

/// The cause of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum FailureKind {
    /// A parameter, message or schema that no model could accept.
    InvalidRequest,
    /// The name is none of the models there are.
    UnknownModel,
    /// The prompt does not fit the context of this model.
    PromptTooLong {
        /// Tokens of the prompt.
        needed: u32,
        /// Positions there are.
        limit: u32,
    },
    /// This model cannot do what was asked: another kind, no tools, ids of another vocabulary.
    CannotDo,
    /// The client left.
    Cancelled,

    /// There is no such file.
    Missing,
    /// The file is there and cannot be read: permission, a directory, a device.
    Unreadable,
    /// The file ends before what its header promises.
    Truncated,
    /// The file contradicts itself or its format.
    Corrupt,
    /// The architecture is none that the engine runs.
    UnsupportedArchitecture,
    /// A tensor or file version has a type that the engine does not read.
    UnsupportedType,
    /// The tokenizer cannot be built from the file.
    BrokenTokenizer,
    /// The chat template does not compile or fails its trial.
    BrokenTemplate,

    /// By plan the model does not fit the memory there is.
    DoesNotFit,
    /// An allocation failed, or the kernel killed the worker for memory.
    OutOfMemory,

    /// NaN or infinity in the logits.
    NonFinite,
    /// No progress for longer than allowed.
    Stalled,
    /// No first token in the time allowed.
    FirstTokenTimeout,
    /// Fewer tokens per second than asked for.
    TooSlow,
    /// The time for the whole request was used up.
    Timeout,
    /// The device or its driver failed.
    Device,
    /// The worker process died.
    Crashed,
    /// The worker's code panicked.
    Panicked,
    /// The worker said something that the protocol does not know.
    Protocol,

    /// The answer had no content, where the caller asked for another model then.
    EmptyAnswer,
    /// The answer was no JSON, where the caller asked for another model then.
    InvalidJson,

    /// Too many requests wait for this model.
    QueueFull,
    /// The caller asked for a failure, to see the fallback at work.
    Mock,
}

impl FailureKind {
    /// The word used in reports, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::UnknownModel => "unknown_model",
            Self::PromptTooLong { .. } => "prompt_too_long",
            Self::CannotDo => "cannot_do",
            Self::Cancelled => "cancelled",
            Self::Missing => "missing",
            Self::Unreadable => "unreadable",
            Self::Truncated => "truncated",
            Self::Corrupt => "corrupt",
            Self::UnsupportedArchitecture => "unsupported_architecture",
            Self::UnsupportedType => "unsupported_type",
            Self::BrokenTokenizer => "broken_tokenizer",
            Self::BrokenTemplate => "broken_template",
            Self::DoesNotFit => "does_not_fit",
            Self::OutOfMemory => "out_of_memory",
            Self::NonFinite => "non_finite",
            Self::Stalled => "stalled",
            Self::FirstTokenTimeout => "first_token_timeout",
            Self::TooSlow => "too_slow",
            Self::Timeout => "timeout",
            Self::Device => "device",
            Self::Crashed => "crashed",
            Self::Panicked => "panicked",
            Self::Protocol => "protocol",
            Self::EmptyAnswer => "empty_answer",
            Self::InvalidJson => "invalid_json",
            Self::QueueFull => "queue_full",
            Self::Mock => "mock",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_whatever_was_put_into_it() {
        let failure = Failure::new(FailureKind::CannotDo, Stage::Admission, "no\r\nsystem\u{1b}[2J\tmessage: größer");
        assert_eq!(failure.to_string(), "no  system [2J message: größer");
    }
}
