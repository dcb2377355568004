//! Bodies of this server's own routes.

use serde_json::{Value, json};

use super::openai::{messages, template_variables, tools};
use super::schema::{answer, count, flag, list, object, one_of, or, or_null, text, whole};

pub(super) fn schemas() -> Value {
    let model = || text("A name or alias; no other model takes its place. Default: the server's.");
    let tokens = || list(whole(0, u32::MAX.into(), ""), "Token ids.");
    let special = |words: &str| or(flag(words), false);
    let tokenize = json!({
        "content": text(""),
        "model": model(),
        "add_special": special("Spellings of special tokens become those tokens, and the model's begin and end are added."),
        "parse_special": special("Another name of add_special; only one may be given."),
    });
    let template = json!({
        "messages": messages(),
        "model": model(),
        "tools": tools(),
        "chat_template_kwargs": template_variables(),
    });
    json!({
        "TokenizeRequest": object(&["content"], &[tokenize]),
        "Tokens": answer(&[], json!({"tokens": tokens()})),
        "DetokenizeRequest": object(&["tokens"], &[json!({"tokens": tokens(), "model": model()})]),
        "Detokenized": answer(&[], json!({"content": text("")})),
        "TemplateRequest": object(&["messages"], &[template]),
        "Prompt": answer(&[], json!({"prompt": text("")})),
        "Health": answer(&[], json!({"status": one_of(&["ok"], "")})),
        "Ready": answer(&[], json!({"status": one_of(&["ready"], ""), "models": list(text(""), "")})),
        "Props": props(),
        "Description": {"type": "object", "description": "OpenAPI 3.1."},
    })
}

fn props() -> Value {
    let memory = json!({
        "limit_bytes": or_null(count(""), ""),
        "source": text("Where the limit comes from."),
        "free_bytes": or_null(count(""), ""),
    });
    answer(
        &[],
        json!({
            "version": text(""),
            "default_model": text("The model of requests that name none."),
            "memory": answer(&[], memory),
            "isolate": flag("Whether each model has a process of its own."),
            "threads": or_null(count(""), ""),
        }),
    )
}
