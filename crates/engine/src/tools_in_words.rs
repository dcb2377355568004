//! Tools for models whose chat template knows none: they are told of them in the system message, and earlier calls and their
//! results stand in the conversation as text. The form is that of [`ToolForm::Hermes`](crate::output::ToolForm::Hermes).

use serde_json::{Map, Value, json};

const BEFORE: &str = "You can call functions. To call one, write nothing but\n\
    <tool_call>\n{\"name\": \"its name\", \"arguments\": {..}}\n</tool_call>\n\
    and you are given what it returns. The functions:";

/// The messages of a conversation, as a template that knows no tools takes them.
pub(crate) fn told(messages: Vec<Value>, tools: &[Value]) -> Vec<Value> {
    let mut told: Vec<Value> = Vec::with_capacity(messages.len() + 1);
    for message in messages {
        let Value::Object(mut message) = message else { continue };
        match message.get("role").and_then(Value::as_str) {
            Some("assistant") => write_calls(&mut message),
            Some("tool") => {
                let result = format!("<tool_response>\n{}\n</tool_response>", text(&message));
                // Templates want the turns of a user and an assistant in turn, so that several results are one.
                match told.last_mut().filter(|last| is_result(last)) {
                    Some(last) => last["content"] = json!(format!("{}\n{result}", last["content"].as_str().unwrap_or_default())),
                    None => told.push(json!({"role": "user", "content": result})),
                }
                continue;
            }
            _ => {}
        }
        told.push(Value::Object(message));
    }
    if !tools.is_empty() {
        introduce(&mut told, tools);
    }
    told
}

fn is_result(message: &Value) -> bool {
    message["role"] == "user" && message["content"].as_str().is_some_and(|content| content.starts_with("<tool_response>\n"))
}

fn text(message: &Map<String, Value>) -> &str {
    message.get("content").and_then(Value::as_str).unwrap_or_default()
}

/// Puts the calls of a turn behind its text.
fn write_calls(message: &mut Map<String, Value>) {
    let Some(Value::Array(calls)) = message.remove("tool_calls") else { return };
    let mut content = text(message).to_owned();
    for call in &calls {
        let function = call.get("function").unwrap_or(call);
        let call = json!({"name": function["name"], "arguments": function["arguments"]});
        if !content.is_empty() {
            content.push('\n');
        }
        content.push_str(&format!("<tool_call>\n{call}\n</tool_call>"));
    }
    message.insert("content".to_owned(), Value::String(content));
}

/// Tells of the tools behind what the system message says already.
fn introduce(messages: &mut Vec<Value>, tools: &[Value]) {
    let mut words = BEFORE.to_owned();
    for tool in tools {
        words.push_str(&format!("\n{}", tool.get("function").unwrap_or(tool)));
    }
    match messages.first_mut().filter(|first| first["role"] == "system" && first["content"].is_string()) {
        Some(first) => first["content"] = json!(format!("{}\n\n{words}", first["content"].as_str().unwrap_or_default())),
        None => messages.insert(0, json!({"role": "system", "content": words})),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_told_in_the_system_message() {
        let tools = [json!({"type": "function", "function": {"name": "weather"}})];
        let with_system = told(vec![json!({"role": "system", "content": "Be brief."}), json!({"role": "user", "content": "Hi"})], &tools);
        let system = with_system[0]["content"].as_str().expect("text");
        assert!(system.starts_with("Be brief.\n\nYou can call functions.") && system.ends_with("\n{\"name\":\"weather\"}"), "{system}");
        assert_eq!(with_system.len(), 2);
        let without = told(vec![json!({"role": "user", "content": "Hi"})], &tools);
        assert_eq!((without.len(), &without[0]["role"], &without[1]["content"]), (2, &json!("system"), &json!("Hi")));
    }

    #[test]
    fn calls_and_their_results_become_text() {
        let call = |name: &str| json!({"id": "x", "type": "function", "function": {"name": name, "arguments": {"city": "Rome"}}});
        let found = told(
            vec![
                json!({"role": "user", "content": "Hi"}),
                json!({"role": "assistant", "content": "", "tool_calls": [call("one"), call("two")]}),
                json!({"role": "tool", "content": "sunny", "tool_call_id": "x"}),
                json!({"role": "tool", "content": "warm", "tool_call_id": "x"}),
            ],
            &[],
        );
        let written = |name: &str| format!("<tool_call>\n{{\"name\":\"{name}\",\"arguments\":{{\"city\":\"Rome\"}}}}\n</tool_call>");
        assert_eq!(found[1], json!({"role": "assistant", "content": format!("{}\n{}", written("one"), written("two"))}));
        let results = "<tool_response>\nsunny\n</tool_response>\n<tool_response>\nwarm\n</tool_response>";
        assert_eq!(found[2..], [json!({"role": "user", "content": results})]);
    }
}
