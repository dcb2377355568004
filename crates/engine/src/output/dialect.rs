//! Which forms a model uses for thoughts and calls, found from its chat template and vocabulary.

use crate::tokenizer::{TokenKind, Tokenizer};

/// The forms of one model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dialect {
    /// How it marks its thoughts, if it thinks.
    pub thinking: Option<Tags>,
    /// How its template shows calls of tools, if that knows tools.
    pub tools: Option<ToolForm>,
    /// What begins such a call.
    pub call_marker: Option<Marker>,
    /// Control tokens whose spelling is part of a form, ascending.
    pub shown: Vec<u32>,
}

/// What is around a thought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tags {
    pub open: Marker,
    pub close: Marker,
}

/// A text with a meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    pub text: &'static str,
    /// The token that is this text, if there is one.
    pub token: Option<u32>,
}

/// Where an answer's thought stands when the prompt ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thought {
    /// The model may think or not.
    Open,
    /// The prompt has begun a thought.
    Begun,
    /// The prompt has ended it, or there is none.
    Over,
}

/// How a model writes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ToolForm {
    /// `<tool_call>{"name": .., "arguments": {..}}</tool_call>`: Qwen, Hermes and many others.
    Hermes,
    /// `{"name": .., "parameters": {..}}` as the whole answer, perhaps after `<|python_tag|>`: Llama 3, and templates that show
    /// tools in no other known form.
    Llama,
    /// `[TOOL_CALLS][{"name": .., "arguments": {..}}]`: Mistral until 2024.
    MistralList,
    /// `[TOOL_CALLS]name[ARGS]{..}`: Mistral since.
    MistralNamed,
}

impl ToolForm {
    /// The form that models are told of whose template knows none.
    pub const IN_WORDS: Self = Self::Hermes;

    /// What begins a call.
    pub fn marker(self) -> Option<&'static str> {
        match self {
            Self::Hermes => Some("<tool_call>"),
            Self::MistralList | Self::MistralNamed => Some("[TOOL_CALLS]"),
            Self::Llama => None,
        }
    }

    /// What may stand before a call.
    pub fn prefix(self) -> &'static str {
        self.marker().unwrap_or("<|python_tag|>")
    }
}

const THOUGHTS: [(&str, &str); 3] = [("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>")];

/// All texts of forms that are control tokens in some vocabularies.
const MARKERS: [&str; 12] = [
    "<think>",
    "</think>",
    "[THINK]",
    "[/THINK]",
    "<seed:think>",
    "</seed:think>",
    "<tool_call>",
    "</tool_call>",
    "<|python_tag|>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "[CALL_ID]",
];

impl Dialect {
    /// The forms that a template's text shows.
    pub fn of(template: &str, tokenizer: &Tokenizer) -> Self {
        let marker = |text| Marker { text, token: tokenizer.token_id(text) };
        let is_control = |id: &u32| tokenizer.kind(*id) == Some(TokenKind::Control);
        let mut shown: Vec<u32> = MARKERS.iter().filter_map(|text| tokenizer.token_id(text)).filter(is_control).collect();
        shown.sort_unstable();
        let tags = THOUGHTS.iter().find(|(_, close)| template.contains(close));
        let tools = tool_form(template);
        Self {
            thinking: tags.map(|(open, close)| Tags { open: marker(open), close: marker(close) }),
            tools,
            call_marker: tools.unwrap_or(ToolForm::IN_WORDS).marker().map(marker),
            shown,
        }
    }

    /// How it calls tools.
    pub fn form(&self) -> ToolForm {
        self.tools.unwrap_or(ToolForm::IN_WORDS)
    }

    /// Where the thought stands after a prompt.
    pub fn thought(&self, prompt: &str) -> Thought {
        let Some(Tags { open, close }) = &self.thinking else { return Thought::Over };
        let end = prompt.trim_end();
        if end.ends_with(open.text) {
            Thought::Begun
        } else if end.ends_with(close.text) {
            Thought::Over
        } else {
            Thought::Open
        }
    }
}

fn tool_form(template: &str) -> Option<ToolForm> {
    let has = |text: &str| template.contains(text);
    if !has("tools") {
        return None;
    }
    Some(match () {
        () if has("[TOOL_CALLS]") && has("[ARGS]") => ToolForm::MistralNamed,
        () if has("[TOOL_CALLS]") => ToolForm::MistralList,
        () if has("<tool_call>") => ToolForm::Hermes,
        () => ToolForm::Llama,
    })
}
