//! Each class of refusal: status, type, code, and what a client may do about it.

use downshift_server::{Limits, ServeOptions};
use downshift_worker::FailureKind;
use serde_json::{Value, json};

use crate::support::*;

fn hi() -> Value {
    json!({"messages": [{"role": "user", "content": "hi"}]})
}

/// The status, `type` and `code` when all models do this.
fn refusal(script: &Script) -> (u16, String, String, Reply) {
    let server = serve("num_retries = 0", ["a", "b", "c"].map(|name| (name, script.clone())), ServeOptions::default());
    let reply = server.post("/v1/chat/completions", &hi());
    let error = reply.json()["error"].clone();
    let word = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    assert!(error["message"].is_string() && error.get("param").is_some(), "{error}");
    (reply.status, word("type"), word("code"), reply)
}

#[test]
fn what_no_model_can_do_now_may_be_tried_later() {
    let (status, kind, code, reply) = refusal(&Script::Refuses(FailureKind::OutOfMemory));
    assert_eq!((status, kind.as_str(), code.as_str()), (503, "server_error", "out_of_memory"));
    assert!(reply.header("retry-after").parse::<u32>().unwrap() >= 1);
    assert_eq!(reply.header("x-should-retry"), "");
}

#[test]
fn what_will_not_work_later_either_says_so() {
    let (status, kind, code, reply) = refusal(&Script::FailsToLoad(FailureKind::Corrupt));
    assert_eq!((status, kind.as_str(), code.as_str()), (500, "server_error", "corrupt"));
    assert_eq!((reply.header("x-should-retry"), reply.header("retry-after")), ("false", ""));
    let attempts = reply.json()["error"]["attempts"].clone();
    assert_eq!((attempts.as_array().unwrap().len(), &attempts[2]["model"]), (3, &json!("c")));
    assert_eq!((reply.header("x-attempted-fallbacks"), reply.header("x-fallback-reason")), ("2", "corrupt"));
}

#[test]
fn a_prompt_that_fits_nowhere_is_told_with_both_numbers() {
    let (status, kind, code, reply) = refusal(&Script::Refuses(FailureKind::PromptTooLong { needed: 9000, limit: 4096 }));
    assert_eq!((status, kind.as_str(), code.as_str()), (400, "exceed_context_size_error", "context_length_exceeded"));
    let error = reply.json()["error"].clone();
    assert_eq!((&error["n_prompt_tokens"], &error["n_ctx"]), (&json!(9000), &json!(4096)));
    assert!(error["message"].as_str().unwrap().contains("exceeds the available context size"));
}

#[test]
fn what_a_model_finds_wrong_with_a_request_is_the_callers() {
    let (status, kind, _, reply) = refusal(&Script::Refuses(FailureKind::InvalidRequest));
    assert_eq!((status, kind.as_str()), (400, "invalid_request_error"));
    assert_eq!(reply.json()["error"]["param"], "logit_bias");
}

#[test]
fn an_unknown_model_is_not_found_and_the_known_ones_are_named() {
    let server = abc([]);
    for reply in [
        server.post("/v1/chat/completions", &json!({"model": "x", "messages": hi()["messages"]})),
        server.post("/v1/completions", &json!({"model": ["a", "x"], "prompt": "hi"})),
        server.post("/v1/embeddings", &json!({"model": "x", "input": "hi"})),
        server.post("/tokenize", &json!({"model": "x", "content": "hi"})),
        server.get("/v1/models/x"),
        server.get("/v1/models/..%2f..%2fetc%2fpasswd"),
        server.get("/v1/models/a%00b"),
        server.get("/v1/models/%ff"),
    ] {
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (404, &json!("model_not_found")), "{reply:?}");
    }
    let reply = server.post("/v1/chat/completions", &json!({"model": "x", "messages": hi()["messages"]}));
    assert!(reply.json()["error"]["message"].as_str().unwrap().contains("a, b, c"));
}

#[test]
fn used_up_time_is_a_timeout() {
    let server = serve("timeout = \"100ms\"", [("a", Script::Waits(Vec::new()))], ServeOptions::default());
    let reply = server.post("/v1/chat/completions", &json!({"messages": hi()["messages"], "disable_fallbacks": true}));
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (504, &json!("timeout")));
}

#[test]
fn a_full_house_says_when_to_come_back() {
    let limits = Limits { active_requests: 1, ..Limits::default() };
    let server = serve("", [("a", Script::Waits(words("x ")))], ServeOptions { limits, ..ServeOptions::default() });
    let first = server.send(server.request("/v1/chat/completions", &hi().to_string()));
    server.fake.wait_for_running(1);
    let second = server.post("/v1/chat/completions", &hi());
    assert_eq!((second.status, second.header("retry-after"), &second.json()["error"]["code"]), (503, "2", &json!("overloaded")));
    assert_eq!(server.get("/v1/models").status, 200, "what needs no model is answered");
    server.fake.open();
    assert_eq!(Reply::read(first).status, 200);
}

#[test]
fn a_failure_on_purpose_goes_to_the_next_model() {
    let server = abc([]);
    let reply = server.post("/v1/chat/completions", &json!({"messages": hi()["messages"], "mock_testing_fallbacks": true}));
    assert_eq!((reply.header("x-model"), reply.header("x-fallback-reason")), ("b", "mock"));
    let none = server.post("/v1/chat/completions", &json!({"messages": hi()["messages"], "mock_testing_fallbacks": true, "fallbacks": []}));
    assert!(none.status >= 500, "{none:?}");
    let listed =
        server.post("/v1/chat/completions", &json!({"messages": hi()["messages"], "mock_testing_fallbacks": true, "model": ["a", "c"]}));
    assert_eq!(listed.header("x-model"), "c");
}

#[test]
fn unknown_routes_and_methods_are_told_as_json() {
    let server = abc([]);
    let reply = server.get("/v2/nothing");
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (404, &json!("not_found")));
    let reply = server.get("/v1/chat/completions");
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (405, &json!("method_not_allowed")));
    assert!(reply.header("allow").contains("POST"));
}
