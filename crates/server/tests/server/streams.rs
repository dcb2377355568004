//! The order of a stream, and its one ending.

use std::io::Read;
use std::time::Duration;

use downshift_server::{Limits, ServeOptions};
use downshift_worker::{Delta, FailureKind, ToolCallDelta};
use serde_json::{Value, json};

use crate::support::*;

fn hi() -> Value {
    json!({"messages": [{"role": "user", "content": "hi"}]})
}

/// A server that says so when nothing was to be said for 30 ms.
fn impatient(settings: &str, scripts: impl IntoIterator<Item = (&'static str, Script)>) -> TestServer {
    let limits = Limits { silence: Duration::from_millis(30), ..Limits::default() };
    serve(settings, scripts, ServeOptions { limits, ..ServeOptions::default() })
}

#[test]
fn a_stream_opens_with_the_role_and_closes_with_a_reason_and_done() {
    let held_back = Delta { token_ids: vec![1], ..Delta::default() };
    let mut pieces = words("one two");
    pieces.insert(1, held_back);
    let server = abc([("a", Script::Says(pieces))]);
    let reply = server.stream(hi());
    assert_eq!((reply.status, reply.header("content-type"), reply.header("x-model")), (200, "text/event-stream", "a"));
    let chunks = reply.chunks();
    let choices: Vec<_> = chunks.iter().map(|chunk| chunk["choices"][0].clone()).collect();
    let choice = |delta: Value, reason: Value| json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": reason});
    assert_eq!(
        choices,
        [
            choice(json!({"role": "assistant", "content": null}), Value::Null),
            choice(json!({"content": "one "}), Value::Null),
            choice(json!({"content": "two"}), Value::Null),
            choice(json!({}), json!("stop")),
        ]
    );
    assert_eq!(reply.events().last().unwrap(), "[DONE]");
    assert!(chunks.iter().all(|chunk| chunk["id"] == chunks[0]["id"] && chunk["created"] == chunks[0]["created"]));
    assert!(chunks.iter().all(|chunk| chunk["object"] == "chat.completion.chunk" && chunk["model"] == "a"));
    assert!(chunks.iter().all(|chunk| chunk.get("usage").is_none() && chunk.get("fallback").is_none()));
    assert_eq!(chunks.last().unwrap()["timings"]["predicted_n"], 3);
    assert!(chunks[2].get("timings").is_none(), "timings are on the last object alone");
}

#[test]
fn usage_comes_last_and_without_a_choice_where_asked_for() {
    let server = abc([("a", says("one two"))]);
    let mut body = hi();
    body["stream_options"] = json!({"include_usage": true});
    let chunks = server.stream(body).chunks();
    let (last, others) = chunks.split_last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]["total_tokens"]), (&json!([]), &json!(9)));
    assert_eq!(last["timings"]["predicted_n"], 2);
    assert!(others.iter().all(|chunk| chunk["usage"].is_null() && chunk.get("usage").is_some() && chunk.get("timings").is_none()));
}

#[test]
fn a_gear_dropped_before_the_first_token_is_told_on_the_first_chunk_alone() {
    let server = abc([("a", Script::FailsToLoad(FailureKind::Missing)), ("b", says("From b"))]);
    let reply = server.stream(hi());
    assert_eq!((reply.header("x-model"), reply.header("x-fallback-reason"), reply.header("x-attempted-fallbacks")), ("b", "missing", "1"));
    let chunks = reply.chunks();
    assert_eq!((&chunks[0]["fallback"]["requested"], &chunks[0]["fallback"]["attempts"][0]["kind"]), (&json!("a"), &json!("missing")));
    assert!(chunks.iter().skip(1).all(|chunk| chunk.get("fallback").is_none()));
    assert!(chunks.iter().all(|chunk| chunk["model"] == "b"));
}

#[test]
fn an_answer_taken_over_midway_says_so_on_the_chunk_that_continues_it() {
    let server = abc([("a", Script::BreaksOff(words("one two "), FailureKind::OutOfMemory)), ("b", says("x x three four"))]);
    let reply = server.stream(hi());
    assert_eq!(reply.streamed_text(), "one two three four");
    let chunks = reply.chunks();
    let authors: Vec<_> = chunks.iter().map(|chunk| chunk["model"].as_str().unwrap()).collect();
    assert_eq!(authors, ["a", "a", "a", "b", "b", "b"]);
    let notices: Vec<_> = chunks.iter().map(|chunk| chunk.get("fallback").cloned()).collect();
    assert_eq!(notices[3], Some(json!({"from": "a", "reason": "out_of_memory"})));
    assert_eq!(notices.iter().flatten().count(), 1);
    assert_eq!(reply.events().last().unwrap(), "[DONE]");
}

#[test]
fn a_stream_that_breaks_ends_with_one_error_and_no_done() {
    let broken = ["a", "b", "c"].map(|name| (name, Script::BreaksOff(words("one "), FailureKind::Crashed)));
    let server = serve("on_stream_failure = \"error\"\nnum_retries = 0", broken, ServeOptions::default());
    let reply = server.stream(hi());
    assert_eq!(reply.status, 200, "text was sent before");
    let events = reply.events();
    let last: Value = serde_json::from_str(events.last().unwrap()).expect("no [DONE]");
    assert_eq!((&last["choices"][0]["finish_reason"], &last["error"]["code"]), (&json!("error"), &json!("crashed")));
    assert_eq!(last["error"]["attempts"][0]["model"], "a");
    assert_eq!(events.iter().filter(|event| event.contains("\"error\"")).count(), 1);
}

#[test]
fn an_error_before_the_first_token_has_its_own_status() {
    let server = abc(["a", "b", "c"].map(|name| (name, Script::FailsToLoad(FailureKind::Corrupt))));
    let reply = server.stream(hi());
    assert_eq!((reply.status, reply.header("content-type"), reply.header("x-should-retry")), (500, "application/json", "false"));
    assert_eq!(reply.json()["error"]["attempts"].as_array().unwrap().len(), 3);
}

#[test]
fn silence_is_filled_with_comments_and_the_answer_still_tells_what_failed() {
    let server = impatient("", [("a", Script::FailsToLoad(FailureKind::Missing)), ("b", Script::LoadsLate)]);
    let mut socket =
        server.send(server.request("/v1/chat/completions", &json!({"stream": true, "messages": hi()["messages"]}).to_string()));
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&bytes).contains(": loading b\n\n") {
        assert_eq!(socket.read(&mut byte).unwrap(), 1);
        bytes.push(byte[0]);
    }
    server.fake.open();
    socket.read_to_end(&mut bytes).unwrap();
    let reply = Reply::parse(&bytes);
    assert_eq!((reply.status, reply.header("x-model-requested"), reply.header("x-model")), (200, "a", ""));
    let chunks = reply.chunks();
    assert_eq!((&chunks[0]["model"], &chunks[0]["fallback"]["attempts"][0]["model"]), (&json!("b"), &json!("a")));
    assert_eq!(reply.events().last().unwrap(), "[DONE]");
}

#[test]
fn a_refusal_after_silence_is_one_error_in_the_stream() {
    let scripts = [("a", Script::Waits(Vec::new())), ("b", Script::FailsToLoad(FailureKind::Corrupt))];
    let server = impatient("timeout = \"1s\"", scripts);
    let reply = server.stream(json!({"messages": hi()["messages"], "fallbacks": ["b"]}));
    assert_eq!(reply.status, 200);
    assert!(reply.body.starts_with(": "), "{}", reply.body);
    assert_eq!(reply.events().len(), 1, "{reply:?}");
    assert_eq!(reply.chunks()[0]["choices"][0]["finish_reason"], "error");
}

#[test]
fn tool_calls_are_streamed_with_one_id_each() {
    let call = |index, name: Option<&str>, arguments: &str| Delta {
        tool_calls: vec![ToolCallDelta { index, name: name.map(str::to_owned), arguments: arguments.to_owned() }],
        token_ids: vec![1],
        ..Delta::default()
    };
    let server = abc([("a", Script::Says(vec![call(0, Some("add"), ""), call(0, None, "{}"), call(1, Some("sub"), "{}")]))]);
    let chunks =
        server.stream(json!({"messages": hi()["messages"], "tools": [{"type": "function", "function": {"name": "add"}}]})).chunks();
    let calls: Vec<_> = chunks[1..4].iter().map(|chunk| chunk["choices"][0]["delta"]["tool_calls"][0].clone()).collect();
    assert_eq!((&calls[0]["type"], &calls[0]["function"]), (&json!("function"), &json!({"name": "add", "arguments": ""})));
    assert_eq!(calls[1], json!({"index": 0, "function": {"arguments": "{}"}}), "later pieces have no id");
    assert!(calls[0]["id"].as_str().unwrap().len() == 9 && calls[0]["id"] != calls[2]["id"]);
    assert_eq!(chunks[4]["choices"][0]["finish_reason"], "tool_calls");
}

#[test]
fn several_choices_share_one_stream_and_one_end() {
    let server = abc([("a", says("one two"))]);
    let reply = server.stream(json!({"messages": hi()["messages"], "n": 6, "stream_options": {"include_usage": true}}));
    let chunks = reply.chunks();
    for index in 0..6 {
        let own: Vec<_> = chunks.iter().filter_map(|chunk| chunk["choices"].get(0)).filter(|choice| choice["index"] == index).collect();
        assert_eq!((own.len(), &own[0]["delta"]["role"], &own[3]["finish_reason"]), (4, &json!("assistant"), &json!("stop")));
    }
    assert_eq!(chunks.last().unwrap()["usage"]["completion_tokens"], 12);
    assert_eq!(reply.events().iter().filter(|event| *event == "[DONE]").count(), 1);
}

#[test]
fn completions_are_streamed_as_text() {
    let server = abc([("a", says("one two"))]);
    let reply = server.post("/v1/completions", &json!({"prompt": "p ", "stream": true, "echo": true}));
    let texts: Vec<_> = reply.chunks().iter().map(|chunk| chunk["choices"][0]["text"].clone()).collect();
    assert_eq!(texts, ["p ", "one ", "two", ""]);
    assert_eq!(reply.chunks()[0]["object"], "text_completion");
    assert_eq!(reply.events().last().unwrap(), "[DONE]");
}

#[test]
fn a_client_that_leaves_frees_its_place() {
    let server = abc([("a", Script::Waits(words("one ")))]);
    for body in [json!({"stream": true, "messages": hi()["messages"]}), hi()] {
        let socket = server.send(server.request("/v1/chat/completions", &body.to_string()));
        server.fake.wait_for_running(1);
        drop(socket);
        server.fake.wait_for_running(0);
    }
}

#[test]
fn a_client_that_leaves_before_the_first_token_frees_its_place() {
    let server = abc([("a", Script::Waits(Vec::new()))]);
    let socket = server.send(server.request("/v1/chat/completions", &json!({"stream": true, "messages": hi()["messages"]}).to_string()));
    server.fake.wait_for_running(1);
    drop(socket);
    server.fake.wait_for_running(0);
}

#[test]
fn a_client_that_never_reads_is_dropped() {
    let limits = Limits { write_timeout: Duration::from_millis(100), ..Limits::default() };
    let server = serve("loop_guard = false", [("a", Script::Babbles)], ServeOptions { limits, ..ServeOptions::default() });
    let socket = server.send(server.request("/v1/chat/completions", &json!({"stream": true, "messages": hi()["messages"]}).to_string()));
    server.fake.wait_for_running(1);
    server.fake.wait_for_running(0);
    drop(socket);
}

#[test]
fn a_stop_lets_streams_end_and_then_ends_them_honestly() {
    let server = abc([("a", Script::Waits(words("one ")))]);
    let socket = server.send(server.request("/v1/chat/completions", &json!({"stream": true, "messages": hi()["messages"]}).to_string()));
    server.fake.wait_for_running(1);
    assert!(server.stop());
    let reply = Reply::read(socket);
    assert_eq!(reply.chunks().last().unwrap()["choices"][0]["finish_reason"], "error");
    assert!(!reply.body.contains("[DONE]"));
}
