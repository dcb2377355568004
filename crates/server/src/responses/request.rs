//! What is asked for, in the terms of the other routes.

use downshift_worker::Input;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::items::{Items, turns};
use super::response::ResponseObject;
use crate::app::App;
use crate::body::Payload;
use crate::chat::{check_tools, choose_tool, conversation};
use crate::dialect::renamed;
use crate::error::ApiError;
use crate::generation::{Generation, check_names, top_logprobs};
use crate::openai::{CommonFields, NamedSchema, Object, ResponseFormat};

/// Names of parameters in chat, and here.
const NAMES: [(&str, &str); 2] = [("response_format", "text.format"), ("max_tokens", "max_output_tokens")];
const LOGPROBS: &str = "message.output_text.logprobs";

/// A whole request.
pub(super) struct Asked {
    pub generation: Generation,
    pub input: Input,
    /// Whether calls after the first are left out.
    pub one_call: bool,
    /// The answer, but for what is not known yet.
    pub response: ResponseObject,
}

/// What is to be counted, and by which model.
pub(super) struct AskedCount {
    pub models: Vec<String>,
    pub input: Input,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    text: Option<Object<Text>>,
    max_output_tokens: Option<i64>,
    top_logprobs: Option<u32>,
    parallel_tool_calls: Option<bool>,
    include: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Text {
    format: Option<Object<Format>>,
}

#[derive(Deserialize)]
struct Format {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    schema: Option<Value>,
}

/// What the prompt is made of.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Prompt {
    input: Option<Items>,
    instructions: Option<String>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    reasoning: Option<Object<Reasoning>>,
    chat_template_kwargs: Option<Map<String, Value>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Reasoning {
    effort: Option<String>,
}

/// What refers to something that a server would have to keep.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Kept {
    previous_response_id: Option<Value>,
    conversation: Option<Value>,
    prompt: Option<Value>,
    background: Option<Value>,
}

impl Asked {
    /// What `payload` asks for, or what of it is wrong.
    pub fn read(app: &App, payload: &Payload) -> Result<Self, ApiError> {
        payload.parse::<Kept>()?.refuse()?;
        let fields: Fields = payload.parse()?;
        let prompt: Prompt = payload.parse()?;
        let format = fields.text.and_then(|text| text.0.format).map(|format| Object(response_format(format.0)));
        let common = CommonFields { max_tokens: fields.max_output_tokens, response_format: format, n: None, ..payload.parse()? };
        let mut generation = Generation::from_fields(app, common).map_err(|error| renamed(error, &NAMES))?;
        if fields.include.is_some_and(|wanted| wanted.iter().any(|name| name == LOGPROBS)) {
            generation.logprobs = Some(top_logprobs("top_logprobs", fields.top_logprobs.unwrap_or(0))?);
        }
        let response = ResponseObject::new(payload.parse()?);
        Ok(Self { generation, input: prompt.read()?, one_call: fields.parallel_tool_calls == Some(false), response })
    }
}

impl AskedCount {
    /// What `payload` asks to count, or what of it is wrong.
    pub fn read(app: &App, payload: &Payload) -> Result<Self, ApiError> {
        payload.parse::<Kept>()?.refuse()?;
        let models = app.models_for(payload.parse::<CommonFields>()?.model.map(|names| names.0));
        check_names("model", &models)?;
        Ok(Self { models, input: payload.parse::<Prompt>()?.read()? })
    }
}

impl Kept {
    fn refuse(self) -> Result<(), ApiError> {
        let Self { previous_response_id, conversation, prompt, background } = self;
        let background = background.filter(|background| *background != json!(false));
        let all = [
            ("previous_response_id", previous_response_id),
            ("conversation", conversation),
            ("prompt", prompt),
            ("background", background),
        ];
        match all.into_iter().find(|(_, value)| value.as_ref().is_some_and(|value| !value.is_null())) {
            None => Ok(()),
            Some((name, _)) => {
                let message = format!("`{name}` is not supported: this server keeps no state between requests; send the whole input");
                Err(ApiError::param(name, message))
            }
        }
    }
}

fn response_format(format: Format) -> ResponseFormat {
    let json_schema = format.schema.map(|schema| Object(NamedSchema { schema: Some(schema) }));
    ResponseFormat { kind: format.kind, json_schema }
}

impl Prompt {
    fn read(self) -> Result<Input, ApiError> {
        let Self { input, instructions, tools, tool_choice, reasoning, chat_template_kwargs } = self;
        let tools = tools.unwrap_or_default().into_iter().enumerate().map(tool).collect::<Result<Vec<_>, _>>()?;
        check_tools(&tools)?;
        let (tool_choice, tools) = choice(tool_choice, tools)?;
        let tool_choice = choose_tool(tool_choice, &tools)?;
        let mut variables = chat_template_kwargs.unwrap_or_default();
        if let Some(effort) = reasoning.and_then(|reasoning| reasoning.0.effort) {
            if !["none", "minimal", "low", "medium", "high", "xhigh", "max"].contains(&effort.as_str()) {
                return Err(ApiError::param("reasoning.effort", "`reasoning.effort` can be none, minimal, low, medium, high or xhigh"));
            }
            // Some templates know whether to think, others how much.
            variables.entry("enable_thinking").or_insert(json!(effort != "none"));
            variables.entry("reasoning_effort").or_insert(json!(effort));
        }
        Ok(Input::Chat { messages: conversation(turns(instructions, input)?)?, tools, tool_choice, variables })
    }
}

/// As chat has it: what describes the function is a level deeper there.
fn tool((at, tool): (usize, Value)) -> Result<Value, ApiError> {
    let error = |message: String| Err(ApiError::param(format!("tools[{at}]"), message));
    let Value::Object(tool) = tool else { return error("a tool must be an object".to_owned()) };
    match tool.get("type").and_then(Value::as_str) {
        Some("function") => {}
        Some(kind) => {
            let kind: String = kind.chars().take(40).collect();
            return error(format!("this server runs no tools of its own, such as `{kind}`: the `type` must be `function`"));
        }
        None => return error("the `type` of a tool must be `function`".to_owned()),
    }
    let known = ["name", "description", "parameters", "strict"];
    let function: Map<String, Value> =
        tool.into_iter().filter(|(name, value)| known.contains(&name.as_str()) && !value.is_null()).collect();
    Ok(json!({"type": "function", "function": function}))
}

/// As chat has it, with the tools that are left to choose from.
fn choice(choice: Option<Value>, mut tools: Vec<Value>) -> Result<(Option<Value>, Vec<Value>), ApiError> {
    let named = |choice: &Value| choice.get("name").and_then(Value::as_str).map(str::to_owned);
    let kind = choice.as_ref().and_then(|choice| choice.get("type")).and_then(Value::as_str);
    match (kind, &choice) {
        (Some("function"), Some(choice)) => {
            let name = named(choice).ok_or_else(|| ApiError::param("tool_choice", "`tool_choice` of a function needs its `name`"))?;
            Ok((Some(json!({"type": "function", "function": {"name": name}})), tools))
        }
        (Some("allowed_tools"), Some(choice)) => {
            let allowed: Vec<_> = choice.get("tools").and_then(Value::as_array).into_iter().flatten().filter_map(named).collect();
            let name = |tool: &Value| tool.pointer("/function/name").and_then(Value::as_str).map(str::to_owned);
            tools.retain(|tool| name(tool).is_some_and(|name| allowed.contains(&name)));
            Ok((choice.get("mode").cloned(), tools))
        }
        (Some(kind), _) => {
            let kind: String = kind.chars().take(40).collect();
            Err(ApiError::param("tool_choice", format!("`tool_choice` can be of a function or of allowed_tools, and not of `{kind}`")))
        }
        (None, _) => Ok((choice, tools)),
    }
}
