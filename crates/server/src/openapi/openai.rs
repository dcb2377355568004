//! Bodies of OpenAI's chat, completions, embeddings and models, and the fields that other dialects share with them.

use serde_json::{Value, json};

use super::schema::{
    answer, count, described, either, flag, list, map, number, object, one_of, or, or_null, reference, text, texts, whole, with,
};

const LARGEST_U32: i64 = u32::MAX as i64;

pub(super) fn schemas() -> Value {
    json!({
        "ChatRequest": object(&["messages"], &[chat(), routing(), generation(), sampling()]),
        "ChatMessage": message(),
        "Tool": tool(),
        "ChatCompletion": completion_of("chat.completion", chat_choice()),
        "ToolCall": tool_call(),
        "CompletionRequest": object(&["prompt"], &[completion(), routing(), generation(), sampling()]),
        "Completion": completion_of("text_completion", completion_choice()),
        "EmbeddingRequest": object(&["input"], &[embedding(), routing()]),
        "Embeddings": embeddings(),
        "Model": model(),
        "Models": answer(&[], json!({"object": one_of(&["list"], ""), "data": list(reference("Model"), "")})),
        "Attempt": attempt(),
        "Fallback": answer(&[], json!({"requested": text("The model that was asked for."), "attempts": list(reference("Attempt"), "")})),
        "Timings": timings(),
        "Usage": usage(),
        "Error": answer(&[], json!({"error": reference("ErrorFacts")})),
        "ErrorFacts": error(),
        "ChatLogprobs": chat_logprobs(),
        "CompletionLogprobs": completion_logprobs(),
    })
}

/// A model or its fallbacks, in order.
pub(super) fn models() -> Value {
    texts(name(), 32, "A name or alias; or the one asked for and its fallbacks, in order. Default: the server's.")
}

fn name() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 256})
}

/// Which models may answer, and for how long.
pub(super) fn routing() -> Value {
    json!({
        "model": models(),
        "fallbacks": with(list(name(), "Models to try after the one asked for. Default: those of models.toml."), "maxItems", 32),
        "disable_fallbacks": or(flag("Only the model asked for."), false),
        "num_retries": whole(0, LARGEST_U32, "Times the same model is tried again; more than 10 is 10. Default: models.toml's."),
        "timeout": number(0, 86_400, "Seconds for all attempts together; 0 is no limit. Default: models.toml's."),
        "mock_testing_fallbacks": or(flag("The model asked for fails on purpose."), false),
    })
}

/// How tokens are drawn. Defaults are told in words, as a model's own come first.
pub(super) fn sampling() -> Value {
    let repeat = |words: &str| number(0.01, 10, words);
    let from_minus_1 = |words: &str| json!({"type": "integer", "minimum": -1, "description": words});
    json!({
        "temperature": number(0, 5, "0 takes the most likely token. Default: the model's, else 0.8."),
        "top_p": number(0, 1, "Keep the fewest tokens that reach this probability. Default: the model's, else 0.95."),
        "top_k": from_minus_1("Keep this many tokens; -1 and 0 keep all. Default: the model's, else 40."),
        "min_p": number(0, 1, "Drop tokens less likely than this share of the best one. Default: the model's, else 0.05."),
        "repeat_penalty": repeat("Divides logits of recent tokens. Default: the model's, else 1."),
        "repetition_penalty": repeat("Another name of repeat_penalty; only one may be given."),
        "penalty_last_n": from_minus_1("Tokens that penalties look at; -1 is all. Default: the model's, else 64."),
        "repeat_last_n": from_minus_1("Another name of penalty_last_n; only one may be given."),
        "frequency_penalty": number(-2, 2, "Subtracted per earlier use of a token. Default: the model's, else 0."),
        "presence_penalty": number(-2, 2, "Subtracted once where a token was used. Default: the model's, else 0."),
        "logit_bias": {
            "type": "object", "maxProperties": 4096, "additionalProperties": number(-100, 100, ""),
            "description": "Added to the logits of the tokens with these ids.",
        },
        "seed": {"type": "integer", "description": "64 bits that make draws repeatable. Default: a fresh one."},
    })
}

pub(super) fn stream() -> Value {
    or(flag("Pieces as they are generated."), false)
}

pub(super) fn grammar() -> Value {
    text("A Lark grammar that the answer follows, of at most 256 KiB; excludes every other format.")
}

/// Texts that end an answer.
pub(super) fn stop() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 1024})
}

/// What chat and completions share beside those.
fn generation() -> Value {
    let schema = json!({"schema": {"type": ["object", "boolean"], "description": "A JSON schema of at most 256 KiB."}});
    let format = json!({
        "type": one_of(&["text", "json_object", "json_schema"], ""),
        "json_schema": described(object(&["schema"], &[schema]), "With json_schema."),
    });
    let usage = json!({"include_usage": or(flag("One more chunk, with usage."), false)});
    json!({
        "n": or(whole(1, 16, "Answers to each prompt. Several of them, streamed, are not continued by another model."), 1),
        "stream": stream(),
        "stream_options": object(&[], &[usage]),
        "stop": texts(stop(), 16, "Texts that end the answer, of 1 to 1024 bytes."),
        "max_tokens": count("Tokens of the answer. Default: the room that is left; 16 in /v1/completions."),
        "grammar": grammar(),
        "response_format": described(object(&["type"], &[format]), "What the answer is bound to. Default: text."),
    })
}

fn message() -> Value {
    let part = json!({"type": one_of(&["text", "refusal"], ""), "text": text(""), "refusal": text("")});
    let parts = list(object(&["type"], &[part]), "");
    object(
        &["role"],
        &[json!({
            "role": one_of(&["system", "developer", "user", "assistant", "tool"], ""),
            "content": either([text(""), parts], "A text, or parts, which become a line each. Only an assistant's may be absent."),
            "name": text(""),
            "tool_calls": list(reference("ToolCall"), "Calls of an assistant; at most 256 KiB."),
            "tool_call_id": text("The call that a tool's message answers."),
            "reasoning_content": text("Thoughts of an assistant."),
        })],
    )
}

pub(super) fn messages() -> Value {
    json!({"type": "array", "items": reference("ChatMessage"), "minItems": 1, "maxItems": 10_000, "description": "The conversation."})
}

pub(super) fn tools() -> Value {
    with(list(reference("Tool"), "Functions that the model may call, of 256 KiB together."), "maxItems", 256)
}

fn tool() -> Value {
    let function = json!({"name": name(), "description": text(""), "parameters": map("A JSON schema.")});
    let fields = json!({"type": one_of(&["function"], ""), "function": object(&["name"], &[function])});
    object(&["type", "function"], &[fields])
}

pub(super) fn template_variables() -> Value {
    map("Variables of the chat template, such as enable_thinking; at most 256 KiB.")
}

fn chat() -> Value {
    let named = json!({"function": object(&["name"], &[json!({"name": text("")})]), "type": one_of(&["function"], "")});
    let choice = [one_of(&["none", "auto", "required"], ""), object(&["function"], &[named])];
    json!({
        "messages": messages(),
        "max_completion_tokens": count("Tokens of the answer; comes before max_tokens."),
        "logprobs": or(flag("Log-probabilities of the tokens."), false),
        "top_logprobs": whole(0, 20, "Alternatives per token; needs logprobs."),
        "tools": tools(),
        "tool_choice": or(either(choice, "Which of the tools is to be called."), "auto"),
        "parallel_tool_calls": or(flag("Whether calls after the first are told."), true),
        "chat_template_kwargs": template_variables(),
    })
}

/// A text, texts, token ids or lists of those; at most so many.
fn prompts(most: usize, words: &str) -> Value {
    let ids = || with(list(whole(0, LARGEST_U32, ""), ""), "minItems", 1);
    let many = |of: Value| with(with(list(of, ""), "minItems", 1), "maxItems", most);
    either([text(""), many(text("")), ids(), many(ids())], words)
}

/// What stands after a gap.
pub(super) fn suffix() -> Value {
    text("What the answer leads up to, of at most 1 MiB; for models with fill-in-the-middle tokens, others are skipped.")
}

fn completion() -> Value {
    json!({
        "prompt": prompts(128, "Continued as it is. Prompts times answers: at most 128."),
        "suffix": suffix(),
        "best_of": whole(0, 16, "Answers drawn per prompt, of which the n most likely are given: from n, or 0 for n; not with stream."),
        "echo": or(flag("The prompt before the answer; with logprobs its tokens too, and then not streamed, and not with suffix."), false),
        "logprobs": whole(0, 20, "Log-probabilities, and this many alternatives per token. Of prompts, with echo: at most 1048576."),
    })
}

fn embedding() -> Value {
    json!({
        "input": prompts(2048, "None of them may be empty."),
        "encoding_format": or(one_of(&["float", "base64"], "base64 is of little-endian 32-bit floats."), "float"),
        "dimensions": {"type": "integer", "minimum": 1,
                       "description": "Numbers of each vector that are kept, at most the model's; it has length 1 again."},
    })
}

/// A whole answer with choices.
fn completion_of(object: &str, choice: Value) -> Value {
    answer(
        &["fallback"],
        json!({
            "id": text(""),
            "object": one_of(&[object], ""),
            "created": count("Unix seconds."),
            "model": text("The model that answered."),
            "choices": list(choice, ""),
            "usage": reference("Usage"),
            "fallback": reference("Fallback"),
            "timings": reference("Timings"),
        }),
    )
}

/// Why a whole answer can end.
pub(super) fn finish_reasons() -> [&'static str; 3] {
    ["stop", "length", "tool_calls"]
}

fn chat_choice() -> Value {
    let message = json!({
        "role": one_of(&["assistant"], ""),
        "content": or_null(text(""), "null beside calls."),
        "refusal": {"type": "null"},
        "reasoning_content": text("Thoughts, if there are any."),
        "tool_calls": list(reference("ToolCall"), "Calls, if there are any."),
    });
    answer(
        &[],
        json!({
            "index": count(""),
            "message": answer(&["reasoning_content", "tool_calls"], message),
            "logprobs": or_null(reference("ChatLogprobs"), "null unless asked for."),
            "finish_reason": one_of(&finish_reasons(), ""),
        }),
    )
}

fn chat_logprobs() -> Value {
    let token = json!({
        "token": text(""),
        "logprob": {"type": "number"},
        "bytes": or_null(list(whole(0, 255, ""), ""), "null where the token is a part of a character."),
    });
    let alternatives = json!({"top_logprobs": list(answer(&[], token.clone()), "")});
    let tokens = list(object(&["token", "logprob", "bytes", "top_logprobs"], &[token, alternatives]), "");
    answer(&[], json!({"content": tokens, "refusal": {"type": "null"}}))
}

fn tool_call() -> Value {
    let function = json!({"name": text(""), "arguments": text("JSON.")});
    let fields = json!({"id": text(""), "type": one_of(&["function"], ""), "function": object(&["name"], &[function])});
    object(&["function"], &[fields])
}

fn completion_choice() -> Value {
    answer(
        &[],
        json!({
            "index": count(""),
            "text": text(""),
            "logprobs": or_null(reference("CompletionLogprobs"), "null unless asked for."),
            "finish_reason": one_of(&finish_reasons(), ""),
        }),
    )
}

fn completion_logprobs() -> Value {
    let logprob = json!({"type": "number"});
    answer(
        &[],
        json!({
            "tokens": list(text(""), ""),
            "token_logprobs": list(or_null(logprob.clone(), "null for the first token of a prompt."), ""),
            "top_logprobs": list(or_null(with(map("By token."), "additionalProperties", logprob), "null likewise."), ""),
            "text_offset": list(count(""), "Characters before each token."),
        }),
    )
}

fn embeddings() -> Value {
    let vector = either([list(json!({"type": "number"}), ""), text("base64.")], "");
    let data = json!({"object": one_of(&["embedding"], ""), "index": count(""), "embedding": vector});
    answer(
        &["fallback"],
        json!({
            "object": one_of(&["list"], ""),
            "data": list(answer(&[], data), ""),
            "model": text("The model that answered."),
            "usage": answer(&[], json!({"prompt_tokens": count(""), "total_tokens": count("")})),
            "fallback": reference("Fallback"),
        }),
    )
}

fn model() -> Value {
    answer(
        &[],
        json!({
            "id": text("Its name."),
            "object": one_of(&["model"], ""),
            "created": count("Unix seconds."),
            "owned_by": one_of(&["downshift"], ""),
            "aliases": list(text(""), ""),
            "kind": or_null(one_of(&["chat", "embedding"], ""), "null where the header is not read."),
            "state": one_of(&["unloaded", "loading", "ready", "draining"], ""),
            "progress": or_null(number(0, 1, ""), "Of a load that is under way."),
            "verdict": one_of(&["ok", "cooling", "quarantined"], "Whether it is tried."),
            "reason": or_null(text(""), "Why the verdict is not ok."),
            "device": or_null(text(""), "Where it is."),
            "context": or_null(count(""), "Positions it has, or would be loaded with."),
            "size_bytes": or_null(count(""), "Bytes of its weights."),
            "resident_bytes": or_null(count(""), "Bytes it has in memory."),
            "active_requests": count(""),
            "is_default": flag("Whether it answers requests that name none."),
            "fallbacks": list(text(""), "The models that answer for it, in order."),
        }),
    )
}

fn attempt() -> Value {
    answer(
        &["needed", "limit"],
        json!({
            "model": text(""),
            "device": or_null(text(""), "Where it was tried."),
            "stage": one_of(&["admission", "load", "prefill", "decode"], "How far it had come."),
            "kind": text("The cause, such as missing, does_not_fit, out_of_memory, crashed or timeout."),
            "message": text("The same for people."),
            "ms": count("Milliseconds it took."),
            "needed": count("With prompt_too_long: tokens of the prompt."),
            "limit": count("With prompt_too_long: positions there are."),
        }),
    )
}

fn timings() -> Value {
    let time = || json!({"type": "number", "minimum": 0});
    let speed = || or_null(time(), "");
    answer(
        &[],
        json!({
            "cache_n": count("Prompt tokens that were not computed again."),
            "prompt_n": count("Prompt tokens computed."),
            "prompt_ms": time(),
            "prompt_per_second": speed(),
            "predicted_n": count("Tokens of the answer."),
            "predicted_ms": time(),
            "predicted_per_second": speed(),
        }),
    )
}

fn usage() -> Value {
    answer(
        &[],
        json!({
            "prompt_tokens": count(""),
            "completion_tokens": count(""),
            "total_tokens": count(""),
            "prompt_tokens_details": answer(&[], json!({"cached_tokens": count("")})),
        }),
    )
}

/// What a refusal tells; `type` is each dialect's own.
pub(super) fn refusal(kind: Value) -> Value {
    answer(
        &["attempts", "n_prompt_tokens", "n_ctx"],
        json!({
            "message": text("One sentence for people."),
            "type": kind,
            "param": or_null(text(""), "The field that is wrong, such as messages[0].role."),
            "code": or_null(text(""), "The cause for machines, such as model_not_found."),
            "attempts": list(reference("Attempt"), "The models that were tried in vain."),
            "n_prompt_tokens": count("With context_length_exceeded."),
            "n_ctx": count("With context_length_exceeded."),
        }),
    )
}

fn error() -> Value {
    let kinds = ["invalid_request_error", "exceed_context_size_error", "authentication_error", "permission_error", "server_error"];
    refusal(one_of(&kinds, ""))
}
