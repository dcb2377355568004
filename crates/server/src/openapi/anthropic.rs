//! Bodies of Anthropic's Messages.

use serde_json::{Value, json};

use super::openai::{grammar, models, refusal, routing, sampling, stop, stream};
use super::schema::{answer, count, described, either, flag, list, map, object, one_of, or, or_null, reference, text, with};

pub(super) fn schemas() -> Value {
    json!({
        "MessageRequest": object(&["messages", "max_tokens"], &[conversation(), generation(), routing(), sampling()]),
        "MessageCountRequest": object(&["messages"], &[conversation(), json!({"model": models()})]),
        "MessageCount": answer(&[], json!({"input_tokens": count("")})),
        "Block": block(),
        "Message": message(),
        "AnthropicError": error(),
    })
}

fn block() -> Value {
    object(
        &["type"],
        &[json!({
            "type": one_of(&["text", "thinking", "redacted_thinking", "tool_use", "tool_result"], ""),
            "text": text("Of text."),
            "thinking": text("Of thinking, which only an assistant has."),
            "signature": text("Of thinking; empty."),
            "id": text("Of a tool_use, which only an assistant has."),
            "name": text("Of a tool_use."),
            "input": map("Of a tool_use."),
            "tool_use_id": text("Of a tool_result, which only a user has."),
            "content": either([text(""), list(reference("Block"), "")], "Of a tool_result: a text, or blocks of text."),
            "is_error": flag("Of a tool_result."),
        })],
    )
}

/// What the prompt is made of.
fn conversation() -> Value {
    let content = |words: &str| either([text(""), list(reference("Block"), "")], words);
    let turn = json!({"role": one_of(&["user", "assistant", "system"], ""), "content": content("A text, or blocks.")});
    let tool = json!({
        "name": text(""),
        "type": one_of(&["custom"], ""),
        "description": text(""),
        "input_schema": map("A JSON schema."),
    });
    let choice = json!({
        "type": one_of(&["auto", "any", "tool", "none"], ""),
        "name": text("With tool."),
        "disable_parallel_tool_use": or(flag("Calls after the first are left out."), false),
    });
    let kinds = ["enabled", "disabled", "adaptive", "between_tools"];
    let thinking = json!({"type": one_of(&kinds, "Whether the template asks for thoughts; a budget is passed over.")});
    json!({
        "messages": with(list(object(&["role", "content"], &[turn]), "The conversation, of at most 10000 turns."), "minItems", 1),
        "system": content("A system turn before the messages: a text, or blocks of text."),
        "tools": with(list(object(&["name", "input_schema"], &[tool]), "Functions that the model may call, of 256 KiB together."),
                      "maxItems", 256),
        "tool_choice": object(&["type"], &[choice]),
        "thinking": object(&["type"], &[thinking]),
    })
}

fn generation() -> Value {
    let format = json!({
        "type": one_of(&["json_schema"], ""),
        "schema": {"type": ["object", "boolean"], "description": "A JSON schema of at most 256 KiB."},
    });
    let format = json!({"format": object(&["type", "schema"], &[format])});
    json!({
        "max_tokens": count("Tokens of the answer."),
        "stream": stream(),
        "stop_sequences": with(list(stop(), "Texts that end the answer, of 1 to 1024 bytes."), "maxItems", 16),
        "output_config": described(object(&[], &[format]), "What the answer is bound to."),
        "grammar": grammar(),
    })
}

fn message() -> Value {
    let usage = json!({
        "input_tokens": count("Without those that the cache held."),
        "cache_creation_input_tokens": count(""),
        "cache_read_input_tokens": count("Those that the cache held."),
        "output_tokens": count(""),
    });
    answer(
        &["fallback"],
        json!({
            "id": text(""),
            "type": one_of(&["message"], ""),
            "role": one_of(&["assistant"], ""),
            "model": text("The model that answered."),
            "content": list(reference("Block"), "Thoughts, text and calls."),
            "stop_reason": one_of(&["end_turn", "max_tokens", "stop_sequence", "tool_use"], ""),
            "stop_sequence": or_null(text(""), "The one that ended the answer."),
            "usage": answer(&[], usage),
            "fallback": reference("Fallback"),
            "timings": reference("Timings"),
        }),
    )
}

fn error() -> Value {
    let kinds = [
        "invalid_request_error",
        "authentication_error",
        "permission_error",
        "not_found_error",
        "request_too_large",
        "rate_limit_error",
        "overloaded_error",
        "timeout_error",
        "api_error",
    ];
    answer(&[], json!({"type": one_of(&["error"], ""), "error": refusal(one_of(&kinds, ""))}))
}
