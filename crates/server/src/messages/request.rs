//! What is asked in Anthropic's words, in the terms of the other routes.

use downshift_worker::Input;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::body::Payload;
use crate::chat::{check_tools, choose_tool, conversation};
use crate::dialect::{TextOr, renamed};
use crate::error::ApiError;
use crate::generation::{Generation, check_names};
use crate::openai::{ChatMessage, CommonFields, Content, NamedSchema, Object, ResponseFormat, Texts};

/// OpenAI's names of parameters, and Anthropic's.
const NAMES: [(&str, &str); 2] = [("response_format.json_schema", "output_config.format"), ("stop", "stop_sequences")];

/// A whole request.
pub(super) struct Asked {
    pub generation: Generation,
    pub input: Input,
    /// Whether calls after the first are left out.
    pub one_call: bool,
}

/// What is to be counted, and by which model.
pub(super) struct AskedCount {
    pub models: Vec<String>,
    pub input: Input,
}

/// What only generating knows.
#[derive(Deserialize)]
struct Fields {
    max_tokens: i64,
    #[serde(default)]
    stop_sequences: Option<Vec<String>>,
    #[serde(default)]
    output_config: Option<Object<OutputConfig>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OutputConfig {
    format: Option<Object<OutputFormat>>,
}

#[derive(Deserialize)]
struct OutputFormat {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    schema: Option<Value>,
}

/// What the prompt is made of.
#[derive(Deserialize)]
struct Conversation {
    messages: Vec<Object<Turn>>,
    #[serde(default)]
    system: Option<Blocks>,
    #[serde(default)]
    tools: Option<Vec<Object<Tool>>>,
    #[serde(default)]
    tool_choice: Option<Object<Choice>>,
    #[serde(default)]
    thinking: Option<Object<Thinking>>,
}

#[derive(Deserialize)]
struct Turn {
    role: String,
    content: Blocks,
}

/// A text, or blocks.
type Blocks = TextOr<Block>;

/// A block of any kind.
#[derive(Default, Deserialize)]
struct Block {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    thinking: Option<String>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    input: Option<Value>,
    #[serde(default)]
    tool_use_id: Option<String>,
    #[serde(default)]
    content: Option<Box<Blocks>>,
    #[serde(default)]
    is_error: Option<bool>,
}

#[derive(Deserialize)]
struct Tool {
    name: String,
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    input_schema: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    disable_parallel_tool_use: Option<bool>,
}

#[derive(Deserialize)]
struct Thinking {
    #[serde(rename = "type")]
    kind: String,
}

impl Asked {
    /// What `payload` asks for, or what of it is wrong.
    pub fn read(app: &App, payload: &Payload) -> Result<Self, ApiError> {
        let Fields { max_tokens, stop_sequences, output_config } = payload.parse()?;
        let prompt: Conversation = payload.parse()?;
        let one_call = prompt.tool_choice.as_ref().is_some_and(|choice| choice.0.disable_parallel_tool_use == Some(true));
        let common = CommonFields {
            max_tokens: Some(max_tokens),
            stop: stop_sequences.map(Texts),
            response_format: output_config.and_then(|config| config.0.format).map(|format| response_format(format.0)).transpose()?,
            n: None,
            ..payload.parse()?
        };
        let generation = Generation::from_fields(app, common).map_err(|error| renamed(error, &NAMES))?;
        Ok(Self { generation, input: prompt.input()?, one_call })
    }
}

impl AskedCount {
    /// What `payload` asks to count, or what of it is wrong.
    pub fn read(app: &App, payload: &Payload) -> Result<Self, ApiError> {
        let prompt: Conversation = payload.parse()?;
        let models = app.models_for(payload.parse::<CommonFields>()?.model.map(|names| names.0));
        check_names("model", &models)?;
        Ok(Self { models, input: prompt.input()? })
    }
}

fn response_format(format: OutputFormat) -> Result<Object<ResponseFormat>, ApiError> {
    if format.kind != "json_schema" {
        return Err(ApiError::param("output_config.format.type", "`output_config.format.type` can be json_schema"));
    }
    let json_schema = Some(Object(NamedSchema { schema: format.schema }));
    Ok(Object(ResponseFormat { kind: format.kind, json_schema }))
}

impl Conversation {
    fn input(self) -> Result<Input, ApiError> {
        let Self { messages, system, tools, tool_choice, thinking } = self;
        let tools = tools.unwrap_or_default().into_iter().enumerate().map(tool).collect::<Result<Vec<_>, _>>()?;
        check_tools(&tools)?;
        let tool_choice = choose_tool(tool_choice.map(|choice| choice_value(choice.0)).transpose()?, &tools)?;
        let mut turns = Vec::new();
        if let Some(system) = system {
            turns.push(spoken("system", text_of("system", system)?));
        }
        if messages.is_empty() {
            return Err(ApiError::param("messages", "`messages` is empty"));
        }
        for (at, Object(turn)) in messages.into_iter().enumerate() {
            add_turn(at, turn, &mut turns)?;
        }
        let variables = thinking.map(|thinking| variables(&thinking.0)).transpose()?.unwrap_or_default();
        Ok(Input::Chat { messages: conversation(turns)?, tools, tool_choice, variables })
    }
}

fn spoken(role: &str, text: String) -> Object<ChatMessage> {
    Object(ChatMessage {
        role: role.to_owned(),
        content: Some(Content::Text(text)),
        name: None,
        tool_calls: None,
        tool_call_id: None,
        reasoning_content: None,
    })
}

fn add_turn(at: usize, turn: Turn, turns: &mut Vec<Object<ChatMessage>>) -> Result<(), ApiError> {
    let param = format!("messages[{at}].content");
    match turn.role.as_str() {
        "user" => user_turns(&param, blocks(turn.content), turns),
        "assistant" => assistant_turn(&param, blocks(turn.content)).map(|turn| turns.push(turn)),
        "system" => text_of(&param, turn.content).map(|text| turns.push(spoken("system", text))),
        other => {
            let other: String = other.chars().take(40).collect();
            let message = format!("a role is `{other}`, and can be user, assistant or system");
            Err(ApiError::param(format!("messages[{at}].role"), message))
        }
    }
}

/// The results of tools are turns of their own in the templates of models, and come before what the user says of them.
fn user_turns(param: &str, blocks: Vec<Block>, turns: &mut Vec<Object<ChatMessage>>) -> Result<(), ApiError> {
    let only_results = !blocks.is_empty() && blocks.iter().all(|block| block.kind == "tool_result");
    let mut texts = Vec::new();
    for (at, block) in blocks.into_iter().enumerate() {
        let param = format!("{param}[{at}]");
        if block.kind != "tool_result" {
            texts.push(text(&param, block)?);
            continue;
        }
        let id = block.tool_use_id.ok_or_else(|| ApiError::param(&param, "a tool_result needs `tool_use_id`"))?;
        let mut result = block.content.map(|content| text_of(&param, *content)).transpose()?.unwrap_or_default();
        if block.is_error == Some(true) {
            // Templates have no place for it, and a model that takes an error for a result goes on with it.
            result.insert_str(0, "Error: ");
        }
        let mut turn = spoken("tool", result);
        turn.0.tool_call_id = Some(id);
        turns.push(turn);
    }
    if !only_results {
        turns.push(spoken("user", texts.join("\n")));
    }
    Ok(())
}

fn assistant_turn(param: &str, blocks: Vec<Block>) -> Result<Object<ChatMessage>, ApiError> {
    let (mut texts, mut thoughts, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    for (at, block) in blocks.into_iter().enumerate() {
        let param = format!("{param}[{at}]");
        match block.kind.as_str() {
            "thinking" => thoughts.extend(block.thinking),
            "redacted_thinking" => {}
            "tool_use" => {
                let (Some(id), Some(name), Some(Value::Object(input))) = (block.id, block.name, block.input) else {
                    return Err(ApiError::param(param, "a tool_use needs `id`, `name`, and an object as `input`"));
                };
                let arguments = Value::Object(input).to_string();
                calls.push(json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}));
            }
            _ => texts.push(text(&param, block)?),
        }
    }
    let mut turn = spoken("assistant", texts.join("\n"));
    turn.0.reasoning_content = (!thoughts.is_empty()).then(|| thoughts.join("\n"));
    turn.0.tool_calls = (!calls.is_empty()).then_some(calls);
    Ok(turn)
}

/// A text alone is a block.
fn blocks(content: Blocks) -> Vec<Block> {
    match content {
        TextOr::Text(text) => vec![Block { kind: "text".to_owned(), text: Some(text), ..Block::default() }],
        TextOr::List(blocks) => blocks,
    }
}

/// Blocks that can be text only, a line each.
fn text_of(param: &str, content: Blocks) -> Result<String, ApiError> {
    let texts = blocks(content).into_iter().enumerate().map(|(at, block)| text(&format!("{param}[{at}]"), block));
    Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
}

fn text(param: &str, block: Block) -> Result<String, ApiError> {
    match (block.kind.as_str(), block.text) {
        ("text", Some(text)) => Ok(text),
        ("text", None) => Err(ApiError::param(param, "the block has no text")),
        (kind, _) => {
            let kind: String = kind.chars().take(40).collect();
            Err(ApiError::param(param, format!("the models of this server read text here, and no `{kind}`")))
        }
    }
}

/// As OpenAI has it.
fn tool((at, Object(tool)): (usize, Object<Tool>)) -> Result<Value, ApiError> {
    let error = |field: &str, message: String| Err(ApiError::param(format!("tools[{at}].{field}"), message));
    if let Some(kind) = tool.kind.filter(|kind| kind != "custom") {
        let kind: String = kind.chars().take(40).collect();
        return error("type", format!("this server runs no tools of its own, such as `{kind}`"));
    }
    let Some(schema @ Value::Object(_)) = tool.input_schema else {
        return error("input_schema", "a tool needs an object as `input_schema`".to_owned());
    };
    let mut function = json!({"name": tool.name, "parameters": schema});
    if let Some(description) = tool.description {
        function["description"] = json!(description);
    }
    Ok(json!({"type": "function", "function": function}))
}

/// As OpenAI has it.
fn choice_value(choice: Choice) -> Result<Value, ApiError> {
    match (choice.kind.as_str(), choice.name) {
        (kind @ ("auto" | "none"), _) => Ok(json!(kind)),
        ("any", _) => Ok(json!("required")),
        ("tool", Some(name)) => Ok(json!({"type": "function", "function": {"name": name}})),
        ("tool", None) => Err(ApiError::param("tool_choice.name", "`tool_choice` of a tool needs its `name`")),
        _ => Err(ApiError::param("tool_choice.type", "`tool_choice.type` can be auto, any, tool or none")),
    }
}

/// What templates know of thinking: whether to, and nothing of a budget.
fn variables(thinking: &Thinking) -> Result<Map<String, Value>, ApiError> {
    let enabled = match thinking.kind.as_str() {
        "enabled" => Some(true),
        "disabled" => Some(false),
        // As the model likes.
        "adaptive" | "between_tools" => None,
        _ => return Err(ApiError::param("thinking.type", "`thinking.type` can be enabled, disabled or adaptive")),
    };
    Ok(enabled.map(|enabled| ("enable_thinking".to_owned(), Value::Bool(enabled))).into_iter().collect())
}
