//! What a caller asks of a model.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Names a request in every log line, frame and cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestId(pub u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

/// One request to one worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Unique among the requests of this process.
    pub id: RequestId,
    /// The prompt.
    pub input: Input,
    /// Sampling; what is open here is filled from the model's entry, then from the defaults.
    pub sampling: SamplingParams,
    /// Most tokens to generate; `None` means until the context is full.
    pub max_tokens: Option<u32>,
    /// The answer ends before the first of these strings; they are looked for in its content, not in reasoning or calls.
    pub stop: Vec<String>,
    /// Report the log-probability of each token, with this many alternatives.
    pub logprobs: Option<u8>,
    /// Report the log-probability of each token of the prompt before the answer, with this many alternatives; of an answer to no
    /// tokens too. Where an answer is resumed, its prompt was reported before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_logprobs: Option<u8>,
    /// What the answer must look like; tokens that would break it are never drawn.
    #[serde(default, skip_serializing_if = "ResponseFormat::is_text")]
    pub format: ResponseFormat,
    /// An answer that another attempt had begun, to be continued and not repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
}

/// What an interrupted attempt had already shown of the answer; the worker emits only what follows it.
///
/// `max_tokens` of the request still counts from the start of the whole answer: what is resumed uses it up, as many tokens as it
/// is for the model that goes on. A token at the end of a text that is drawn again counts once, when it is drawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resume {
    /// The same model: prefill the prompt and these tokens, restore penalties, and draw token number `token_ids.len()` next.
    Tokens {
        /// Every token accepted so far, those whose text was held back included.
        token_ids: Vec<u32>,
        /// Bytes of their text, reasoning, and calls' names and arguments that were sent; the rest, held back then, is sent first.
        shown_bytes: usize,
    },
    /// Another model: prefill this text verbatim as the open assistant turn and force its bytes where tokens straddle its end.
    Text {
        /// The text that was sent.
        text: String,
        /// The reasoning that was sent before it. A model that does not think continues the text alone.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reasoning: String,
        /// Tokens it was made of, by the count of the models before.
        tokens: u32,
    },
}

impl Request {
    /// A request with every option at its default.
    pub fn new(id: RequestId, input: Input) -> Self {
        Self {
            id,
            input,
            sampling: SamplingParams::default(),
            max_tokens: None,
            stop: Vec::new(),
            logprobs: None,
            prompt_logprobs: None,
            format: ResponseFormat::Text,
            resume: None,
        }
    }
}

/// What a model continues.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// A conversation, rendered by the model's chat template.
    Chat {
        /// The turns so far.
        messages: Vec<Message>,
        /// Tools offered, in OpenAI's JSON form.
        tools: Vec<Value>,
        /// Whether one of them is to be called.
        #[serde(default)]
        tool_choice: ToolChoice,
        /// Further variables of the template, such as `enable_thinking`.
        variables: Map<String, Value>,
    },
    /// Text or tokens, continued as they are.
    Completion(Prompt),
    /// What is missing between a beginning and this end, for a model whose vocabulary has tokens that ask for that.
    Infill {
        /// What stands before the gap.
        prefix: Prompt,
        /// What stands after it; spellings of special tokens in it are plain text.
        suffix: String,
    },
}

impl Input {
    /// Why a model cannot fill a gap. Names the part of the input first, as every refusal of a part does.
    pub const NO_INFILL: &'static str = "suffix: this model fills no gaps: its vocabulary has no fill-in-the-middle tokens";

    /// A conversation without tools.
    pub fn chat(messages: Vec<Message>) -> Self {
        Self::Chat { messages, tools: Vec::new(), tool_choice: ToolChoice::Auto, variables: Map::new() }
    }

    /// Whether a gap is to be filled.
    pub fn is_infill(&self) -> bool {
        matches!(self, Self::Infill { .. })
    }

    /// Whether token ids are among it, which mean something to one vocabulary alone.
    pub fn has_token_ids(&self) -> bool {
        matches!(self, Self::Completion(Prompt::Tokens(_)) | Self::Infill { prefix: Prompt::Tokens(_), .. })
    }
}

/// Whether the model calls a tool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolChoice {
    /// As the model likes.
    #[default]
    Auto,
    /// Not at all; the model does not hear of the tools.
    None,
    /// At least one of them.
    Required,
    /// The one of this name.
    Function(String),
}

/// What an answer must look like.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResponseFormat {
    /// Anything.
    #[default]
    Text,
    /// One JSON object.
    JsonObject,
    /// JSON that is valid under this schema.
    JsonSchema(Value),
    /// A sentence of this Lark grammar, in llguidance's dialect.
    Grammar(String),
}

impl ResponseFormat {
    /// Whether nothing is asked.
    pub fn is_text(&self) -> bool {
        *self == Self::Text
    }
}

/// A prompt that no template touches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prompt {
    /// Text; spellings of special tokens in it are plain text.
    Text(String),
    /// Ids of the model's own vocabulary.
    Tokens(Vec<u32>),
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: Value,
    /// Other fields that templates read: `tool_calls`, `tool_call_id`, `name`, `reasoning_content`.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Message {
    /// A turn of plain text.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: Value::String(content.into()), extra: Map::new() }
    }

    /// What the model is told before the conversation.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new(Role::System, content)
    }

    /// What the user says.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new(Role::User, content)
    }

    /// What the model said.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new(Role::Assistant, content)
    }
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sets the scene.
    #[serde(alias = "developer")]
    System,
    /// Asks.
    User,
    /// Answers.
    Assistant,
    /// Carries the result of a tool call.
    Tool,
}

/// How the next token is drawn. `None` leaves a choice to whoever is asked next: request, then model, then default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingParams {
    /// 0 takes the most likely token; default 0.8.
    pub temperature: Option<f32>,
    /// Keep the `top_k` most likely tokens; 0 keeps all; default 40.
    pub top_k: Option<u32>,
    /// Keep the fewest tokens whose probabilities reach this sum; default 0.95.
    pub top_p: Option<f32>,
    /// Drop tokens less likely than this share of the best one; default 0.05.
    pub min_p: Option<f32>,
    /// Divide (positive) or multiply (negative) logits of recent tokens; default 1.
    pub repeat_penalty: Option<f32>,
    /// Subtract this per earlier use of a token; default 0.
    pub frequency_penalty: Option<f32>,
    /// Subtract this once where a token was used; default 0.
    pub presence_penalty: Option<f32>,
    /// How many recent tokens the penalties look at; default 64.
    pub penalty_last_n: Option<u32>,
    /// Makes draws repeatable; default: a fresh one per request.
    pub seed: Option<u64>,
    /// Added to the logits of single tokens.
    pub logit_bias: Vec<(u32, f32)>,
}

impl SamplingParams {
    /// These parameters, with what is open taken from `fallback`.
    pub fn or(&self, fallback: &Self) -> Self {
        Self {
            temperature: self.temperature.or(fallback.temperature),
            top_k: self.top_k.or(fallback.top_k),
            top_p: self.top_p.or(fallback.top_p),
            min_p: self.min_p.or(fallback.min_p),
            repeat_penalty: self.repeat_penalty.or(fallback.repeat_penalty),
            frequency_penalty: self.frequency_penalty.or(fallback.frequency_penalty),
            presence_penalty: self.presence_penalty.or(fallback.presence_penalty),
            penalty_last_n: self.penalty_last_n.or(fallback.penalty_last_n),
            seed: self.seed.or(fallback.seed),
            logit_bias: if self.logit_bias.is_empty() { fallback.logit_bias.clone() } else { self.logit_bias.clone() },
        }
    }
}
