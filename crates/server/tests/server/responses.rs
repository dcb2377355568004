//! Responses without state: the object, its events in their order, and what is refused.

use downshift_server::ServeOptions;
use downshift_worker::{FailureKind, Input, ResponseFormat, Role, ToolChoice};
use serde_json::{Value, json};

use crate::support::*;

const PATH: &str = "/v1/responses";

fn add() -> Value {
    json!({"type": "function", "name": "add", "parameters": {"type": "object"}, "strict": true})
}

fn roles(input: &Input) -> Vec<Role> {
    let Input::Chat { messages, .. } = input else { panic!("a chat") };
    messages.iter().map(|message| message.role).collect()
}

#[test]
fn a_response_has_its_items_and_repeats_what_was_asked() {
    let mut pieces = vec![thought("hm")];
    pieces.extend(words("It is four"));
    let server = abc([("a", Script::Says(pieces))]);
    let asked = json!({"input": "2 + 2?", "temperature": 0.5, "metadata": {"k": "v"}, "store": true, "max_output_tokens": 50});
    let reply = server.post(PATH, &asked);
    assert_eq!((reply.status, reply.header("x-model")), (200, "a"));
    let body = reply.json();
    assert_eq!((&body["object"], &body["status"], &body["model"]), (&json!("response"), &json!("completed"), &json!("a")));
    assert!(body["id"].as_str().unwrap().starts_with("resp_") && body["completed_at"].is_u64());
    assert_eq!((&body["store"], &body["previous_response_id"], &body["error"]), (&json!(false), &Value::Null, &Value::Null));
    assert_eq!((&body["temperature"], &body["metadata"], &body["max_output_tokens"]), (&json!(0.5), &json!({"k": "v"}), &json!(50)));
    assert_eq!((&body["tool_choice"], &body["tools"], &body["text"]), (&json!("auto"), &json!([]), &json!({"format": {"type": "text"}})));
    let output = &body["output"];
    assert_eq!((&output[0]["type"], &output[0]["content"]), (&json!("reasoning"), &json!([{"type": "reasoning_text", "text": "hm"}])));
    let text = json!([{"type": "output_text", "text": "It is four", "annotations": [], "logprobs": []}]);
    assert_eq!((&output[1]["type"], &output[1]["status"], &output[1]["content"]), (&json!("message"), &json!("completed"), &text));
    let usage = json!({
        "input_tokens": 7, "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens": 4, "output_tokens_details": {"reasoning_tokens": 1}, "total_tokens": 11,
    });
    assert_eq!(body["usage"], usage);
}

#[test]
fn items_become_turns() {
    let server = abc([]);
    let body = json!({
        "instructions": "Be brief.",
        "input": [
            {"role": "developer", "content": "Add."},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "1 + 2?"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "easy"}]},
            {"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": "output_text", "text": "See:", "annotations": []}]},
            {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "add", "arguments": "{\"x\":1}"},
            {"type": "function_call", "id": "fc_2", "call_id": "c2", "name": "add", "arguments": "{\"x\":2}"},
            {"type": "function_call_output", "call_id": "c1", "output": "one"},
            {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "two"}]},
        ],
        "tools": [add(), {"type": "function", "name": "sub", "parameters": null}],
        "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "add"}]},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
        "reasoning": {"effort": "none"},
    });
    assert_eq!(server.post(PATH, &body).status, 200);
    let request = server.fake.request();
    assert_eq!(request.format, ResponseFormat::JsonSchema(json!({"type": "object"})));
    assert_eq!(roles(&request.input), [Role::System, Role::System, Role::User, Role::Assistant, Role::Tool, Role::Tool]);
    let Input::Chat { messages, tools, tool_choice, variables } = request.input else { panic!("a chat") };
    assert_eq!((tool_choice, tools.len(), &tools[0]["function"]["name"]), (ToolChoice::Required, 1, &json!("add")));
    assert_eq!(variables["enable_thinking"], json!(false));
    let own = &messages[3];
    assert_eq!((&own.content, &own.extra["reasoning_content"]), (&json!("See:"), &json!("easy")));
    assert_eq!(own.extra["tool_calls"].as_array().unwrap().len(), 2);
    assert_eq!((&messages[5].content, &messages[5].extra["tool_call_id"]), (&json!("two"), &json!("c2")));
}

#[test]
fn nothing_asked_is_still_answered_by_the_default_model() {
    let server = abc([]);
    let body = server.post(PATH, &json!({})).json();
    assert_eq!(
        (&body["model"], &body["status"], &body["output"][0]["content"][0]["text"]),
        (&json!("a"), &json!("completed"), &json!("a"))
    );
    assert_eq!(roles(&server.fake.request().input), [Role::User]);
}

#[test]
fn a_stream_numbers_its_events_and_ends_with_the_whole_response() {
    let mut pieces = vec![thought("hm")];
    pieces.extend(words("one two"));
    pieces.extend([call(0, Some("add"), "{\"x\":"), call(0, None, "1}"), call(1, Some("add"), "{}")]);
    let server = abc([("a", Script::Says(pieces))]);
    let reply = server.post(PATH, &json!({"input": "hi", "stream": true, "tools": [add()]}));
    assert_eq!((reply.status, reply.header("content-type")), (200, "text/event-stream"));
    let events = reply.named_events();
    for (at, (name, data)) in events.iter().enumerate() {
        assert_eq!((&data["type"], &data["sequence_number"]), (&json!(name), &json!(at)));
    }
    let told: Vec<_> = events.iter().map(|(name, data)| (name.trim_start_matches("response."), data["output_index"].as_u64())).collect();
    let expected = [
        ("created", None),
        ("in_progress", None),
        ("output_item.added", Some(0)),
        ("content_part.added", Some(0)),
        ("reasoning_text.delta", Some(0)),
        ("reasoning_text.done", Some(0)),
        ("content_part.done", Some(0)),
        ("output_item.done", Some(0)),
        ("output_item.added", Some(1)),
        ("content_part.added", Some(1)),
        ("output_text.delta", Some(1)),
        ("output_text.delta", Some(1)),
        ("output_text.done", Some(1)),
        ("content_part.done", Some(1)),
        ("output_item.done", Some(1)),
        ("output_item.added", Some(2)),
        ("function_call_arguments.delta", Some(2)),
        ("function_call_arguments.delta", Some(2)),
        ("function_call_arguments.done", Some(2)),
        ("output_item.done", Some(2)),
        ("output_item.added", Some(3)),
        ("function_call_arguments.delta", Some(3)),
        ("function_call_arguments.done", Some(3)),
        ("output_item.done", Some(3)),
        ("completed", None),
    ];
    assert_eq!(told, expected);
    let last = &events.last().unwrap().1["response"];
    assert_eq!((&last["id"], &last["status"]), (&events[0].1["response"]["id"], &json!("completed")));
    let output = last["output"].as_array().unwrap();
    let done: Vec<_> =
        events.iter().filter(|(name, _)| name == "response.output_item.done").map(|(_, data)| data["item"].clone()).collect();
    assert_eq!(*output, done, "the items are those that were told");
    assert!(events[3..7].iter().all(|(_, data)| data["item_id"] == output[0]["id"] && data["content_index"] == 0));
    assert_eq!((&events[10].1["delta"], &events[12].1["text"]), (&json!("one "), &json!("one two")));
    assert_eq!((&events[15].1["item"]["name"], &events[15].1["item"]["arguments"]), (&json!("add"), &json!("")));
    assert_eq!((&output[2]["arguments"], &output[3]["arguments"]), (&json!("{\"x\":1}"), &json!("{}")));
    assert_ne!(output[2]["call_id"], output[3]["call_id"]);
    assert_eq!(last["usage"]["output_tokens_details"]["reasoning_tokens"], 1);
}

#[test]
fn an_answer_that_was_cut_is_incomplete() {
    let server = abc([("a", says("one two"))]);
    let body = json!({"input": "hi", "max_output_tokens": 1});
    let whole = server.post(PATH, &body).json();
    assert_eq!((&whole["status"], &whole["incomplete_details"]["reason"]), (&json!("incomplete"), &json!("max_output_tokens")));
    assert_eq!((&whole["output"][0]["status"], &whole["completed_at"]), (&json!("incomplete"), &Value::Null));
    let (name, data) = server.post(PATH, &json!({"input": "hi", "max_output_tokens": 1, "stream": true})).named_events().pop().unwrap();
    assert_eq!((name.as_str(), &data["response"]["status"]), ("response.incomplete", &json!("incomplete")));
}

#[test]
fn one_call_alone_can_be_asked_for() {
    let server = abc([("a", Script::Says(vec![call(0, Some("add"), "{}"), call(1, Some("add"), "{}")]))]);
    let body = server.post(PATH, &json!({"input": "hi", "tools": [add()], "parallel_tool_calls": false})).json();
    let output = body["output"].as_array().unwrap();
    assert_eq!((output.len(), &output[0]["type"]), (1, &json!("function_call")));
}

#[test]
fn probabilities_come_where_they_are_included() {
    let server = abc([("a", says("A"))]);
    let body = json!({"input": "hi", "include": ["message.output_text.logprobs"], "top_logprobs": 1});
    let logprobs = server.post(PATH, &body).json()["output"][0]["content"][0]["logprobs"].clone();
    let one = json!({"token": "A", "bytes": [65], "logprob": -0.5});
    assert_eq!(logprobs, json!([{"token": "A", "bytes": [65], "logprob": -0.5, "top_logprobs": [one]}]));
}

#[test]
fn a_dropped_gear_is_disclosed_before_and_within_an_answer() {
    let server = abc([("a", Script::FailsToLoad(FailureKind::Missing)), ("b", says("From b"))]);
    let whole = server.post(PATH, &json!({"input": "hi"})).json();
    assert_eq!((&whole["model"], &whole["fallback"]["attempts"][0]["kind"]), (&json!("b"), &json!("missing")));
    let events = server.post(PATH, &json!({"input": "hi", "stream": true})).named_events();
    assert_eq!((&events[0].1["response"]["model"], &events[0].1["response"]["fallback"]["requested"]), (&json!("b"), &json!("a")));

    let server = abc([("a", Script::BreaksOff(words("one two "), FailureKind::OutOfMemory)), ("b", says("x x three four"))]);
    let events = server.post(PATH, &json!({"input": "hi", "stream": true})).named_events();
    let notices: Vec<_> = events.iter().filter_map(|(name, data)| Some((name.as_str(), data.get("fallback")?.clone()))).collect();
    assert_eq!(notices, [("response.output_text.delta", json!({"from": "a", "reason": "out_of_memory"}))]);
    let last = &events.last().unwrap().1["response"];
    assert_eq!((&last["model"], &last["output"][0]["content"][0]["text"]), (&json!("b"), &json!("one two three four")));
}

#[test]
fn a_stream_that_breaks_ends_as_failed() {
    let broken = ["a", "b", "c"].map(|name| (name, Script::BreaksOff(words("one "), FailureKind::Crashed)));
    let server = serve("on_stream_failure = \"error\"\nnum_retries = 0", broken, ServeOptions::default());
    let events = server.post(PATH, &json!({"input": "hi", "stream": true})).named_events();
    let (name, data) = events.last().unwrap();
    let response = &data["response"];
    assert_eq!((name.as_str(), &response["status"]), ("response.failed", &json!("failed")));
    assert_eq!((&response["error"]["code"], &response["error"]["cause"]), (&json!("server_error"), &json!("crashed")));
    assert_eq!(response["output"][0]["status"], "incomplete");
}

#[test]
fn input_tokens_are_counted_without_an_answer() {
    let server = abc([]);
    let counted = server.post("/v1/responses/input_tokens", &json!({"input": "hi", "instructions": "s"})).json();
    assert_eq!(counted, json!({"object": "response.input_tokens", "input_tokens": 7}));
    assert_eq!(server.post("/v1/responses/input_tokens", &json!({})).status, 200);
    assert!(server.fake.seen.lock().unwrap().is_empty());
}

#[test]
fn what_would_need_state_or_is_not_understood_is_refused_by_name() {
    let server = abc([]);
    let rows = [
        (json!({"previous_response_id": "resp_1"}), "previous_response_id"),
        (json!({"conversation": "conv_1"}), "conversation"),
        (json!({"background": true}), "background"),
        (json!({"prompt": {"id": "p"}}), "prompt"),
        (json!({"input": 5}), "input"),
        (json!({"input": [{"type": "item_reference", "id": "x"}]}), "input[0].type"),
        (json!({"input": [{"type": "web_search_call"}]}), "input[0].type"),
        (json!({"input": [{"role": "tool", "content": "x"}]}), "input[0].role"),
        (json!({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://x"}]}]}), "input[0].content[0]"),
        (json!({"input": [{"type": "function_call", "call_id": "x", "name": "y"}]}), "input[0].arguments"),
        (json!({"tools": [{"type": "web_search"}]}), "tools[0]"),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (json!({"tool_choice": {"type": "mcp"}}), "tool_choice"),
        (json!({"max_output_tokens": -1}), "max_output_tokens"),
        (json!({"text": {"format": {"type": "json_schema", "name": "n"}}}), "text.format.json_schema"),
        (json!({"text": {"format": {"type": "xml"}}}), "text.format.type"),
        (json!({"reasoning": {"effort": "heroic"}}), "reasoning.effort"),
    ];
    for (wrong, param) in rows {
        let reply = server.post(PATH, &wrong);
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!(param)), "{wrong}: {}", reply.body);
    }
    let stateful = server.post(PATH, &json!({"previous_response_id": "resp_1"})).json();
    assert!(stateful["error"]["message"].as_str().unwrap().contains("keeps no state"));
    assert_eq!(server.post(PATH, &json!({"previous_response_id": null, "background": false, "input": "hi"})).status, 200);
}
