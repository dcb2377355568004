//! A whole message, and how it ended.

use downshift_worker::{Completion, FinishReason};
use serde_json::{Map, Value, json};

use crate::gather::Gathered;
use crate::openai::TimingsBody;

/// How a message ended.
pub(super) struct Ending<'a> {
    completion: &'a Completion,
    stop_sequence: Option<&'a str>,
}

impl<'a> Ending<'a> {
    /// Of an answer to a request with these stop sequences.
    pub fn new(completion: &'a Completion, stop: &'a [String]) -> Self {
        let stop_sequence = completion.stop_index.and_then(|index| stop.get(usize::from(index))).map(String::as_str);
        Self { completion, stop_sequence }
    }

    /// What `message_delta` tells.
    pub fn event(&self) -> Value {
        json!({"delta": self.to_json(), "usage": self.usage(), "timings": self.timings()})
    }

    fn timings(&self) -> TimingsBody {
        self.completion.timings.into()
    }

    /// `stop_reason` and `stop_sequence`.
    fn to_json(&self) -> Value {
        let reason = match (self.completion.finish_reason, self.stop_sequence) {
            (FinishReason::ToolCalls, _) => "tool_use",
            (FinishReason::Length, _) => "max_tokens",
            (FinishReason::Stop, Some(_)) => "stop_sequence",
            (FinishReason::Stop, None) => "end_turn",
        };
        json!({"stop_reason": reason, "stop_sequence": self.stop_sequence})
    }

    /// `usage`: tokens that the cache held are counted apart from the others of the prompt.
    fn usage(&self) -> Value {
        let Completion { usage, timings, .. } = self.completion;
        json!({
            "input_tokens": usage.prompt_tokens.saturating_sub(timings.cache_n),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": timings.cache_n.min(usage.prompt_tokens),
            "output_tokens": usage.completion_tokens,
        })
    }
}

/// The message of this content.
pub(super) fn message(id: &str, model: &str, content: Vec<Value>, ending: &Ending<'_>) -> Value {
    let end = ending.to_json();
    json!({
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": end["stop_reason"],
        "stop_sequence": end["stop_sequence"],
        "usage": ending.usage(),
        "timings": ending.timings(),
    })
}

/// The blocks of an answer.
pub(super) fn content(gathered: &Gathered) -> Vec<Value> {
    let thinking = (!gathered.reasoning.is_empty()).then(|| json!({"type": "thinking", "thinking": gathered.reasoning, "signature": ""}));
    let text = (!gathered.text.is_empty()).then(|| json!({"type": "text", "text": gathered.text}));
    let calls = gathered.calls.iter().map(|call| {
        // Arguments that were cut short are no object; that they were cut is told by the reason.
        let input: Map<String, Value> = serde_json::from_str(&call.function.arguments).unwrap_or_default();
        json!({"type": "tool_use", "id": call.id, "name": call.function.name, "input": input})
    });
    thinking.into_iter().chain(text).chain(calls).collect()
}
