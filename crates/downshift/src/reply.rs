//! What a program gets: a whole reply, or its pieces as they come.

use std::ops::ControlFlow;
use std::sync::Arc;

use downshift_scheduler::{Answer, Event, Fallback};
use downshift_worker::{Device, FinishReason, Timings, TokenLogprob, ToolCallDelta, Usage};
use serde::Serialize;

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reply {
    /// The model that answered.
    pub model: String,
    /// The device it ran on.
    pub device: Device,
    /// The text.
    pub content: String,
    /// What the model thought before, where its template tells that apart.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reasoning: String,
    /// The tools that it calls; then the finish reason is [`FinishReason::ToolCalls`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Tokens in and out.
    pub usage: Usage,
    /// Where the time went.
    pub timings: Timings,
    /// One entry per token, where asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<TokenLogprob>,
    /// How often the answering model had been tried before.
    pub retries: u32,
    /// What failed or was skipped before; `None` if nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
}

/// A tool that the model calls. What it returns goes back as a [`Message`](crate::Message) of [`Role::Tool`](crate::Role::Tool).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ToolCall {
    /// The function's name.
    pub name: String,
    /// The arguments, a JSON object. Cut short where the answer was.
    pub arguments: String,
}

/// Vectors of texts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Embeddings {
    /// The model that made them.
    pub model: String,
    /// The device it ran on.
    pub device: Device,
    /// One per text, in order; all of one dimension, finite and not zero.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens read.
    pub usage: Usage,
    /// How often that model had been tried before.
    pub retries: u32,
    /// What failed or was skipped before; `None` if nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
}

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// The model that wrote it.
    pub model: Arc<str>,
    /// Whole characters; may be empty.
    pub text: String,
    /// What the model thinks before it answers.
    pub reasoning: String,
    /// Pieces of tool calls.
    pub tool_calls: Vec<ToolCallDelta>,
    /// The tokens accepted since the piece before.
    pub token_ids: Vec<u32>,
    /// One entry per token, where asked for.
    pub logprobs: Vec<TokenLogprob>,
    /// Set on the first piece after the answer had broken off and a model went on with it.
    pub continued: Option<Continued>,
}

/// A stream broke off and goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Continued {
    /// The model that broke off.
    pub from: String,
    /// Why: the word of [`downshift_worker::FailureKind::as_str`].
    pub reason: &'static str,
}

/// Turns events into pieces and gathers the reply.
pub(crate) struct Gather {
    model: Arc<str>,
    content: String,
    reasoning: String,
    tool_calls: Vec<ToolCall>,
    logprobs: Vec<TokenLogprob>,
    continued: Option<Continued>,
}

impl Gather {
    pub fn new() -> Self {
        let (content, reasoning) = (String::new(), String::new());
        Self { model: Arc::from(""), content, reasoning, tool_calls: Vec::new(), logprobs: Vec::new(), continued: None }
    }

    /// Passes the pieces in `event` on to `take`.
    pub fn hear(&mut self, event: Event<'_>, take: &mut dyn FnMut(Piece) -> ControlFlow<()>) -> ControlFlow<()> {
        match event {
            Event::Loading { .. } | Event::Failed(_) => ControlFlow::Continue(()),
            Event::Started { model, .. } => {
                self.model = Arc::from(model);
                ControlFlow::Continue(())
            }
            Event::Continued { from, to, reason } => {
                self.model = Arc::from(to);
                self.continued = Some(Continued { from: from.to_owned(), reason });
                ControlFlow::Continue(())
            }
            Event::Delta(delta) => {
                self.content.push_str(&delta.text);
                self.reasoning.push_str(&delta.reasoning);
                delta.tool_calls.iter().for_each(|call| self.add_call(call));
                self.logprobs.extend_from_slice(&delta.logprobs);
                let (model, continued) = (self.model.clone(), self.continued.take());
                take(Piece {
                    model,
                    text: delta.text,
                    reasoning: delta.reasoning,
                    tool_calls: delta.tool_calls,
                    token_ids: delta.token_ids,
                    logprobs: delta.logprobs,
                    continued,
                })
            }
        }
    }

    fn add_call(&mut self, delta: &ToolCallDelta) {
        let index = delta.index as usize;
        if self.tool_calls.len() == index {
            self.tool_calls.push(ToolCall::default());
        }
        if let Some(call) = self.tool_calls.get_mut(index) {
            call.name.push_str(delta.name.as_deref().unwrap_or_default());
            call.arguments.push_str(&delta.arguments);
        }
    }

    pub fn reply(self, answer: Answer) -> Reply {
        let Answer { model, device, output, retries, fallback } = answer;
        Reply {
            model,
            device,
            content: self.content,
            reasoning: self.reasoning,
            tool_calls: self.tool_calls,
            finish_reason: output.finish_reason,
            usage: output.usage,
            timings: output.timings,
            logprobs: self.logprobs,
            retries,
            fallback,
        }
    }
}

#[cfg(test)]
mod tests {
    use downshift_worker::{Completion, Delta};

    use super::*;

    #[test]
    fn thoughts_and_calls_are_gathered_from_their_pieces() {
        let mut gather = Gather::new();
        let call = |index, name: Option<&str>, arguments: &str| ToolCallDelta {
            index,
            name: name.map(str::to_owned),
            arguments: arguments.to_owned(),
        };
        let deltas = [
            Delta { reasoning: "Let me ".to_owned(), ..Delta::default() },
            Delta { reasoning: "see.".to_owned(), tool_calls: vec![call(0, Some("add"), "{")], ..Delta::default() },
            Delta { tool_calls: vec![call(0, None, "}"), call(1, Some("stop"), "{}")], ..Delta::default() },
        ];
        let mut pieces = Vec::new();
        for delta in deltas {
            let heard = gather.hear(Event::Delta(delta), &mut |piece| {
                pieces.push(piece);
                ControlFlow::Continue(())
            });
            assert!(heard.is_continue());
        }
        assert_eq!(pieces[1].tool_calls, [call(0, Some("add"), "{")]);
        let (usage, timings) = (Usage::default(), Timings::default());
        let output = Completion { finish_reason: FinishReason::ToolCalls, stop_index: None, usage, timings };
        let reply = gather.reply(Answer { model: "m".to_owned(), device: Device::Cpu, output, retries: 0, fallback: None });
        assert_eq!((reply.content.as_str(), reply.reasoning.as_str()), ("", "Let me see."));
        let made = |name: &str| ToolCall { name: name.to_owned(), arguments: "{}".to_owned() };
        assert_eq!(reply.tool_calls, [made("add"), made("stop")]);
    }
}
