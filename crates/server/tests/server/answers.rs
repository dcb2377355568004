//! Whole answers, and the routes around them.

use downshift_worker::{Delta, FailureKind, Input, Prompt, ResponseFormat, Role, ToolCallDelta, ToolChoice};
use serde_json::{Value, json};

use crate::support::*;

fn hi() -> Value {
    json!({"messages": [{"role": "user", "content": "hi"}]})
}

#[test]
fn a_chat_is_answered_with_who_answered_and_what_it_took() {
    let server = abc([("a", says("Hello there"))]);
    let reply = server.post("/v1/chat/completions", &hi());
    assert_eq!((reply.status, reply.header("content-type")), (200, "application/json"));
    assert_eq!((reply.header("x-model"), reply.header("x-model-requested"), reply.header("x-device")), ("a", "a", "cpu"));
    assert_eq!((reply.header("x-attempted-fallbacks"), reply.header("x-attempted-retries")), ("0", "0"));
    assert_eq!(reply.header("x-request-id"), server.fake.request().id.to_string());
    let body = reply.json();
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["model"], "a");
    assert_eq!(body["choices"][0]["message"], json!({"role": "assistant", "content": "Hello there", "refusal": null}));
    assert_eq!(body["choices"][0]["finish_reason"], "stop");
    let usage = &body["usage"];
    assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"], &usage["total_tokens"]), (&json!(7), &json!(2), &json!(9)));
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 3);
    assert_eq!((&body["timings"]["predicted_per_second"], &body["timings"]["prompt_n"]), (&json!(500.0), &json!(4)));
    assert!(body.get("fallback").is_none(), "nothing failed: {body}");
}

#[test]
fn a_dropped_gear_is_told_in_headers_and_body() {
    let server = abc([("a", Script::FailsToLoad(FailureKind::Truncated)), ("b", says("From b"))]);
    let reply = server.post("/v1/chat/completions", &json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}));
    assert_eq!((reply.header("x-model-requested"), reply.header("x-model")), ("gpt-4o", "b"));
    assert_eq!((reply.header("x-attempted-fallbacks"), reply.header("x-fallback-reason")), ("1", "truncated"));
    let body = reply.json();
    assert_eq!((&body["model"], &body["fallback"]["requested"]), (&json!("b"), &json!("gpt-4o")));
    let attempt = &body["fallback"]["attempts"][0];
    assert_eq!((&attempt["model"], &attempt["stage"], &attempt["kind"]), (&json!("a"), &json!("load"), &json!("truncated")));
    assert!(attempt["ms"].is_u64() && attempt["message"].is_string());
}

#[test]
fn every_field_reaches_the_model() {
    let server = abc([]);
    let reply = server.post(
        "/v1/chat/completions",
        &json!({
            "model": "a", "temperature": 0.5, "top_p": 0.9, "top_k": 7, "min_p": 0.1, "frequency_penalty": 0.3, "presence_penalty": -0.4,
            "repeat_penalty": 1.5, "seed": -1, "max_completion_tokens": 9, "max_tokens": 5, "stop": "END", "logit_bias": {"5": -100},
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "chat_template_kwargs": {"enable_thinking": false}, "a_field_of_tomorrow": {"deep": [1, 2]},
            "messages": [
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}], "name": "Ann"},
                {"role": "assistant", "content": null, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
                {"role": "tool", "tool_call_id": "c", "content": "3"},
            ],
        }),
    );
    assert_eq!(reply.status, 200, "{}", reply.body);
    let request = server.fake.request();
    let sampling = &request.sampling;
    assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p), (Some(0.5), Some(0.9), Some(7), Some(0.1)));
    assert_eq!((sampling.frequency_penalty, sampling.presence_penalty, sampling.repeat_penalty), (Some(0.3), Some(-0.4), Some(1.5)));
    assert_eq!((sampling.seed, &sampling.logit_bias[..]), (Some(u64::MAX), &[(5, -100.0)][..]));
    assert_eq!((request.max_tokens, &request.stop[..]), (Some(9), &["END".to_owned()][..]));
    assert_eq!(request.format, ResponseFormat::JsonSchema(json!({"type": "object"})));
    let Input::Chat { messages, tools, tool_choice, variables } = request.input else { panic!("a chat") };
    assert_eq!((tools.len(), tool_choice), (1, ToolChoice::Function("f".to_owned())));
    assert_eq!(variables["enable_thinking"], false);
    assert_eq!((messages[0].role, &messages[1].content), (Role::System, &json!("one\ntwo")));
    assert_eq!((&messages[1].extra["name"], &messages[3].extra["tool_call_id"]), (&json!("Ann"), &json!("c")));
    assert_eq!(messages[2].extra["tool_calls"][0]["function"]["name"], "f");
}

#[test]
fn tool_calls_and_reasoning_are_parts_of_the_message() {
    let call = |index, name: Option<&str>, arguments: &str| Delta {
        tool_calls: vec![ToolCallDelta { index, name: name.map(str::to_owned), arguments: arguments.to_owned() }],
        token_ids: vec![1],
        ..Delta::default()
    };
    let thinks = Delta { reasoning: "hm".to_owned(), token_ids: vec![1], ..Delta::default() };
    let pieces = vec![thinks, call(0, Some("add"), "{\"a\":"), call(0, None, "1}"), call(1, Some("sub"), "{}")];
    let server = abc([("a", Script::Says(pieces))]);
    let ask = |parallel: bool| {
        let tools = json!([{"type": "function", "function": {"name": "add"}}, {"type": "function", "function": {"name": "sub"}}]);
        let body = json!({"messages": [{"role": "user", "content": "hi"}], "tools": tools, "parallel_tool_calls": parallel});
        server.post("/v1/chat/completions", &body).json()["choices"][0].clone()
    };
    let choice = ask(true);
    assert_eq!(choice["finish_reason"], "tool_calls");
    let message = &choice["message"];
    assert_eq!((&message["content"], &message["reasoning_content"]), (&Value::Null, &json!("hm")));
    assert_eq!(message["tool_calls"][0]["function"], json!({"name": "add", "arguments": "{\"a\":1}"}));
    assert_eq!(message["tool_calls"][1]["function"]["name"], "sub");
    let id = message["tool_calls"][0]["id"].as_str().unwrap();
    assert!(id.len() == 9 && id.chars().all(|c| c.is_ascii_alphanumeric()), "{id}");
    assert_eq!(ask(false)["message"]["tool_calls"].as_array().unwrap().len(), 1, "parallel calls were not wanted");
}

#[test]
fn several_choices_have_seeds_of_their_own_and_count_the_prompt_once() {
    let server = abc([("a", says("x y"))]);
    let body = json!({"messages": [{"role": "user", "content": "hi"}], "n": 6, "seed": 10});
    let reply = server.post("/v1/chat/completions", &body).json();
    let indices: Vec<u64> = reply["choices"].as_array().unwrap().iter().map(|choice| choice["index"].as_u64().unwrap()).collect();
    assert_eq!(indices, [0, 1, 2, 3, 4, 5]);
    assert_eq!((&reply["usage"]["prompt_tokens"], &reply["usage"]["completion_tokens"]), (&json!(7), &json!(12)));
    let mut seeds: Vec<_> = server.fake.seen.lock().unwrap().iter().map(|request| request.sampling.seed.unwrap()).collect();
    seeds.sort_unstable();
    assert_eq!(seeds, [10, 11, 12, 13, 14, 15]);
}

#[test]
fn log_probabilities_name_tokens_and_their_bytes() {
    let server = abc([("a", says("AB"))]);
    let body = json!({"messages": [{"role": "user", "content": "hi"}], "logprobs": true, "top_logprobs": 2});
    let reply = server.post("/v1/chat/completions", &body).json();
    let token = &reply["choices"][0]["logprobs"]["content"][0];
    assert_eq!((&token["token"], &token["logprob"], &token["bytes"]), (&json!("A"), &json!(-0.5), &json!([65])));
    assert_eq!(token["top_logprobs"][1], json!({"token": "Z", "logprob": -2.0, "bytes": [90]}));
    let legacy = server.post("/v1/completions", &json!({"prompt": "x", "logprobs": 1})).json();
    let expected = json!({"tokens": ["A"], "token_logprobs": [-0.5], "top_logprobs": [{"A": -0.5}], "text_offset": [0]});
    assert_eq!(legacy["choices"][0]["logprobs"], expected);
}

#[test]
fn completions_continue_texts_and_tokens_in_order() {
    let server = abc([("a", says(" and on"))]);
    let one = server.post("/v1/completions", &json!({"prompt": "on", "echo": true})).json();
    assert_eq!((&one["object"], &one["choices"][0]["text"]), (&json!("text_completion"), &json!("on and on")));
    assert_eq!(server.fake.request().max_tokens, Some(16));
    let many = server.post("/v1/completions", &json!({"prompt": ["p", "q"], "n": 2, "echo": true})).json();
    let texts: Vec<_> = many["choices"].as_array().unwrap().iter().map(|choice| choice["text"].clone()).collect();
    assert_eq!(texts, ["p and on", "p and on", "q and on", "q and on"]);
    assert_eq!(many["usage"]["prompt_tokens"], 14);
    let ids = server.post("/v1/completions", &json!({"prompt": [72, 105], "echo": true})).json();
    assert_eq!(ids["choices"][0]["text"], "Hi and on");
    server.post("/v1/completions", &json!({"prompt": [[1, 2], [3]]}));
    let mut seen: Vec<_> = server.fake.seen.lock().unwrap().iter().rev().take(2).map(|request| request.input.clone()).collect();
    seen.sort_by_key(|input| format!("{input:?}"));
    assert_eq!(seen, [Input::Completion(Prompt::Tokens(vec![1, 2])), Input::Completion(Prompt::Tokens(vec![3]))]);
    let best = server.post("/v1/completions", &json!({"prompt": "x", "best_of": 3})).json();
    assert_eq!(best["choices"].as_array().unwrap().len(), 1);
}

#[test]
fn an_echoed_prompt_has_log_probabilities_and_the_answers_follow() {
    let server = abc([("a", says("AB"))]);
    let whole = server.post("/v1/completions", &json!({"prompt": ["xyz", [72, 105]], "logprobs": 1, "echo": true, "max_tokens": 1})).json();
    assert_eq!((&whole["choices"][0]["text"], &whole["choices"][1]["text"]), (&json!("xyzAB"), &json!("HiAB")));
    let expected = json!({
        "tokens": ["x", "y", "z", "A"],
        "token_logprobs": [null, -1.0, -2.0, -0.5],
        "top_logprobs": [null, {"X": -0.125}, {"X": -0.125}, {"A": -0.5}],
        "text_offset": [0, 1, 2, 3],
    });
    assert_eq!(whole["choices"][0]["logprobs"], expected);
    assert_eq!(whole["choices"][1]["logprobs"]["token_logprobs"], json!([null, -1.0, -0.5]));
    let prompt_alone = server.post("/v1/completions", &json!({"prompt": "xyz", "logprobs": 0, "echo": true, "max_tokens": 0})).json();
    let choice = &prompt_alone["choices"][0];
    assert_eq!((&choice["text"], &choice["finish_reason"]), (&json!("xyz"), &json!("length")));
    assert_eq!((&choice["logprobs"]["tokens"], &choice["logprobs"]["top_logprobs"]), (&json!(["x", "y", "z"]), &json!([null, {}, {}])));
    // Only both together ask for it.
    for body in [json!({"prompt": "x", "echo": true, "best_of": 2}), json!({"prompt": "x", "logprobs": 1})] {
        server.fake.seen.lock().unwrap().clear();
        server.post("/v1/completions", &body);
        assert!(server.fake.seen.lock().unwrap().iter().all(|request| request.prompt_logprobs.is_none()), "{body}");
    }
}

#[test]
fn a_prompt_is_told_by_the_model_that_answers() {
    let server = abc([("a", Script::BreaksOff(words("cut "), FailureKind::NonFinite)), ("b", says("whole"))]);
    let reply = server.post("/v1/completions", &json!({"prompt": "xy", "logprobs": 0, "echo": true})).json();
    let choice = &reply["choices"][0];
    assert_eq!((&reply["model"], &choice["text"]), (&json!("b"), &json!("xywhole")));
    assert_eq!(choice["logprobs"]["token_logprobs"], json!([null, -1.0, -0.5]), "once, and not of the one that broke off");
}

#[test]
fn a_suffix_asks_for_what_is_missing_before_it() {
    let server = abc([("a", says("mid dle"))]);
    let gap = |prefix: &str, suffix: &str| Input::Infill { prefix: Prompt::Text(prefix.to_owned()), suffix: suffix.to_owned() };
    let one = server.post("/v1/completions", &json!({"prompt": "begin ", "suffix": " end", "echo": true})).json();
    assert_eq!(one["choices"][0]["text"], "begin mid dle", "the prompt is repeated, what follows is the caller's");
    assert_eq!(server.fake.request().input, gap("begin ", " end"));
    let stream = server.post("/v1/completions", &json!({"prompt": ["p", [1]], "suffix": "s", "stream": true}));
    assert!(stream.body.ends_with("data: [DONE]\n\n"), "{stream:?}");
    let asked = |path: &str, body: Value| {
        server.fake.seen.lock().unwrap().clear();
        let reply = server.post(path, &body);
        (reply.status, server.fake.seen.lock().unwrap().pop().map(|request| request.input))
    };
    let generate = json!({"model": "a", "prompt": "begin ", "suffix": " end", "system": "s", "stream": false});
    assert_eq!(asked("/api/generate", generate), (200, Some(gap("begin ", " end"))));
    assert_eq!(asked("/api/generate", json!({"model": "a", "suffix": " end", "raw": true})), (200, Some(gap("", " end"))));
    assert_eq!(asked("/api/generate", json!({"model": "a", "suffix": ""})), (200, None), "the model is loaded");
    assert_eq!(asked("/v1/completions", json!({"prompt": "x", "suffix": ""})).1, Some(Input::Completion(Prompt::Text("x".to_owned()))));
    assert_eq!(server.post("/api/show", &json!({"model": "a"})).json()["capabilities"], json!(["completion", "tools", "insert"]));
}

#[test]
fn models_that_fill_no_gaps_are_skipped_and_a_400_if_none_is_left() {
    let server = abc([("a", says("middle"))]);
    let body = json!({"model": ["c", "a"], "prompt": "begin", "suffix": "end"});
    let reply = server.post("/v1/completions", &body);
    assert_eq!((reply.status, reply.header("x-model"), reply.header("x-fallback-reason")), (200, "a", "cannot_do"));
    let attempt = &reply.json()["fallback"]["attempts"][0];
    assert_eq!((&attempt["model"], &attempt["message"]), (&json!("c"), &json!(Input::NO_INFILL)));
    for path in ["/v1/completions", "/api/generate"] {
        let refused = server.post(path, &json!({"model": "c", "prompt": "begin", "suffix": "end"}));
        assert_eq!(refused.status, 400, "{path}: {}", refused.body);
        assert!(refused.body.contains("no fill-in-the-middle tokens"), "{path}: {}", refused.body);
    }
}

#[test]
fn the_models_are_listed_with_their_state() {
    let server = abc([("c", Script::FailsToLoad(FailureKind::Corrupt))]);
    let before = server.get("/v1/models").json();
    let a = &before["data"][0];
    assert_eq!((&before["object"], &a["id"], &a["state"], &a["kind"]), (&json!("list"), &json!("a"), &json!("unloaded"), &json!("chat")));
    assert_eq!((&a["aliases"], &a["is_default"], &a["fallbacks"]), (&json!(["gpt-4o"]), &json!(true), &json!(["b", "c"])));
    assert_eq!((&a["size_bytes"], &a["context"], &a["device"]), (&json!(1 << 20), &json!(4096), &Value::Null));
    server.post("/v1/chat/completions", &json!({"model": "c", "messages": [{"role": "user", "content": "hi"}]}));
    server.post("/v1/chat/completions", &hi());
    let a = server.get("/v1/models/gpt-4o").json();
    assert_eq!((&a["id"], &a["state"], &a["device"]), (&json!("a"), &json!("ready"), &json!("cpu")));
    let c = server.get("/v1/models/c").json();
    assert_eq!((&c["verdict"], &c["kind"]), (&json!("quarantined"), &Value::Null));
    assert!(c["reason"].as_str().unwrap().contains("corrupt"));
}

#[test]
fn the_model_itself_is_asked_for_tokens_and_prompts() {
    let server = abc([]);
    assert_eq!(server.post("/tokenize", &json!({"content": "Hi"})).json(), json!({"tokens": [72, 105]}));
    assert_eq!(server.post("/detokenize", &json!({"model": "b", "tokens": [72, 105]})).json(), json!({"content": "Hi"}));
    let prompt = server.post("/apply-template", &hi()).json();
    assert_eq!(prompt, json!({"prompt": "<User>\"hi\""}));
}

#[test]
fn embeddings_come_as_numbers_and_as_base64() {
    let server = abc([("a", Script::Embeds)]);
    let one = server.post("/v1/embeddings", &json!({"model": "a", "input": "four"})).json();
    assert_eq!(one["data"][0], json!({"object": "embedding", "index": 0, "embedding": [4.0, 1.0]}));
    let two = server.post("/v1/embeddings", &json!({"model": "a", "input": ["x", "xy"], "encoding_format": "base64"})).json();
    assert_eq!((&two["data"][1]["embedding"], &two["model"]), (&json!("AAAAQAAAgD8="), &json!("a")));
    assert_eq!(two["usage"], json!({"prompt_tokens": 3, "total_tokens": 3}));
    let ids = server.post("/v1/embeddings", &json!({"model": "a", "input": [[1, 2, 3], [4]]})).json();
    assert_eq!((&ids["data"][0]["embedding"][0], &ids["data"][1]["embedding"][0]), (&json!(3.0), &json!(1.0)));
    let short = server.post("/v1/embeddings", &json!({"model": "a", "input": "four", "dimensions": 1})).json();
    assert_eq!(short["data"][0]["embedding"], json!([1.0]), "shortened to length 1");
    assert_eq!(server.post("/v1/embeddings", &json!({"model": "a", "input": "x", "dimensions": 2})).status, 200);
    let wrong = server.post("/v1/embeddings", &json!({"model": "a", "input": "x", "dimensions": 3}));
    assert_eq!((wrong.status, &wrong.json()["error"]["param"]), (400, &json!("dimensions")));
}

#[test]
fn the_server_tells_how_it_stands() {
    let server = abc([("a", Script::FailsToLoad(FailureKind::Corrupt))]);
    assert_eq!(server.get("/health").json()["status"], "ok");
    assert_eq!(server.get("/ready").status, 200);
    server.post("/v1/chat/completions", &hi());
    let metrics = server.get("/metrics").body;
    for line in [
        "downshift_requests_total{route=\"/v1/chat/completions\",status=\"200\"} 1",
        "downshift_completion_tokens_total{model=\"b\"} 1",
        "downshift_fallback_total{from=\"a\",to=\"b\",reason=\"corrupt\"} 1",
        "downshift_model_state{model=\"b\",state=\"ready\"} 1",
        "downshift_model_verdict{model=\"a\",verdict=\"quarantined\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is missing from {metrics}");
    }
    let props = server.get("/props").json();
    assert_eq!((&props["default_model"], &props["isolate"]), (&json!("a"), &json!(true)));
    let page = server.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
}
