//! A message in events: each block is opened, told in pieces and closed before the next one.

use downshift_scheduler::Answer;
use downshift_worker::{Delta, ToolCallDelta};
use serde_json::{Value, json};

use super::answer::Ending;
use super::error_body;
use crate::error::ApiError;
use crate::ids::CallIds;
use crate::narration::{Frame, Narrator};
use crate::sse::Framing;
use crate::token_names::NamedLogprob;

/// Tells an answer in Anthropic's events.
pub(super) struct Events {
    id: String,
    /// The model that writes.
    model: String,
    stop: Vec<String>,
    one_call: bool,
    begun: bool,
    /// What is to be told on the next event.
    notice: Option<Value>,
    /// The block that is open.
    open: Option<Kind>,
    /// Blocks so far, the open one included.
    blocks: usize,
    calls: CallIds,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Thinking,
    Text,
    /// The call of this index.
    ToolUse(u32),
}

impl Events {
    /// For a message that `model` was asked for.
    pub fn new(id: String, model: String, stop: Vec<String>, one_call: bool) -> Self {
        Self { id, model, stop, one_call, begun: false, notice: None, open: None, blocks: 0, calls: CallIds::default() }
    }

    fn event(&mut self, name: &'static str, mut value: Value) -> Frame {
        value["type"] = json!(name);
        if let Some(notice) = self.notice.take() {
            value["fallback"] = notice;
        }
        Frame::Event(name, value)
    }

    fn start(&mut self, frames: &mut Vec<Frame>) {
        if self.begun {
            return;
        }
        self.begun = true;
        // The prompt's tokens are known at the end only; `message_delta` tells them.
        let usage = json!({"input_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 0});
        let mut message = json!({
            "id": self.id, "type": "message", "role": "assistant", "model": self.model, "content": [],
            "stop_reason": null, "stop_sequence": null, "usage": usage,
        });
        if let Some(notice) = self.notice.take() {
            message["fallback"] = notice;
        }
        frames.push(self.event("message_start", json!({"message": message})));
    }

    fn close(&mut self, frames: &mut Vec<Frame>) {
        if let Some(kind) = self.open.take() {
            let index = self.blocks - 1;
            if kind == Kind::Thinking {
                // Clients expect one; there is nothing to be proved by it here.
                let delta = json!({"type": "signature_delta", "signature": ""});
                frames.push(self.event("content_block_delta", json!({"index": index, "delta": delta})));
            }
            frames.push(self.event("content_block_stop", json!({"index": index})));
        }
    }

    /// Opens a block of this kind unless it is open.
    fn open(&mut self, kind: Kind, block: Value, frames: &mut Vec<Frame>) {
        if self.open != Some(kind) {
            self.close(frames);
            self.open = Some(kind);
            self.blocks += 1;
            let index = self.blocks - 1;
            frames.push(self.event("content_block_start", json!({"index": index, "content_block": block})));
        }
    }

    fn delta(&mut self, delta: Value, frames: &mut Vec<Frame>) {
        let index = self.blocks.saturating_sub(1);
        frames.push(self.event("content_block_delta", json!({"index": index, "delta": delta})));
    }

    fn call(&mut self, call: ToolCallDelta, frames: &mut Vec<Frame>) {
        if self.one_call && call.index > 0 {
            return;
        }
        let id = self.calls.of(call.index).to_owned();
        let block = json!({"type": "tool_use", "id": id, "name": call.name.unwrap_or_default(), "input": {}});
        self.open(Kind::ToolUse(call.index), block, frames);
        if !call.arguments.is_empty() {
            self.delta(json!({"type": "input_json_delta", "partial_json": call.arguments}), frames);
        }
    }
}

impl Narrator for Events {
    const FRAMING: Framing = Framing::Events;

    fn begin(&mut self, model: &str, notice: Option<Value>) -> Vec<Frame> {
        model.clone_into(&mut self.model);
        self.notice = notice;
        let mut frames = Vec::new();
        self.start(&mut frames);
        frames
    }

    fn piece(&mut self, delta: Delta, _logprobs: Vec<NamedLogprob>) -> Vec<Frame> {
        let Delta { text, reasoning, tool_calls, .. } = delta;
        let mut frames = Vec::new();
        self.start(&mut frames);
        if !reasoning.is_empty() {
            self.open(Kind::Thinking, json!({"type": "thinking", "thinking": "", "signature": ""}), &mut frames);
            self.delta(json!({"type": "thinking_delta", "thinking": reasoning}), &mut frames);
        }
        if !text.is_empty() {
            self.open(Kind::Text, json!({"type": "text", "text": ""}), &mut frames);
            self.delta(json!({"type": "text_delta", "text": text}), &mut frames);
        }
        for call in tool_calls {
            self.call(call, &mut frames);
        }
        frames
    }

    fn continued(&mut self, model: &str, notice: Value) -> Vec<Frame> {
        model.clone_into(&mut self.model);
        self.notice = Some(notice);
        Vec::new()
    }

    fn end(&mut self, answer: &Answer) -> Vec<Frame> {
        let mut frames = Vec::new();
        self.start(&mut frames);
        self.close(&mut frames);
        let stop = std::mem::take(&mut self.stop);
        let ending = Ending::new(&answer.output, &stop);
        frames.push(self.event("message_delta", ending.event()));
        frames.push(self.event("message_stop", json!({})));
        frames
    }

    fn broken(&mut self, error: &ApiError) -> Vec<Frame> {
        vec![Frame::Event("error", error_body(error))]
    }

    fn silence(&mut self, what: &str) -> Option<Frame> {
        // Nothing may come before the start of the message.
        Some(if self.begun { Frame::Event("ping", json!({"type": "ping"})) } else { Frame::Comment(what.to_owned()) })
    }
}
