//! Bodies that are wrong: each is told with the parameter that it is about, and the next good request is answered.

use serde_json::{Value, json};

use crate::support::*;

#[test]
fn a_wrong_field_is_named() {
    let server = abc([]);
    let long = "x".repeat(300_000);
    let rows: Vec<(&str, Value, &str)> = vec![
        ("messages", Value::Null, "messages"),
        ("messages", json!([]), "messages"),
        ("messages", json!("hi"), "messages"),
        ("messages", json!([5]), "messages[0]"),
        ("messages", json!([["user", "hi"]]), "messages[0]"),
        ("messages", json!([{"content": "hi"}]), "messages[0].role"),
        ("messages", json!([{"role": 5, "content": "hi"}]), "messages[0].role"),
        ("messages", json!([{"role": "wizard", "content": "hi"}]), "messages[0].role"),
        ("messages", json!([{"role": "user"}]), "messages[0].content"),
        ("messages", json!([{"role": "user", "content": 5}]), "messages[0].content"),
        (
            "messages",
            json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]),
            "messages[0].content[0]",
        ),
        ("messages", json!([{"role": "user", "content": [{"type": "text"}]}]), "messages[0].content[0]"),
        ("messages", json!([{"role": "assistant", "tool_calls": [{}]}]), "messages[0].tool_calls[0]"),
        ("model", json!(5), "model"),
        ("model", json!(""), "model"),
        ("model", json!({}), "model"),
        ("fallbacks", json!("b"), "fallbacks"),
        ("timeout", json!(-1), "timeout"),
        ("n", json!(0), "n"),
        ("n", json!(1_000_000), "n"),
        ("n", json!(1.5), "n"),
        ("stream", json!("yes"), "stream"),
        ("stream_options", json!([]), "stream_options"),
        ("stop", json!(""), "stop"),
        ("stop", json!([""]), "stop"),
        ("stop", json!(5), "stop"),
        ("stop", json!(vec!["x"; 1000]), "stop"),
        ("seed", json!(1.5), "seed"),
        ("seed", json!("x"), "seed"),
        ("max_tokens", json!(-1), "max_tokens"),
        ("max_tokens", json!("many"), "max_tokens"),
        ("max_completion_tokens", json!(-1), "max_completion_tokens"),
        ("temperature", json!(-0.1), "temperature"),
        ("temperature", json!(1e300), "temperature"),
        ("temperature", json!("hot"), "temperature"),
        ("top_p", json!(1.1), "top_p"),
        ("top_k", json!(-2), "top_k"),
        ("min_p", json!(-1), "min_p"),
        ("frequency_penalty", json!(3), "frequency_penalty"),
        ("presence_penalty", json!(-3), "presence_penalty"),
        ("repeat_penalty", json!(0), "repeat_penalty"),
        ("logit_bias", json!({"x": 1}), "logit_bias.x"),
        ("logit_bias", json!({"-1": 1}), "logit_bias.-1"),
        ("logit_bias", json!({"1": 101}), "logit_bias.1"),
        ("logit_bias", json!([1]), "logit_bias"),
        ("top_logprobs", json!(2), "top_logprobs"),
        ("response_format", json!("json"), "response_format"),
        ("response_format", json!({"type": "xml"}), "response_format.type"),
        ("response_format", json!({"type": "json_schema"}), "response_format.json_schema"),
        ("response_format", json!({"type": "json_schema", "json_schema": {"schema": {"x": long}}}), "response_format.json_schema"),
        ("tools", json!([{}]), "tools[0]"),
        ("tools", json!([{"type": "function", "function": {"name": ""}}]), "tools[0]"),
        ("tools", json!({}), "tools"),
        ("tool_choice", json!("required"), "tool_choice"),
        ("tool_choice", json!({"type": "function", "function": {"name": "f"}}), "tool_choice"),
        ("chat_template_kwargs", json!([]), "chat_template_kwargs"),
    ];
    for (field, value, param) in rows {
        let mut body = json!({"messages": [{"role": "user", "content": "hi"}]});
        body[field] = value.clone();
        if value.is_null() {
            body.as_object_mut().unwrap().remove(field);
        }
        let reply = server.post("/v1/chat/completions", &body);
        let error = reply.json()["error"].clone();
        let shown = value.to_string().chars().take(80).collect::<String>();
        assert_eq!((reply.status, &error["type"]), (400, &json!("invalid_request_error")), "{field}: {shown}");
        assert_eq!(error["param"], param, "{field}: {shown}: {error}");
    }
    assert!(server.fake.seen.lock().unwrap().is_empty(), "no model heard of any of it");
}

#[test]
fn extremes_that_mean_something_are_taken() {
    let server = abc([]);
    for (field, value) in [
        ("max_tokens", json!(u64::MAX / 2)),
        ("seed", json!(u64::MAX)),
        ("seed", json!(i64::MIN)),
        ("temperature", json!(0)),
        ("top_k", json!(-1)),
        ("stop", json!([])),
        ("stop", Value::Null),
        ("n", Value::Null),
        ("tools", json!([])),
        ("tool_choice", json!("none")),
        ("user", json!("someone")),
        ("metadata", json!({"a": [[[]]]})),
    ] {
        let mut body = json!({"messages": [{"role": "user", "content": "hi"}]});
        body[field] = value;
        let reply = server.post("/v1/chat/completions", &body);
        assert_eq!(reply.status, 200, "{field}: {}", reply.body);
    }
}

#[test]
fn wrong_fields_of_the_other_routes_are_named() {
    let server = abc([("b", Script::Embeds)]);
    for (path, body, param) in [
        ("/v1/completions", json!({}), json!("prompt")),
        ("/v1/completions", json!({"prompt": []}), json!("prompt")),
        ("/v1/completions", json!({"prompt": [1, "x"]}), json!("prompt")),
        ("/v1/completions", json!({"prompt": [-1]}), json!("prompt[0]")),
        ("/v1/completions", json!({"prompt": {}}), json!("prompt")),
        ("/v1/completions", json!({"prompt": "x", "suffix": "y", "model": "c"}), json!("suffix")),
        ("/v1/completions", json!({"prompt": "x", "suffix": "y".repeat((1 << 20) + 1)}), json!("suffix")),
        ("/v1/completions", json!({"prompt": "x", "logprobs": 50}), json!("logprobs")),
        ("/v1/completions", json!({"prompt": "x", "n": 2, "best_of": 1}), json!("best_of")),
        ("/v1/completions", json!({"prompt": "x", "best_of": 2, "stream": true}), json!("best_of")),
        ("/v1/completions", json!({"prompt": "x", "logprobs": 1, "echo": true, "stream": true}), json!("echo")),
        ("/v1/completions", json!({"prompt": "x", "logprobs": 1, "echo": true, "suffix": "y"}), json!("echo")),
        ("/v1/completions", json!({"prompt": "x".repeat(1 << 19), "logprobs": 2, "echo": true}), json!("prompt")),
        ("/v1/completions", json!({"prompt": vec!["x"; 200]}), json!("prompt")),
        ("/v1/embeddings", json!({"model": "b"}), json!("input")),
        ("/v1/embeddings", json!({"model": "b", "input": []}), json!("input")),
        ("/v1/embeddings", json!({"model": "b", "input": ""}), json!("input[0]")),
        ("/v1/embeddings", json!({"model": "b", "input": "x", "encoding_format": "hex"}), json!("encoding_format")),
        ("/tokenize", json!({}), json!("content")),
        ("/detokenize", json!({"tokens": "x"}), json!("tokens")),
        ("/apply-template", json!({"messages": []}), json!("messages")),
    ] {
        let reply = server.post(path, &body);
        let error = reply.json()["error"].clone();
        assert_eq!((reply.status, &error["param"]), (400, &param), "{path} {body}: {error}");
    }
    let chat = server.post("/v1/embeddings", &json!({"model": "a", "input": "x", "disable_fallbacks": true}));
    assert_eq!(chat.status, 400, "a model that makes no vectors: {chat:?}");
}

#[test]
fn a_body_that_is_no_json_object_is_refused() {
    let server = abc([]);
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(100_000), close.repeat(100_000));
    let in_field = |field: &str, value: &str| format!("{{\"messages\":[{{\"role\":\"user\",\"content\":\"hi\"}}],\"{field}\":{value}}}");
    for body in [
        String::new(),
        "{".to_owned(),
        "[]".to_owned(),
        "null".to_owned(),
        "\"x\"".to_owned(),
        "{} {}".to_owned(),
        "{\"messages\":[{\"role\":\"user\",\"content\":\"\u{0}\"}]}".to_owned(),
        "{\"messages\":[{\"role\":\"user\",\"content\":\"\\ud800\"}]}".to_owned(),
        in_field("temperature", "NaN"),
        in_field("temperature", "1e999"),
        in_field("messages", "[]"),
        deep("[", "]"),
        in_field("tools", &deep("[", "]")),
        in_field("chat_template_kwargs", &deep("{\"a\":", "}").replace(":}", ":1}")),
        in_field("tools", &format!("[{}0]", "0,".repeat(600_000))),
        in_field("response_format", &deep("{\"json_schema\":", "}")),
    ] {
        let reply = server.exchange(server.request("/v1/chat/completions", &body));
        let shown = body.chars().take(90).collect::<String>();
        assert_eq!((reply.status, &reply.json()["error"]["type"]), (400, &json!("invalid_request_error")), "{shown}: {}", reply.body);
    }
    let fine = server.post("/v1/chat/completions", &json!({"messages": [{"role": "user", "content": "hi"}]}));
    assert_eq!(fine.status, 200);
}

#[test]
fn what_changes_nothing_is_tolerated() {
    let server = abc([]);
    let harmless = json!({
        "messages": [{"role": "user", "content": "hi"}],
        "logit_bias": {"foo": 0},
        "seed": -9_007_199_254_740_991_i64,
        "modalities": ["text"],
        "functions": [{"name": "f"}],
        "function_call": "none",
        "web_search_options": {},
        "store": true,
    });
    assert_eq!(server.post("/v1/chat/completions", &harmless).status, 200);
    assert!(server.fake.request().sampling.logit_bias.is_empty());
    assert_eq!(server.post("/v1/completions", &json!({"prompt": "x", "best_of": 0})).status, 200);
}

#[test]
fn an_answer_of_no_tokens_is_empty() {
    let server = abc([("a", says("one two"))]);
    for field in ["max_tokens", "max_completion_tokens"] {
        let reply = server.post("/v1/chat/completions", &json!({"messages": [{"role": "user", "content": "hi"}], field: 0})).json();
        let choice = &reply["choices"][0];
        assert_eq!((&choice["message"]["content"], &choice["finish_reason"]), (&json!(""), &json!("length")), "{field}");
    }
}
