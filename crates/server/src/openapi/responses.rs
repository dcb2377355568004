//! Bodies of OpenAI's Responses.

use serde_json::{Value, json};

use super::openai::{grammar, models, routing, sampling, stop, stream, template_variables};
use super::schema::{
    answer, anything, count, described, either, flag, list, map, merged, object, one_of, or, or_null, reference, text, texts, whole, with,
};

pub(super) fn schemas() -> Value {
    let count_of = json!({"object": one_of(&["response.input_tokens"], ""), "input_tokens": count("")});
    json!({
        "ResponseRequest": object(&[], &[prompt(), generation(), routing(), sampling()]),
        "ResponseCountRequest": object(&[], &[prompt(), json!({"model": models()})]),
        "ResponseCount": answer(&[], count_of),
        "InputItem": input_item(),
        "Response": response(),
        "OutputItem": output_item(),
    })
}

/// What the prompt is made of.
fn prompt() -> Value {
    let efforts = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];
    let effort = json!({"effort": one_of(&efforts, "none asks the template for no thoughts.")});
    let tool = json!({
        "type": one_of(&["function"], ""),
        "name": text(""),
        "description": text(""),
        "parameters": map("A JSON schema."),
        "strict": flag(""),
    });
    let choice = json!({
        "type": one_of(&["function", "allowed_tools"], ""),
        "name": text("With function."),
        "mode": text("With allowed_tools: none, auto or required."),
        "tools": list(map(""), "With allowed_tools: {name} of each."),
    });
    let choices = [one_of(&["none", "auto", "required"], ""), object(&["type"], &[choice])];
    json!({
        "input": either([text(""), list(reference("InputItem"), "")], "The whole conversation: nothing is kept between requests."),
        "instructions": text("A system turn before the input."),
        "tools": with(list(object(&["type", "name"], &[tool]), "Functions that the model may call, of 256 KiB together."), "maxItems", 256),
        "tool_choice": or(either(choices, "Which of the tools is to be called."), "auto"),
        "reasoning": object(&[], &[effort]),
        "chat_template_kwargs": template_variables(),
    })
}

fn input_item() -> Value {
    let kinds = ["input_text", "output_text", "text", "reasoning_text", "summary_text", "refusal"];
    let part = json!({"type": one_of(&kinds, ""), "text": text(""), "refusal": text("")});
    let parts = list(object(&["type"], &[part]), "");
    let said = |words: &str| either([text(""), parts.clone()], words);
    object(
        &[],
        &[json!({
            "type": or(one_of(&["message", "reasoning", "function_call", "function_call_output"], ""), "message"),
            "role": one_of(&["user", "assistant", "system", "developer"], "Of a message."),
            "content": said("Of a message, or of thoughts."),
            "summary": said("Of thoughts, where there is no content."),
            "call_id": text("Of a call and of its output."),
            "name": text("Of the function that is called."),
            "arguments": text("Of a call: JSON."),
            "output": said("What the function gave."),
        })],
    )
}

fn generation() -> Value {
    let format = json!({
        "type": one_of(&["text", "json_object", "json_schema"], ""),
        "schema": {"type": ["object", "boolean"], "description": "With json_schema: of at most 256 KiB."},
    });
    json!({
        "stream": stream(),
        "max_output_tokens": count("Tokens of the answer. Default: the room that is left."),
        "parallel_tool_calls": or(flag("Whether calls after the first are told."), true),
        "include": list(text(""), "message.output_text.logprobs adds log-probabilities."),
        "top_logprobs": or(whole(0, 20, "Alternatives per token, where log-probabilities are included."), 0),
        "text": described(object(&[], &[json!({"format": object(&["type"], &[format])})]), "What the answer is bound to."),
        "stop": texts(stop(), 16, "Texts that end the answer, of 1 to 1024 bytes."),
        "grammar": grammar(),
        "metadata": map("Given back."),
        "user": text("Given back."),
    })
}

fn response() -> Value {
    let nothing = || json!({"type": "null"});
    let usage = json!({
        "input_tokens": count(""),
        "input_tokens_details": answer(&[], json!({"cached_tokens": count(""), "cache_write_tokens": count("")})),
        "output_tokens": count(""),
        "output_tokens_details": answer(&[], json!({"reasoning_tokens": count("")})),
        "total_tokens": count(""),
    });
    let told = json!({
        "id": text(""),
        "object": one_of(&["response"], ""),
        "created_at": count("Unix seconds."),
        "completed_at": or_null(count(""), "Unix seconds."),
        "status": one_of(&["in_progress", "completed", "incomplete", "failed"], ""),
        "error": or_null(map(""), "In the last event of a stream that broke off."),
        "incomplete_details": or_null(map(""), "{reason: max_output_tokens} where the answer was cut short."),
        "model": text("The model that answered."),
        "output": list(reference("OutputItem"), ""),
        "usage": or_null(answer(&[], usage), ""),
        "fallback": reference("Fallback"),
        "timings": reference("Timings"),
    });
    // As clients expect them, and as they were asked.
    let repeated = json!({
        "background": flag("false."),
        "instructions": or_null(text(""), ""),
        "max_output_tokens": or_null(count(""), ""),
        "max_tool_calls": nothing(),
        "metadata": map(""),
        "parallel_tool_calls": flag(""),
        "previous_response_id": nothing(),
        "reasoning": map(""),
        "service_tier": one_of(&["default"], ""),
        "store": flag("false."),
        "temperature": or_null(json!({"type": "number"}), ""),
        "text": map(""),
        "tool_choice": anything("As it was asked."),
        "tools": list(map(""), ""),
        "top_logprobs": count(""),
        "top_p": or_null(json!({"type": "number"}), ""),
        "truncation": one_of(&["disabled"], ""),
        "user": or_null(text(""), ""),
    });
    let both = merged(&[told, repeated]);
    answer(&["fallback", "timings"], Value::Object(both))
}

fn output_item() -> Value {
    let part = json!({
        "type": one_of(&["reasoning_text", "output_text"], ""),
        "text": text(""),
        "annotations": list(map(""), "Empty."),
        "logprobs": list(map("{token, bytes, logprob, top_logprobs}."), "Empty unless included."),
    });
    object(
        &["id", "type", "status"],
        &[json!({
            "id": text(""),
            "type": one_of(&["reasoning", "message", "function_call"], ""),
            "status": one_of(&["in_progress", "completed", "incomplete"], ""),
            "role": one_of(&["assistant"], "Of a message."),
            "summary": list(map(""), "Of thoughts; empty."),
            "content": list(object(&["type", "text"], &[part]), "Of a message, or of thoughts."),
            "call_id": text("Of a call."),
            "name": text("Of the function that is called."),
            "arguments": text("Of a call: JSON."),
        })],
    )
}
