//! The items of an `input`, as the turns of a chat.

use serde::Deserialize;
use serde_json::json;

use crate::dialect::TextOr;
use crate::error::ApiError;
use crate::openai::{ChatMessage, Content, Object, Part};

/// A text, or items.
pub(super) type Items = TextOr<Item>;

/// An item of any kind.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Item {
    #[serde(rename = "type")]
    kind: Option<String>,
    role: Option<String>,
    content: Option<TextOr<Part>>,
    summary: Option<TextOr<Part>>,
    call_id: Option<String>,
    name: Option<String>,
    arguments: Option<String>,
    output: Option<TextOr<Part>>,
}

/// The turns of `input`; one that says nothing where there is none.
pub(super) fn turns(instructions: Option<String>, input: Option<Items>) -> Result<Vec<Object<ChatMessage>>, ApiError> {
    let mut turns = Turns::default();
    if let Some(instructions) = instructions {
        turns.done.push(spoken("system", instructions));
    }
    match input {
        Some(TextOr::List(items)) if !items.is_empty() => {
            for (at, item) in items.into_iter().enumerate() {
                turns.add(at, item)?;
            }
        }
        Some(TextOr::Text(text)) => turns.done.push(spoken("user", text)),
        // Many templates need somebody to speak.
        Some(TextOr::List(_)) | None => turns.done.push(spoken("user", String::new())),
    }
    turns.end_thought();
    Ok(turns.done.into_iter().map(Object).collect())
}

fn spoken(role: &str, text: String) -> ChatMessage {
    ChatMessage {
        role: role.to_owned(),
        content: Some(Content::Text(text)),
        name: None,
        tool_calls: None,
        tool_call_id: None,
        reasoning_content: None,
    }
}

/// What one turn of a model's is here comes as several items: its thoughts, its message and its calls.
#[derive(Default)]
struct Turns {
    done: Vec<ChatMessage>,
    /// Thoughts that belong to the turn to come.
    thought: Option<String>,
}

impl Turns {
    fn add(&mut self, at: usize, item: Item) -> Result<(), ApiError> {
        let param = |field: &str| format!("input[{at}].{field}");
        let missing = |field: &str| ApiError::param(param(field), format!("`{field}` of an item is missing"));
        match item.kind.as_deref().unwrap_or("message") {
            "message" => {
                let role = item.role.ok_or_else(|| missing("role"))?;
                if !["user", "assistant", "system", "developer"].contains(&role.as_str()) {
                    return Err(ApiError::param(param("role"), "a role can be user, assistant, system or developer"));
                }
                let text = text(&param("content"), item.content.ok_or_else(|| missing("content"))?)?;
                if role == "assistant" {
                    return self.own(text);
                }
                self.end_thought();
                self.done.push(spoken(&role, text));
            }
            "function_call" => {
                let id = item.call_id.ok_or_else(|| missing("call_id"))?;
                let name = item.name.ok_or_else(|| missing("name"))?;
                let arguments = item.arguments.ok_or_else(|| missing("arguments"))?;
                if self.thought.is_some() || self.done.last().is_none_or(|turn| turn.role != "assistant") {
                    self.own(String::new())?;
                }
                if let Some(turn) = self.done.last_mut() {
                    let call = json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
                    turn.tool_calls.get_or_insert_default().push(call);
                }
            }
            "function_call_output" => {
                self.end_thought();
                let id = item.call_id.ok_or_else(|| missing("call_id"))?;
                let text = text(&param("output"), item.output.ok_or_else(|| missing("output"))?)?;
                self.done.push(ChatMessage { tool_call_id: Some(id), ..spoken("tool", text) });
            }
            "reasoning" => {
                let whole = item.content.map(|content| text(&param("content"), content)).transpose()?.filter(|text| !text.is_empty());
                let summary = item.summary.map(|summary| text(&param("summary"), summary)).transpose()?;
                self.thought = whole.or(summary).filter(|text| !text.is_empty());
            }
            "item_reference" => {
                return Err(ApiError::param(param("type"), "this server keeps no state: send the item itself in place of a reference"));
            }
            other => {
                let other: String = other.chars().take(40).collect();
                return Err(ApiError::param(param("type"), format!("this server knows no items of the type `{other}`")));
            }
        }
        Ok(())
    }

    /// A turn of the model's.
    fn own(&mut self, text: String) -> Result<(), ApiError> {
        let reasoning_content = self.thought.take();
        self.done.push(ChatMessage { reasoning_content, ..spoken("assistant", text) });
        Ok(())
    }

    /// Thoughts that led to nothing are left out.
    fn end_thought(&mut self) {
        self.thought = None;
    }
}

/// Parts of text, a line each.
fn text(param: &str, content: TextOr<Part>) -> Result<String, ApiError> {
    let parts = match content {
        TextOr::Text(text) => return Ok(text),
        TextOr::List(parts) => parts,
    };
    let text = |(at, part): (usize, Part)| {
        let error = |message: String| Err(ApiError::param(format!("{param}[{at}]"), message));
        match (part.kind.as_str(), part.text, part.refusal) {
            ("input_text" | "output_text" | "text" | "reasoning_text" | "summary_text", Some(text), _) | ("refusal", _, Some(text)) => {
                Ok(text)
            }
            ("input_text" | "output_text" | "text" | "reasoning_text" | "summary_text" | "refusal", ..) => {
                error("the part has no text".to_owned())
            }
            (kind, ..) => {
                let kind: String = kind.chars().take(40).collect();
                error(format!("the models of this server read text, and no `{kind}`"))
            }
        }
    };
    Ok(parts.into_iter().enumerate().map(text).collect::<Result<Vec<_>, _>>()?.join("\n"))
}
