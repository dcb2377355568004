//! Pieces of streams: what the data of one event is, or one line.

use serde_json::{Value, json};

use super::openai::finish_reasons;
use super::schema::{answer, count, either, list, object, one_of, or_null, reference, text};

pub(super) fn schemas() -> Value {
    let continued = json!({"from": text("The model that broke off."), "reason": text("Why.")});
    json!({
        "ChatChunk": chunk("chat.completion.chunk", chat_choice()),
        "CompletionChunk": chunk("text_completion", completion_choice()),
        "Change": either([reference("Fallback"), answer(&[], continued)], "What failed before, or which model is continued here."),
        "ResponseEvent": event("One of OpenAI's events, by its type, such as response.output_text.delta."),
        "MessageEvent": event("One of Anthropic's events, by its type, such as content_block_delta."),
        "OllamaChatLine": either([reference("OllamaChat"), reference("OllamaError")], ""),
        "OllamaGeneratedLine": either([reference("OllamaGenerated"), reference("OllamaError")], ""),
    })
}

fn event(words: &str) -> Value {
    json!({"type": "object", "required": ["type"], "description": words})
}

fn chunk(object: &str, choice: Value) -> Value {
    answer(
        &["usage", "fallback", "timings", "error"],
        json!({
            "id": text(""),
            "object": one_of(&[object], ""),
            "created": count("Unix seconds."),
            "model": text("The model that wrote this piece."),
            "choices": list(choice, "Empty where there is usage."),
            "usage": or_null(reference("Usage"), "Absent unless asked for."),
            "fallback": reference("Change"),
            "timings": reference("Timings"),
            "error": reference("ErrorFacts"),
        }),
    )
}

/// Why a choice ends with this piece, if it does.
fn finish_reason() -> Value {
    let reasons = [&finish_reasons()[..], &["error"]].concat();
    or_null(one_of(&reasons, ""), "null before the end; error where it broke off.")
}

fn chat_choice() -> Value {
    let function = json!({"name": text("In the first piece."), "arguments": text("A piece of JSON.")});
    let call = json!({
        "index": count(""),
        "id": text("In the first piece."),
        "type": one_of(&["function"], ""),
        "function": object(&["arguments"], &[function]),
    });
    let delta = json!({
        "role": one_of(&["assistant"], ""),
        "content": or_null(text(""), "null in the first piece."),
        "reasoning_content": text("Thoughts."),
        "tool_calls": list(object(&["index", "function"], &[call]), ""),
    });
    answer(
        &[],
        json!({
            "index": count(""),
            "delta": object(&[], &[delta]),
            "logprobs": or_null(reference("ChatLogprobs"), ""),
            "finish_reason": finish_reason(),
        }),
    )
}

fn completion_choice() -> Value {
    answer(
        &[],
        json!({
            "index": count(""),
            "text": text(""),
            "logprobs": or_null(reference("CompletionLogprobs"), ""),
            "finish_reason": finish_reason(),
        }),
    )
}
