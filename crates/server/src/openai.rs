//! OpenAI's JSON: what requests may say, and the shape of answers. Plain types; what they mean is checked in `generation`.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use downshift_scheduler::Fallback;
use downshift_worker::{Completion, Timings, Usage};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Number, Value};

use crate::legacy_logprobs::LegacyLogprobs;
use crate::token_names::NamedLogprob;

/// A text, or a list of texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Texts(pub Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E>(self, text: &str) -> Result<Texts, E> {
                Ok(Texts(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Texts, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = list.next_element()? {
                    texts.push(text);
                }
                Ok(Texts(texts))
            }
        }
        from.deserialize_any(Either)
    }
}

/// A JSON object: unlike what `derive` makes, a list in its place is refused.
#[derive(Clone, Debug, Default)]
pub(crate) struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Only<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Only<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(de::value::MapAccessDeserializer::new(map)).map(Object)
            }
        }
        from.deserialize_any(Only(PhantomData))
    }
}

/// The fields that all routes know which generate.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CommonFields {
    /// A name, or the primary and its fallbacks.
    pub model: Option<Texts>,
    pub fallbacks: Option<Vec<String>>,
    pub disable_fallbacks: Option<bool>,
    pub num_retries: Option<u32>,
    /// Seconds.
    pub timeout: Option<f64>,
    pub mock_testing_fallbacks: Option<bool>,
    pub n: Option<u32>,
    pub stream: Option<bool>,
    pub stream_options: Option<Object<StreamOptions>>,
    pub stop: Option<Texts>,
    pub seed: Option<Number>,
    pub max_tokens: Option<i64>,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    /// -1 and 0 keep all.
    pub top_k: Option<i64>,
    pub min_p: Option<f64>,
    #[serde(alias = "repetition_penalty")]
    pub repeat_penalty: Option<f64>,
    #[serde(alias = "repeat_last_n")]
    pub penalty_last_n: Option<i64>,
    pub frequency_penalty: Option<f64>,
    pub presence_penalty: Option<f64>,
    /// Token ids, as strings, and what is added to their logits.
    pub logit_bias: Option<BTreeMap<String, f64>>,
    /// A Lark grammar that the answer must follow.
    pub grammar: Option<String>,
    pub response_format: Option<Object<ResponseFormat>>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct StreamOptions {
    pub include_usage: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct ResponseFormat {
    #[serde(rename = "type")]
    pub kind: String,
    pub json_schema: Option<Object<NamedSchema>>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct NamedSchema {
    pub schema: Option<Value>,
}

/// What only `/v1/chat/completions` knows.
#[derive(Debug, Deserialize)]
pub(crate) struct ChatFields {
    pub messages: Vec<Object<ChatMessage>>,
    #[serde(default)]
    pub max_completion_tokens: Option<i64>,
    #[serde(default)]
    pub logprobs: Option<bool>,
    #[serde(default)]
    pub top_logprobs: Option<u32>,
    #[serde(default)]
    pub tools: Option<Vec<Value>>,
    #[serde(default)]
    pub tool_choice: Option<Value>,
    #[serde(default)]
    pub parallel_tool_calls: Option<bool>,
    #[serde(default)]
    pub chat_template_kwargs: Option<Map<String, Value>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ChatMessage {
    pub role: String,
    #[serde(default)]
    pub content: Option<Content>,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub tool_calls: Option<Vec<Value>>,
    #[serde(default)]
    pub tool_call_id: Option<String>,
    #[serde(default)]
    pub reasoning_content: Option<String>,
}

/// A text, or parts.
#[derive(Debug)]
pub(crate) enum Content {
    Text(String),
    Parts(Vec<Object<Part>>),
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Content;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of content parts")
            }

            fn visit_str<E>(self, text: &str) -> Result<Content, E> {
                Ok(Content::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Content, A::Error> {
                let mut parts = Vec::new();
                while let Some(part) = list.next_element()? {
                    parts.push(part);
                }
                Ok(Content::Parts(parts))
            }
        }
        from.deserialize_any(Either)
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct Part {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub text: Option<String>,
    #[serde(default)]
    pub refusal: Option<String>,
}

/// What only `/v1/completions` knows.
#[derive(Debug, Deserialize)]
pub(crate) struct CompletionFields {
    pub prompt: Prompts,
    #[serde(default)]
    pub best_of: Option<u32>,
    #[serde(default)]
    pub echo: Option<bool>,
    #[serde(default)]
    pub suffix: Option<String>,
    #[serde(default)]
    pub logprobs: Option<u32>,
}

/// Texts or token ids: one, or a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prompts(pub Vec<downshift_worker::Prompt>);

impl<'de> Deserialize<'de> for Prompts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        use downshift_worker::Prompt;

        /// One element of a list.
        enum Element {
            Id(u32),
            Prompt(Prompt),
        }
        impl<'de> Deserialize<'de> for Element {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                struct One;
                impl<'de> Visitor<'de> for One {
                    type Value = Element;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a string, a token id or a list of token ids")
                    }

                    fn visit_u64<E: de::Error>(self, id: u64) -> Result<Element, E> {
                        u32::try_from(id).map(Element::Id).map_err(|_| E::custom(format!("{id} is no token id")))
                    }

                    fn visit_i64<E: de::Error>(self, id: i64) -> Result<Element, E> {
                        Err(E::custom(format!("{id} is no token id")))
                    }

                    fn visit_str<E>(self, text: &str) -> Result<Element, E> {
                        Ok(Element::Prompt(Prompt::Text(text.to_owned())))
                    }

                    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Element, A::Error> {
                        let mut ids = Vec::new();
                        while let Some(id) = list.next_element()? {
                            ids.push(id);
                        }
                        Ok(Element::Prompt(Prompt::Tokens(ids)))
                    }
                }
                from.deserialize_any(One)
            }
        }

        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Prompts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a list of strings, a list of token ids or a list of those")
            }

            fn visit_str<E>(self, text: &str) -> Result<Prompts, E> {
                Ok(Prompts(vec![Prompt::Text(text.to_owned())]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Prompts, A::Error> {
                let (mut ids, mut prompts) = (Vec::new(), Vec::new());
                while let Some(element) = list.next_element()? {
                    match element {
                        Element::Id(id) if prompts.is_empty() => ids.push(id),
                        Element::Prompt(prompt) if ids.is_empty() => prompts.push(prompt),
                        _ => return Err(de::Error::custom("token ids and prompts cannot be mixed in one list")),
                    }
                }
                if !ids.is_empty() {
                    prompts.push(Prompt::Tokens(ids));
                }
                Ok(Prompts(prompts))
            }
        }
        from.deserialize_any(Any)
    }
}

/// `usage`.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct UsageBody {
    pub prompt_tokens: u32,
    pub completion_tokens: u32,
    pub total_tokens: u32,
    pub prompt_tokens_details: PromptTokensDetails,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct PromptTokensDetails {
    pub cached_tokens: u32,
}

impl UsageBody {
    pub fn new(usage: Usage, cached_tokens: u32) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.prompt_tokens.saturating_add(usage.completion_tokens),
            prompt_tokens_details: PromptTokensDetails { cached_tokens },
        }
    }
}

impl From<&Completion> for UsageBody {
    fn from(completion: &Completion) -> Self {
        Self::new(completion.usage, completion.timings.cache_n)
    }
}

/// `timings`, with llama.cpp's names.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct TimingsBody {
    pub cache_n: u32,
    pub prompt_n: u32,
    pub prompt_ms: f64,
    pub prompt_per_second: Option<f64>,
    pub predicted_n: u32,
    pub predicted_ms: f64,
    pub predicted_per_second: Option<f64>,
}

impl From<Timings> for TimingsBody {
    fn from(timings: Timings) -> Self {
        let per_second = |tokens: u32, ms: f64| (ms > 0.0).then(|| f64::from(tokens) * 1000.0 / ms);
        Self {
            cache_n: timings.cache_n,
            prompt_n: timings.prompt_n,
            prompt_ms: timings.prompt_ms,
            prompt_per_second: per_second(timings.prompt_n, timings.prompt_ms),
            predicted_n: timings.predicted_n,
            predicted_ms: timings.predicted_ms,
            predicted_per_second: per_second(timings.predicted_n, timings.predicted_ms),
        }
    }
}

/// A whole answer of `/v1/chat/completions` or `/v1/completions`; `C` is its choice.
#[derive(Debug, Serialize)]
pub(crate) struct Whole<C> {
    pub id: String,
    pub object: &'static str,
    pub created: u64,
    pub model: String,
    pub choices: Vec<C>,
    pub usage: UsageBody,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    pub timings: TimingsBody,
}

#[derive(Debug, Serialize)]
pub(crate) struct ChatChoice {
    pub index: usize,
    pub message: AnswerMessage,
    pub logprobs: Option<ChatLogprobs>,
    pub finish_reason: &'static str,
}

#[derive(Debug, Serialize)]
pub(crate) struct AnswerMessage {
    pub role: &'static str,
    pub content: Option<String>,
    pub refusal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ToolCall {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub function: FunctionCall,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct FunctionCall {
    pub name: String,
    pub arguments: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct CompletionChoice {
    pub index: usize,
    pub text: String,
    pub logprobs: Option<LegacyLogprobs>,
    pub finish_reason: &'static str,
}

/// A piece of a stream; `C` is its choice.
#[derive(Debug, Serialize)]
pub(crate) struct Chunk<C> {
    pub id: String,
    pub object: &'static str,
    pub created: u64,
    pub model: String,
    pub choices: Vec<C>,
    /// `Some(None)` is written as null: what clients that asked for usage expect of all chunks but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<UsageBody>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timings: Option<TimingsBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Value>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ChatChunkChoice {
    pub index: usize,
    pub delta: ChatDelta,
    pub logprobs: Option<ChatLogprobs>,
    pub finish_reason: Option<&'static str>,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct ChatDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// `Some(None)` is written as null.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCallChunk>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ToolCallChunk {
    pub index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    pub function: FunctionChunk,
}

#[derive(Debug, Serialize)]
pub(crate) struct FunctionChunk {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub arguments: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct CompletionChunkChoice {
    pub index: usize,
    pub text: String,
    pub logprobs: Option<LegacyLogprobs>,
    pub finish_reason: Option<&'static str>,
}

/// Log-probabilities as chat has them.
#[derive(Debug, Serialize)]
pub(crate) struct ChatLogprobs {
    pub content: Vec<ChatLogprob>,
    pub refusal: Option<Value>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ChatLogprob {
    #[serde(flatten)]
    pub token: ChatToken,
    pub top_logprobs: Vec<ChatToken>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ChatToken {
    pub token: String,
    pub logprob: f32,
    /// `None` where the token is a part of a character.
    pub bytes: Option<Vec<u8>>,
}

/// JSON has no infinity; OpenAI writes this for what practically cannot come.
pub(crate) const LEAST_LOGPROB: f32 = -9999.0;

impl ChatToken {
    fn new(token: &str, logprob: f32) -> Self {
        let bytes = (!token.contains(char::REPLACEMENT_CHARACTER)).then(|| token.as_bytes().to_vec());
        Self { token: token.to_owned(), logprob: logprob.max(LEAST_LOGPROB), bytes }
    }
}

impl ChatLogprobs {
    pub fn new(logprobs: &[NamedLogprob]) -> Self {
        let one = |found: &NamedLogprob| ChatLogprob {
            token: ChatToken::new(&found.token, found.logprob),
            top_logprobs: found.top.iter().map(|(token, logprob)| ChatToken::new(token, *logprob)).collect(),
        };
        Self { content: logprobs.iter().map(one).collect(), refusal: None }
    }
}
