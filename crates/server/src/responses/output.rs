//! The items of an answer.

use serde_json::{Value, json};

use crate::gather::Gathered;
use crate::ids::random_id;
use crate::token_names::NamedLogprob;

/// One item, as far as it was told.
pub(super) struct Item {
    pub id: String,
    pub content: Content,
}

/// What an item says.
pub(super) enum Content {
    Reasoning(String),
    Message(String, Vec<NamedLogprob>),
    Call { index: u32, call_id: String, name: String, arguments: String },
}

impl Item {
    /// An item with an id of its kind.
    pub fn new(content: Content) -> Self {
        let prefix = match content {
            Content::Reasoning(_) => "rs_",
            Content::Message(..) => "msg_",
            Content::Call { .. } => "fc_",
        };
        Self { id: random_id(prefix, 24), content }
    }

    /// The item, with this status.
    pub fn to_json(&self, status: &str) -> Value {
        match &self.content {
            Content::Reasoning(_) => {
                json!({"id": self.id, "type": "reasoning", "summary": [], "content": Vec::from_iter(self.part()), "status": status})
            }
            Content::Message(..) => {
                json!({"id": self.id, "type": "message", "role": "assistant", "status": status, "content": Vec::from_iter(self.part())})
            }
            Content::Call { call_id, name, arguments, .. } => json!({
                "id": self.id, "type": "function_call", "status": status,
                "call_id": call_id, "name": name, "arguments": arguments,
            }),
        }
    }

    /// The one part of its content; calls have none.
    pub fn part(&self) -> Option<Value> {
        match &self.content {
            Content::Reasoning(text) => Some(json!({"type": "reasoning_text", "text": text})),
            Content::Message(text, logprobs) => {
                Some(json!({"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs_json(logprobs)}))
            }
            Content::Call { .. } => None,
        }
    }
}

/// The items of a whole answer.
pub(super) fn items_of(gathered: &Gathered) -> Vec<Item> {
    let mut contents = Vec::new();
    if !gathered.reasoning.is_empty() {
        contents.push(Content::Reasoning(gathered.reasoning.clone()));
    }
    if !gathered.text.is_empty() || gathered.calls.is_empty() {
        contents.push(Content::Message(gathered.text.clone(), gathered.logprobs.clone()));
    }
    contents.extend(gathered.calls.iter().zip(0..).map(|(call, index)| Content::Call {
        index,
        call_id: call.id.clone(),
        name: call.function.name.clone(),
        arguments: call.function.arguments.clone(),
    }));
    contents.into_iter().map(Item::new).collect()
}

/// Log-probabilities as responses have them.
pub(super) fn logprobs_json(logprobs: &[NamedLogprob]) -> Value {
    let one = |token: &str, logprob: f32| {
        // A part of a character has no bytes of its own that are known here.
        let bytes = if token.contains(char::REPLACEMENT_CHARACTER) { &[] } else { token.as_bytes() };
        json!({"token": token, "bytes": bytes, "logprob": logprob.max(-9999.0)})
    };
    let entry = |found: &NamedLogprob| {
        let mut entry = one(&found.token, found.logprob);
        entry["top_logprobs"] = found.top.iter().map(|(token, logprob)| one(token, *logprob)).collect();
        entry
    };
    logprobs.iter().map(entry).collect()
}
