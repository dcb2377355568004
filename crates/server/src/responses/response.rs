//! The response object: what was asked, and what came of it.

use downshift_worker::{Completion, FinishReason};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::app::unix_seconds;
use crate::error::ApiError;
use crate::ids::random_id;
use crate::openai::TimingsBody;

/// A response, but for its output.
pub(super) struct ResponseObject {
    id: String,
    created_at: u64,
    /// The model that answers.
    pub model: String,
    /// What failed before.
    pub fallback: Option<Value>,
    asked: Echoed,
}

/// What a response repeats of its request.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Echoed {
    instructions: Option<Value>,
    max_output_tokens: Option<i64>,
    metadata: Option<Map<String, Value>>,
    parallel_tool_calls: Option<bool>,
    reasoning: Option<Map<String, Value>>,
    temperature: Option<f64>,
    text: Option<Map<String, Value>>,
    tool_choice: Option<Value>,
    tools: Option<Vec<Value>>,
    top_logprobs: Option<u32>,
    top_p: Option<f64>,
    user: Option<String>,
}

/// How far a response has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    InProgress,
    Completed,
    /// Its tokens were used up.
    Incomplete,
    Failed,
}

impl Status {
    /// Of a response that ended.
    pub fn of(completion: &Completion) -> Self {
        if completion.finish_reason == FinishReason::Length { Self::Incomplete } else { Self::Completed }
    }

    /// Of the items of such a response that are not done.
    pub fn of_items(self) -> &'static str {
        match self {
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Incomplete | Self::Failed => "incomplete",
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            other => other.of_items(),
        }
    }
}

/// What is known at the end.
pub(super) struct Ended<'a> {
    pub completion: &'a Completion,
    pub reasoning_tokens: u32,
}

impl ResponseObject {
    /// A new one for this request.
    pub fn new(asked: Echoed) -> Self {
        Self { id: random_id("resp_", 32), created_at: unix_seconds(), model: String::new(), fallback: None, asked }
    }

    /// The object with this output.
    pub fn to_json(&self, status: Status, output: Vec<Value>, ended: Option<Ended<'_>>) -> Value {
        let Echoed { instructions, max_output_tokens, metadata, parallel_tool_calls, reasoning, .. } = &self.asked;
        let Echoed { temperature, text, tool_choice, tools, top_logprobs, top_p, user, .. } = &self.asked;
        let mut text = text.clone().unwrap_or_default();
        text.entry("format").or_insert_with(|| json!({"type": "text"}));
        let incomplete = (status == Status::Incomplete).then(|| json!({"reason": "max_output_tokens"}));
        let mut response = json!({
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "completed_at": (status == Status::Completed).then(unix_seconds),
            "status": status.as_str(),
            "background": false,
            "error": null,
            "incomplete_details": incomplete,
            "instructions": instructions,
            "max_output_tokens": max_output_tokens,
            "max_tool_calls": null,
            "metadata": metadata.clone().unwrap_or_default(),
            "model": self.model,
            "output": output,
            "parallel_tool_calls": parallel_tool_calls.unwrap_or(true),
            "previous_response_id": null,
            "reasoning": reasoning.clone().map_or_else(|| json!({"effort": null, "summary": null}), Value::Object),
            "service_tier": "default",
            "store": false,
            "temperature": temperature,
            "text": text,
            "tool_choice": tool_choice.clone().filter(|choice| !choice.is_null()).unwrap_or(json!("auto")),
            "tools": tools.clone().unwrap_or_default(),
            "top_logprobs": top_logprobs.unwrap_or(0),
            "top_p": top_p,
            "truncation": "disabled",
            "usage": ended.as_ref().map(usage),
            "user": user,
        });
        if let Some(fallback) = &self.fallback {
            response["fallback"] = fallback.clone();
        }
        if let Some(ended) = ended {
            response["timings"] = json!(TimingsBody::from(ended.completion.timings));
        }
        response
    }

    /// The object of a response that failed with this output.
    pub fn failed(&self, output: Vec<Value>, error: &ApiError) -> Value {
        let mut response = self.to_json(Status::Failed, output, None);
        let mut told = error.to_json();
        // Clients know a closed list of codes here; the cause stands beside.
        told["cause"] = told["code"].take();
        told["code"] = json!("server_error");
        response["error"] = told;
        response
    }
}

fn usage(ended: &Ended<'_>) -> Value {
    let Completion { usage, timings, .. } = ended.completion;
    json!({
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": timings.cache_n, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": ended.reasoning_tokens},
        "total_tokens": usage.prompt_tokens.saturating_add(usage.completion_tokens),
    })
}
