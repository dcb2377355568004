//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use downshift_worker::{Delta, Input, Message, Role, ToolCallDelta, ToolChoice};
use serde_json::{Map, Value};

use crate::app::App;
use crate::body::Payload;
use crate::error::ApiError;
use crate::gather::{Gathered, gather};
use crate::generation::{Generation, check_size, max_tokens, top_logprobs};
use crate::guard::Id;
use crate::ids::CallIds;
use crate::openai::{
    AnswerMessage, ChatChoice, ChatChunkChoice, ChatDelta, ChatFields, ChatLogprobs, ChatMessage, CommonFields, Content, FunctionChunk,
    Object, Part, ToolCallChunk,
};
use crate::stream::{Dialect, respond};
use crate::token_names::NamedLogprob;

const MOST_MESSAGES: usize = 10_000;
const MOST_TOOLS: usize = 256;

pub(crate) async fn create(State(app): State<Arc<App>>, Extension(Id(id)): Extension<Id>, payload: Payload) -> Result<Response, ApiError> {
    let fields: ChatFields = payload.parse()?;
    let mut generation = Generation::from_fields(&app, payload.parse::<CommonFields>()?)?;
    if let Some(tokens) = fields.max_completion_tokens {
        generation.max_tokens = Some(max_tokens("max_completion_tokens", tokens)?);
    }
    generation.logprobs = logprobs(&fields)?;
    let one_call = fields.parallel_tool_calls == Some(false);
    let input = input(fields)?;
    let mut answers = app.ask(generation.submissions(&app, id, vec![input]))?;
    answers.hold(payload.into_room());
    let wants_logprobs = generation.logprobs.is_some();
    if generation.options.stream {
        let n = generation.n as usize;
        let dialect = ChatDialect { one_call, wants_logprobs, calls: (0..n).map(|_| Calls::default()).collect() };
        return respond(answers, &app, dialect, n, generation.include_usage).await;
    }
    let whole = gather(answers, &app, generation.n as usize, one_call).await?;
    let choices = whole.gathered.into_iter().enumerate().map(|(index, gathered)| choice(index, gathered, wants_logprobs)).collect();
    Ok(whole.told.response("chatcmpl-", "chat.completion", choices))
}

fn choice(index: usize, gathered: Gathered, wants_logprobs: bool) -> ChatChoice {
    let finish_reason = gathered.finish_reason();
    let Gathered { text, reasoning, calls, logprobs, .. } = gathered;
    let message = AnswerMessage {
        role: "assistant",
        content: (!text.is_empty() || calls.is_empty()).then_some(text),
        refusal: None,
        reasoning_content: (!reasoning.is_empty()).then_some(reasoning),
        tool_calls: calls,
    };
    ChatChoice { index, message, logprobs: wants_logprobs.then(|| ChatLogprobs::new(&logprobs)), finish_reason }
}

/// The chunks of a chat.
struct ChatDialect {
    one_call: bool,
    wants_logprobs: bool,
    /// By choice.
    calls: Vec<Calls>,
}

/// The tool calls of one choice.
#[derive(Default)]
struct Calls {
    ids: CallIds,
    /// Calls whose first piece was sent.
    begun: Vec<u32>,
}

impl Dialect for ChatDialect {
    type Choice = ChatChunkChoice;
    const ID: &'static str = "chatcmpl-";
    const OBJECT: &'static str = "chat.completion.chunk";

    fn opening(&mut self, index: usize) -> Option<ChatChunkChoice> {
        let delta = ChatDelta { role: Some("assistant"), content: Some(None), ..ChatDelta::default() };
        Some(ChatChunkChoice { index, delta, logprobs: None, finish_reason: None })
    }

    fn piece(&mut self, index: usize, delta: Delta, logprobs: Vec<NamedLogprob>) -> Option<ChatChunkChoice> {
        let Delta { text, reasoning, tool_calls, .. } = delta;
        let calls = &mut self.calls[index];
        let one_call = self.one_call;
        let tool_calls: Vec<_> = tool_calls.into_iter().filter(|call| !one_call || call.index == 0).map(|call| calls.chunk(call)).collect();
        if text.is_empty() && reasoning.is_empty() && tool_calls.is_empty() && logprobs.is_empty() {
            return None;
        }
        let delta = ChatDelta {
            role: None,
            content: (!text.is_empty()).then_some(Some(text)),
            reasoning_content: (!reasoning.is_empty()).then_some(reasoning),
            tool_calls,
        };
        let logprobs = (self.wants_logprobs && !logprobs.is_empty()).then(|| ChatLogprobs::new(&logprobs));
        Some(ChatChunkChoice { index, delta, logprobs, finish_reason: None })
    }

    fn finish(&mut self, index: usize, reason: &'static str) -> ChatChunkChoice {
        ChatChunkChoice { index, delta: ChatDelta::default(), logprobs: None, finish_reason: Some(reason) }
    }
}

impl Calls {
    fn chunk(&mut self, call: ToolCallDelta) -> ToolCallChunk {
        let ToolCallDelta { index, name, arguments } = call;
        let is_first = !self.begun.contains(&index);
        if is_first {
            self.begun.push(index);
        }
        ToolCallChunk {
            index,
            id: is_first.then(|| self.ids.of(index).to_owned()),
            kind: is_first.then_some("function"),
            function: FunctionChunk { name, arguments },
        }
    }
}

fn logprobs(fields: &ChatFields) -> Result<Option<u8>, ApiError> {
    match (fields.logprobs.unwrap_or(false), fields.top_logprobs) {
        (true, number) => top_logprobs("top_logprobs", number.unwrap_or(0)).map(Some),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => Err(ApiError::param("top_logprobs", "`top_logprobs` needs `logprobs` to be true")),
    }
}

fn input(fields: ChatFields) -> Result<Input, ApiError> {
    let ChatFields { messages, tools, tool_choice, chat_template_kwargs, .. } = fields;
    let tools = tools.unwrap_or_default();
    check_tools(&tools)?;
    let variables = chat_template_kwargs.unwrap_or_default();
    check_size("chat_template_kwargs", &variables)?;
    Ok(Input::Chat { messages: conversation(messages)?, tool_choice: choose_tool(tool_choice, &tools)?, tools, variables })
}

/// The turns of a request, in the worker's terms.
pub(crate) fn conversation(messages: Vec<Object<ChatMessage>>) -> Result<Vec<Message>, ApiError> {
    if messages.is_empty() {
        return Err(ApiError::param("messages", "`messages` is empty"));
    }
    if messages.len() > MOST_MESSAGES {
        return Err(ApiError::param("messages", format!("`messages` has {} turns, and may have {MOST_MESSAGES}", messages.len())));
    }
    messages.into_iter().enumerate().map(|(at, message)| turn(at, message.0)).collect()
}

fn turn(at: usize, message: ChatMessage) -> Result<Message, ApiError> {
    let param = |field: &str| format!("messages[{at}].{field}");
    let role = match message.role.as_str() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        other => {
            let other: String = other.chars().take(40).collect();
            let message = format!("a role is `{other}`, and can be system, developer, user, assistant or tool");
            return Err(ApiError::param(param("role"), message));
        }
    };
    let content = match message.content {
        Some(Content::Text(text)) => text,
        Some(Content::Parts(parts)) => joined(at, parts)?,
        None if role == Role::Assistant => String::new(),
        None => return Err(ApiError::param(param("content"), format!("the `content` of a {} message is missing", message.role))),
    };
    let mut extra = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            extra.insert(name.to_owned(), value);
        }
    };
    put("name", message.name.map(Value::String));
    put("tool_call_id", message.tool_call_id.map(Value::String));
    put("reasoning_content", message.reasoning_content.map(Value::String));
    if let Some(calls) = message.tool_calls.filter(|calls| !calls.is_empty()) {
        if let Some(wrong) = calls.iter().position(|call| call.pointer("/function/name").is_none_or(|name| !name.is_string())) {
            let message = "a tool call needs `function.name`";
            return Err(ApiError::param(param(&format!("tool_calls[{wrong}]")), message));
        }
        check_size(&param("tool_calls"), &calls)?;
        put("tool_calls", Some(Value::Array(calls)));
    }
    Ok(Message { role, content: Value::String(content), extra })
}

/// Parts of text, a line each.
fn joined(at: usize, parts: Vec<Object<Part>>) -> Result<String, ApiError> {
    let text = |(part_at, Object(part)): (usize, Object<Part>)| {
        let error = |message: String| Err(ApiError::param(format!("messages[{at}].content[{part_at}]"), message));
        match (part.kind.as_str(), part.text, part.refusal) {
            ("text", Some(text), _) | ("refusal", _, Some(text)) => Ok(text),
            ("text" | "refusal", ..) => error("the part has no text".to_owned()),
            (kind, ..) => {
                let kind: String = kind.chars().take(40).collect();
                error(format!("the models of this server read text, and no `{kind}`"))
            }
        }
    };
    let texts = parts.into_iter().enumerate().map(text).collect::<Result<Vec<_>, _>>()?;
    Ok(texts.join("\n"))
}

/// Each must be a function with a name.
pub(crate) fn check_tools(tools: &[Value]) -> Result<(), ApiError> {
    if tools.len() > MOST_TOOLS {
        return Err(ApiError::param("tools", format!("`tools` has {} entries, and may have {MOST_TOOLS}", tools.len())));
    }
    for (at, tool) in tools.iter().enumerate() {
        let error = |message: &str| Err(ApiError::param(format!("tools[{at}]"), message));
        if tool.get("type").and_then(Value::as_str) != Some("function") {
            return error("the `type` of a tool must be `function`");
        }
        if tool_name(tool).is_none_or(|name| name.is_empty() || name.len() > 256) {
            return error("a tool needs `function.name`");
        }
        if tool.pointer("/function/parameters").is_some_and(|parameters| !(parameters.is_object() || parameters.is_null())) {
            return error("`function.parameters` of a tool must be a JSON schema");
        }
    }
    check_size("tools", &tools)
}

fn tool_name(tool: &Value) -> Option<&str> {
    tool.pointer("/function/name").and_then(Value::as_str)
}

/// What `choice` means where these are the tools.
pub(crate) fn choose_tool(choice: Option<Value>, tools: &[Value]) -> Result<ToolChoice, ApiError> {
    const PARAM: &str = "tool_choice";
    let needs_tools = |choice: ToolChoice| match tools {
        [] => Err(ApiError::param(PARAM, "`tool_choice` needs `tools`")),
        _ => Ok(choice),
    };
    match choice {
        None | Some(Value::Null) => Ok(ToolChoice::Auto),
        Some(Value::String(word)) => match word.as_str() {
            "auto" => Ok(ToolChoice::Auto),
            "none" => Ok(ToolChoice::None),
            "required" => needs_tools(ToolChoice::Required),
            _ => Err(ApiError::param(PARAM, "`tool_choice` can be none, auto, required or a function")),
        },
        Some(choice) => {
            let name =
                tool_name(&choice).ok_or_else(|| ApiError::param(PARAM, "`tool_choice` can be none, auto, required or a function"))?;
            if !tools.iter().any(|tool| tool_name(tool) == Some(name)) {
                return Err(ApiError::param(PARAM, "`tool_choice` names a function that is not among `tools`"));
            }
            Ok(ToolChoice::Function(name.to_owned()))
        }
    }
}
