//! What a model produces.

use serde::{Deserialize, Deserializer, Serialize};

/// One piece of an answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Delta {
    /// Whole characters; empty where the tokens only complete later (a split character, a possible stop string).
    pub text: String,
    /// What the model thinks before it answers, where its template tells that apart.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reasoning: String,
    /// Pieces of tool calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCallDelta>,
    /// Every token accepted since the previous delta, those whose text is held back included.
    pub token_ids: Vec<u32>,
    /// One entry per token, where asked for. Where the prompt's are asked for, one of the token that ends the answer too, which is
    /// not among `token_ids`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<TokenLogprob>,
    /// The next tokens of the prompt, where their log-probabilities are asked for. All come before the first token of the answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prompt: Vec<PromptToken>,
}

impl Delta {
    /// Whether a caller sees anything of it.
    pub fn is_shown(&self) -> bool {
        !(self.text.is_empty() && self.reasoning.is_empty() && self.tool_calls.is_empty())
    }

    /// Bytes of all that a caller sees: text, reasoning, and the names and arguments of calls.
    pub fn shown_bytes(&self) -> usize {
        let call = |call: &ToolCallDelta| call.name.as_ref().map_or(0, String::len) + call.arguments.len();
        self.text.len() + self.reasoning.len() + self.tool_calls.iter().map(call).sum::<usize>()
    }
}

/// A piece of a tool call. The first of each call carries the name, the later ones only more of the arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCallDelta {
    /// Which of the answer's calls, from 0.
    pub index: u32,
    /// The function's name, whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// More of the arguments, which together are one JSON object.
    #[serde(default)]
    pub arguments: String,
}

/// The log-probability of a token and of its rivals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// The token that was drawn.
    pub token_id: u32,
    /// Natural logarithm of its probability before sampling filters.
    #[serde(deserialize_with = "logprob")]
    pub logprob: f32,
    /// The most likely tokens and theirs, best first.
    #[serde(deserialize_with = "logprobs")]
    pub top: Vec<(u32, f32)>,
}

/// A token of the prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptToken {
    /// The first one: there is nothing that it follows.
    First(u32),
    /// Any other.
    Scored(TokenLogprob),
}

/// JSON writes the logarithm of zero as `null`.
fn logprob<'de, D: Deserializer<'de>>(from: D) -> Result<f32, D::Error> {
    Option::<f32>::deserialize(from).map(|logprob| logprob.unwrap_or(f32::NEG_INFINITY))
}

fn logprobs<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(u32, f32)>, D::Error> {
    let top = Vec::<(u32, Option<f32>)>::deserialize(from)?;
    Ok(top.into_iter().map(|(id, logprob)| (id, logprob.unwrap_or(f32::NEG_INFINITY))).collect())
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended its turn, or a stop string appeared.
    Stop,
    /// `max_tokens` or the context was used up.
    Length,
    /// The answer is a call of tools.
    ToolCalls,
}

impl FinishReason {
    /// OpenAI's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
        }
    }
}

/// Tokens in and out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens generated.
    pub completion_tokens: u32,
}

/// Vectors, and what they were made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embedded {
    /// One per input, in order, pooled and normalized as the model says.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens read of all inputs, those that the model adds included and those beyond its limit not.
    pub prompt_tokens: u32,
}

/// Where the time went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// Prompt tokens found in the cache.
    pub cache_n: u32,
    /// Prompt tokens computed.
    pub prompt_n: u32,
    /// Milliseconds from admission to the first token.
    pub prompt_ms: f64,
    /// Tokens generated.
    pub predicted_n: u32,
    /// Milliseconds from the first token to the last.
    pub predicted_ms: f64,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Tokens in and out.
    pub usage: Usage,
    /// Where the time went.
    pub timings: Timings,
    /// Which of the request's stop strings ended it, as its index; `None` where none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_index: Option<u16>,
}
