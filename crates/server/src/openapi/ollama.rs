//! Bodies of Ollama's routes.

use serde_json::{Value, json};

use super::openai::{sampling, stop, suffix, tools};
use super::schema::{answer, anything, count, described, either, flag, list, map, merged, object, one_of, or, reference, text, texts};

pub(super) fn schemas() -> Value {
    let vector = || list(json!({"type": "number"}), "");
    let embedded = json!({
        "model": text("The model that answered."),
        "embeddings": list(vector(), ""),
        "total_duration": count("Nanoseconds."),
        "load_duration": count("0."),
        "prompt_eval_count": count("Tokens of the texts."),
        "fallback": reference("Fallback"),
    });
    json!({
        "OllamaChatRequest": object(&["model"], &[chat(), generation()]),
        "OllamaChat": line("message", message()),
        "OllamaGenerateRequest": object(&["model"], &[generate(), generation()]),
        "OllamaGenerated": line("response", text("")),
        "OllamaEmbedRequest": object(&["model", "input"], &[json!({"model": model(), "input": inputs(), "dimensions": dimensions()})]),
        "OllamaEmbedded": answer(&["fallback"], embedded),
        "OllamaEmbeddingRequest": object(&["model", "prompt"], &[json!({"model": model(), "prompt": not_empty()})]),
        "OllamaEmbedding": answer(&["fallback"], json!({"embedding": vector(), "fallback": reference("Fallback")})),
        "OllamaModels": answer(&[], json!({"models": list(tag(), "")})),
        "OllamaShowRequest": object(&["model"], &[json!({"model": model(), "name": text("Another name of model; only one may be given.")})]),
        "OllamaModel": shown(),
        "OllamaDetails": details(),
        "OllamaVersion": answer(&[], json!({"version": text("")})),
        "OllamaError": answer(&[], json!({"error": text("One sentence for people.")})),
    })
}

fn model() -> Value {
    text("A name or alias, with or without :latest.")
}

fn not_empty() -> Value {
    json!({"type": "string", "minLength": 1})
}

fn inputs() -> Value {
    texts(not_empty(), 2048, "At least one.")
}

fn dimensions() -> Value {
    json!({"type": "integer", "minimum": 1, "description": "Numbers of each vector that are kept; it has length 1 again."})
}

/// What chat and generate share.
fn generation() -> Value {
    let mut options = merged(&[sampling()]);
    // Ollama's clients have no other names of these, and no biases.
    for name in ["repetition_penalty", "penalty_last_n", "logit_bias"] {
        options.remove(name);
    }
    options["repeat_last_n"]["description"] = json!("Tokens that penalties look at; -1 is all. Default: the model's, else 64.");
    options.insert("num_predict".to_owned(), json!({"type": "integer", "description": "Tokens of the answer; negative is no limit."}));
    options.insert("stop".to_owned(), texts(stop(), 16, "Texts that end the answer, of 1 to 1024 bytes."));
    let options = object(&[], &[Value::Object(options)]);
    json!({
        "model": model(),
        "stream": or(flag("Lines as they are generated."), true),
        "format": either([one_of(&["json", ""], ""), map("A JSON schema of at most 256 KiB.")], "What the answer is bound to."),
        "options": described(options, "Those that shape a load are passed over."),
        "think": either([flag(""), text("A level is as true.")], "Whether the template asks for thoughts."),
        "keep_alive": anything("0 without messages or prompt unloads the model; else it is passed over."),
    })
}

fn images() -> Value {
    json!({"type": "array", "maxItems": 0, "description": "The models read text."})
}

fn chat() -> Value {
    let turn = json!({
        "role": one_of(&["system", "developer", "user", "assistant", "tool"], ""),
        "content": text("Only an assistant's may be absent."),
        "thinking": text("Thoughts of an assistant."),
        "tool_calls": list(map("{function: {name, arguments}}."), "Calls of an assistant; at most 256 KiB."),
        "tool_name": text("The function that a tool's message is of."),
        "tool_call_id": text("The call that it answers."),
        "images": images(),
    });
    let turns = list(object(&["role"], &[turn]), "The conversation, of at most 10000 turns; without one the model is loaded.");
    json!({"messages": turns, "tools": tools()})
}

fn generate() -> Value {
    json!({
        "prompt": text("What the user says; without it and suffix the model is loaded."),
        "suffix": suffix(),
        "system": text("A system turn before the prompt; not with suffix."),
        "raw": or(flag("The prompt is continued as it is, without a template."), false),
        "images": images(),
    })
}

fn message() -> Value {
    let function = json!({"name": text(""), "arguments": anything("An object; a text where it was cut short.")});
    let call = json!({"id": text(""), "function": answer(&[], function)});
    answer(
        &["thinking", "tool_calls"],
        json!({
            "role": one_of(&["assistant"], ""),
            "content": text(""),
            "thinking": text(""),
            "tool_calls": list(answer(&[], call), ""),
        }),
    )
}

/// A line of a stream, or a whole answer, whose text stands in the field `name`.
fn line(name: &str, content: Value) -> Value {
    let last = json!({
        "done_reason": one_of(&["stop", "length", "load", "unload"], ""),
        "total_duration": count("Nanoseconds."),
        "load_duration": count("Nanoseconds."),
        "prompt_eval_count": count("Tokens of the prompt."),
        "prompt_eval_duration": count("Nanoseconds."),
        "eval_count": count("Tokens of the answer."),
        "eval_duration": count("Nanoseconds."),
    });
    let line = json!({
        "model": text("The model that answered."),
        "created_at": text("RFC 3339."),
        name: content,
        "done": flag("Whether this is the last line; only that one tells what follows here."),
    });
    let beside = json!({"thinking": text("Thoughts, in /api/generate."), "fallback": reference("Change")});
    object(&["model", "created_at", "done", name], &[line, last, beside])
}

fn tag() -> Value {
    answer(
        &["size_vram", "context_length"],
        json!({
            "name": text(""),
            "model": text(""),
            "modified_at": text("RFC 3339."),
            "size": count("Bytes of its weights; in /api/ps those in memory."),
            "digest": text("Tells versions apart; it is no hash of the file."),
            "details": reference("OllamaDetails"),
            "size_vram": count("Bytes on a GPU, in /api/ps."),
            "context_length": count("In /api/ps."),
        }),
    )
}

fn details() -> Value {
    answer(
        &[],
        json!({
            "parent_model": text("Empty."),
            "format": one_of(&["gguf", "safetensors"], ""),
            "family": text("The architecture."),
            "families": list(text(""), ""),
            "parameter_size": text("Such as 7.6B."),
            "quantization_level": text("Such as Q4_K_M."),
        }),
    )
}

fn shown() -> Value {
    answer(
        &[],
        json!({
            "modelfile": text("Where its file lies."),
            "parameters": text("The entry's own defaults, a line each."),
            "template": text("Empty."),
            "details": reference("OllamaDetails"),
            "model_info": map("Facts of its header, with GGUF's names."),
            "capabilities": list(one_of(&["completion", "tools", "insert", "embedding"], ""), ""),
            "modified_at": text("RFC 3339."),
        }),
    )
}
