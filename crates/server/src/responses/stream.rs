//! A response in events: each item is added, told in pieces and done before the next one, and the last event has all of it.

use downshift_scheduler::Answer;
use downshift_worker::{Delta, ToolCallDelta};
use serde_json::{Value, json};

use super::output::{Content, Item, logprobs_json};
use super::response::{Ended, ResponseObject, Status};
use crate::error::ApiError;
use crate::gather::reasoning_tokens;
use crate::ids::CallIds;
use crate::narration::{Frame, Narrator};
use crate::sse::Framing;
use crate::token_names::NamedLogprob;

/// Tells an answer in the events of responses.
pub(super) struct Events {
    response: ResponseObject,
    one_call: bool,
    begun: bool,
    sequence: u64,
    /// What is to be told on the next event.
    notice: Option<Value>,
    items: Vec<Item>,
    /// Whether the last item is.
    open: bool,
    calls: CallIds,
    reasoning_tokens: u32,
}

impl Events {
    /// For this response.
    pub fn new(response: ResponseObject, one_call: bool) -> Self {
        let calls = CallIds::default();
        Self { response, one_call, begun: false, sequence: 0, notice: None, items: Vec::new(), open: false, calls, reasoning_tokens: 0 }
    }

    fn event(&mut self, name: &'static str, mut value: Value) -> Frame {
        value["type"] = json!(name);
        value["sequence_number"] = json!(self.sequence);
        if let Some(notice) = self.notice.take() {
            value["fallback"] = notice;
        }
        self.sequence += 1;
        Frame::Event(name, value)
    }

    /// An event of the last item.
    fn of_item(&mut self, name: &'static str, mut value: Value) -> Frame {
        value["output_index"] = json!(self.items.len().saturating_sub(1));
        if let Some(item) = self.items.last().filter(|_| value.get("item").is_none()) {
            value["item_id"] = json!(item.id);
        }
        self.event(name, value)
    }

    /// An event of the part of the last item.
    fn of_part(&mut self, name: &'static str, mut value: Value) -> Frame {
        value["content_index"] = json!(0);
        self.of_item(name, value)
    }

    fn start(&mut self, frames: &mut Vec<Frame>) {
        if self.begun {
            return;
        }
        self.begun = true;
        for name in ["response.created", "response.in_progress"] {
            let response = self.response.to_json(Status::InProgress, Vec::new(), None);
            frames.push(self.event(name, json!({"response": response})));
        }
    }

    /// Adds an item, unless the open one `is` it.
    fn open(&mut self, is: impl Fn(&Content) -> bool, new: impl FnOnce() -> Content, frames: &mut Vec<Frame>) {
        if self.open && self.items.last().is_some_and(|item| is(&item.content)) {
            return;
        }
        self.close("completed", frames);
        let item = Item::new(new());
        let part = item.part();
        let mut added = item.to_json("in_progress");
        if part.is_some() {
            added["content"] = json!([]);
        }
        self.items.push(item);
        self.open = true;
        frames.push(self.of_item("response.output_item.added", json!({"item": added})));
        if let Some(part) = part {
            frames.push(self.of_part("response.content_part.added", json!({"part": part})));
        }
    }

    /// Ends the open item.
    fn close(&mut self, status: &str, frames: &mut Vec<Frame>) {
        let Some(item) = self.items.last().filter(|_| self.open) else { return };
        self.open = false;
        let (whole, part) = (item.to_json(status), item.part());
        let done = match &item.content {
            Content::Reasoning(text) => ("response.reasoning_text.done", json!({"text": text})),
            Content::Message(text, logprobs) => ("response.output_text.done", json!({"text": text, "logprobs": logprobs_json(logprobs)})),
            Content::Call { name, arguments, .. } => {
                ("response.function_call_arguments.done", json!({"name": name, "arguments": arguments}))
            }
        };
        match part {
            Some(part) => {
                frames.push(self.of_part(done.0, done.1));
                frames.push(self.of_part("response.content_part.done", json!({"part": part})));
            }
            None => frames.push(self.of_item(done.0, done.1)),
        }
        frames.push(self.of_item("response.output_item.done", json!({"item": whole})));
    }

    fn reasoning(&mut self, more: &str, frames: &mut Vec<Frame>) {
        self.open(|content| matches!(content, Content::Reasoning(_)), || Content::Reasoning(String::new()), frames);
        if let Some(Item { content: Content::Reasoning(text), .. }) = self.items.last_mut() {
            text.push_str(more);
        }
        frames.push(self.of_part("response.reasoning_text.delta", json!({"delta": more})));
    }

    fn text(&mut self, more: &str, logprobs: Vec<NamedLogprob>, frames: &mut Vec<Frame>) {
        self.open(|content| matches!(content, Content::Message(..)), || Content::Message(String::new(), Vec::new()), frames);
        let told = logprobs_json(&logprobs);
        if let Some(Item { content: Content::Message(text, all), .. }) = self.items.last_mut() {
            text.push_str(more);
            all.extend(logprobs);
        }
        frames.push(self.of_part("response.output_text.delta", json!({"delta": more, "logprobs": told})));
    }

    fn call(&mut self, call: ToolCallDelta, frames: &mut Vec<Frame>) {
        let ToolCallDelta { index, name, arguments: more } = call;
        if self.one_call && index > 0 {
            return;
        }
        let call_id = self.calls.of(index).to_owned();
        let new = || Content::Call { index, call_id, name: name.unwrap_or_default(), arguments: String::new() };
        self.open(|content| matches!(content, Content::Call { index: open, .. } if *open == index), new, frames);
        if more.is_empty() {
            return;
        }
        if let Some(Item { content: Content::Call { arguments, .. }, .. }) = self.items.last_mut() {
            arguments.push_str(&more);
        }
        frames.push(self.of_item("response.function_call_arguments.delta", json!({"delta": more})));
    }

    /// All items; the last one has this status, those before it are complete.
    fn output(&self, last: &str) -> Vec<Value> {
        let n = self.items.len();
        let status = |at: usize| if at + 1 == n { last } else { "completed" };
        self.items.iter().enumerate().map(|(at, item)| item.to_json(status(at))).collect()
    }
}

impl Narrator for Events {
    const FRAMING: Framing = Framing::Events;

    fn begin(&mut self, model: &str, notice: Option<Value>) -> Vec<Frame> {
        model.clone_into(&mut self.response.model);
        self.response.fallback = notice;
        let mut frames = Vec::new();
        self.start(&mut frames);
        frames
    }

    fn piece(&mut self, delta: Delta, logprobs: Vec<NamedLogprob>) -> Vec<Frame> {
        self.reasoning_tokens += reasoning_tokens(&delta);
        let Delta { text, reasoning, tool_calls, .. } = delta;
        let mut frames = Vec::new();
        self.start(&mut frames);
        if !reasoning.is_empty() {
            self.reasoning(&reasoning, &mut frames);
        }
        if !text.is_empty() {
            self.text(&text, logprobs, &mut frames);
        }
        for call in tool_calls {
            self.call(call, &mut frames);
        }
        frames
    }

    fn continued(&mut self, model: &str, notice: Value) -> Vec<Frame> {
        model.clone_into(&mut self.response.model);
        self.notice = Some(notice);
        Vec::new()
    }

    fn end(&mut self, answer: &Answer) -> Vec<Frame> {
        let mut frames = Vec::new();
        self.start(&mut frames);
        if self.items.is_empty() {
            self.open(|_| false, || Content::Message(String::new(), Vec::new()), &mut frames);
        }
        let status = Status::of(&answer.output);
        self.close(status.of_items(), &mut frames);
        answer.model.clone_into(&mut self.response.model);
        self.response.fallback = answer.fallback.as_ref().map(|fallback| json!(fallback));
        let ended = Ended { completion: &answer.output, reasoning_tokens: self.reasoning_tokens };
        let response = self.response.to_json(status, self.output(status.of_items()), Some(ended));
        let name = if status == Status::Completed { "response.completed" } else { "response.incomplete" };
        frames.push(self.event(name, json!({"response": response})));
        frames
    }

    fn broken(&mut self, error: &ApiError) -> Vec<Frame> {
        if self.begun {
            let response = self.response.failed(self.output(Status::Failed.of_items()), error);
            return vec![self.event("response.failed", json!({"response": response}))];
        }
        vec![self.event("error", error.to_json())]
    }

    fn silence(&mut self, what: &str) -> Option<Frame> {
        Some(Frame::Comment(what.to_owned()))
    }
}
