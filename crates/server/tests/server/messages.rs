//! Anthropic's dialect: blocks, events in their order, and errors in its words.

use downshift_server::{ApiKey, ServeOptions};
use downshift_worker::{FailureKind, Input, Role, ToolChoice};
use serde_json::{Value, json};

use crate::support::*;

const PATH: &str = "/v1/messages";

fn hi() -> Value {
    json!({"model": "a", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]})
}

fn with(mut body: Value, more: Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn add() -> Value {
    json!({"name": "add", "description": "Adds", "input_schema": {"type": "object", "properties": {"x": {"type": "integer"}}}})
}

#[test]
fn a_message_has_its_blocks_and_counts_cached_tokens_apart() {
    let mut pieces = vec![thought("hm")];
    pieces.extend(words("It is four"));
    let server = abc([("a", Script::Says(pieces))]);
    let reply = server.post(PATH, &hi());
    assert_eq!((reply.status, reply.header("x-model")), (200, "a"));
    let body = reply.json();
    assert_eq!((&body["type"], &body["role"], &body["model"]), (&json!("message"), &json!("assistant"), &json!("a")));
    assert!(body["id"].as_str().unwrap().starts_with("msg_"));
    let content = json!([{"type": "thinking", "thinking": "hm", "signature": ""}, {"type": "text", "text": "It is four"}]);
    assert_eq!(body["content"], content);
    assert_eq!((&body["stop_reason"], &body["stop_sequence"]), (&json!("end_turn"), &Value::Null));
    let usage = json!({"input_tokens": 4, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 3, "output_tokens": 4});
    assert_eq!(body["usage"], usage);
    assert!(body.get("fallback").is_none());
}

#[test]
fn what_is_asked_reaches_the_model() {
    let server = abc([]);
    let body = json!({
        "model": "a", "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "top_k": 7, "stop_sequences": ["x", "y"],
        "metadata": {"user_id": "u"}, "system": [{"type": "text", "text": "Be brief."}],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "tools": [add()], "tool_choice": {"type": "tool", "name": "add", "disable_parallel_tool_use": true},
        "messages": [
            {"role": "user", "content": "1 + 2?"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "easy", "signature": ""},
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"x": 1}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "overflow"}], "is_error": true},
                {"type": "text", "text": "Go on."},
            ]},
        ],
    });
    assert_eq!(server.post(PATH, &body).status, 200);
    let request = server.fake.request();
    assert_eq!((request.max_tokens, request.stop), (Some(9), vec!["x".to_owned(), "y".to_owned()]));
    let sampling = &request.sampling;
    assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k), (Some(0.5), Some(0.9), Some(7)));
    let Input::Chat { messages, tools, tool_choice, variables } = request.input else { panic!("a chat") };
    assert_eq!((tool_choice, &variables["enable_thinking"]), (ToolChoice::Function("add".to_owned()), &json!(true)));
    let parameters = add()["input_schema"].clone();
    let function = json!({"name": "add", "parameters": parameters, "description": "Adds"});
    assert_eq!(tools, [json!({"type": "function", "function": function})]);
    let roles: Vec<_> = messages.iter().map(|message| message.role).collect();
    assert_eq!(roles, [Role::System, Role::User, Role::Assistant, Role::Tool, Role::User]);
    let called = json!([{"id": "toolu_1", "type": "function", "function": {"name": "add", "arguments": "{\"x\":1}"}}]);
    assert_eq!((&messages[2].extra["tool_calls"], &messages[2].extra["reasoning_content"]), (&called, &json!("easy")));
    assert_eq!((&messages[3].content, &messages[3].extra["tool_call_id"]), (&json!("Error: overflow"), &json!("toolu_1")));
    assert_eq!(messages[4].content, json!("Go on."));
}

#[test]
fn a_stream_opens_and_closes_every_block_and_tells_the_usage_at_its_end() {
    let mut pieces = vec![thought("hm")];
    pieces.extend(words("one two"));
    pieces.extend([call(0, Some("add"), "{\"x\":"), call(0, None, "1}"), call(1, Some("add"), "{}")]);
    let server = abc([("a", Script::Says(pieces))]);
    let reply = server.post(PATH, &with(hi(), json!({"stream": true, "tools": [add()]})));
    assert_eq!((reply.status, reply.header("content-type")), (200, "text/event-stream"));
    let events = reply.named_events();
    assert!(events.iter().all(|(name, data)| data["type"] == **name), "the name is the type");
    let told: Vec<_> = events.iter().map(|(name, data)| (name.as_str(), data["index"].as_u64())).collect();
    let (start, delta, stop) = ("content_block_start", "content_block_delta", "content_block_stop");
    let expected = [
        ("message_start", None),
        (start, Some(0)),
        (delta, Some(0)),
        (delta, Some(0)),
        (stop, Some(0)),
        (start, Some(1)),
        (delta, Some(1)),
        (delta, Some(1)),
        (stop, Some(1)),
        (start, Some(2)),
        (delta, Some(2)),
        (delta, Some(2)),
        (stop, Some(2)),
        (start, Some(3)),
        (delta, Some(3)),
        (stop, Some(3)),
        ("message_delta", None),
        ("message_stop", None),
    ];
    assert_eq!(told, expected);
    let message = &events[0].1["message"];
    assert_eq!((&message["model"], &message["content"], &message["stop_reason"]), (&json!("a"), &json!([]), &Value::Null));
    assert_eq!(events[2].1["delta"], json!({"type": "thinking_delta", "thinking": "hm"}));
    assert_eq!(events[7].1["delta"], json!({"type": "text_delta", "text": "two"}));
    let (first, second) = (&events[9].1["content_block"], &events[13].1["content_block"]);
    assert_eq!((&first["type"], &first["name"], &first["input"]), (&json!("tool_use"), &json!("add"), &json!({})));
    assert_ne!(first["id"], second["id"]);
    assert_eq!(events[10].1["delta"], json!({"type": "input_json_delta", "partial_json": "{\"x\":"}));
    let end = &events[16].1;
    assert_eq!((&end["delta"]["stop_reason"], &end["usage"]["input_tokens"]), (&json!("tool_use"), &json!(4)));
    assert_eq!(end["usage"]["output_tokens"], 6);
}

#[test]
fn calls_are_blocks_and_one_alone_can_be_asked_for() {
    let script = || Script::Says(vec![call(0, Some("add"), "{\"x\":1}"), call(1, Some("add"), "{\"x\":2}")]);
    let server = abc([("a", script())]);
    let body = server.post(PATH, &with(hi(), json!({"tools": [add()]}))).json();
    let inputs: Vec<_> = body["content"].as_array().unwrap().iter().map(|block| (&block["type"], &block["input"])).collect();
    assert_eq!(inputs, [(&json!("tool_use"), &json!({"x": 1})), (&json!("tool_use"), &json!({"x": 2}))]);
    assert_eq!(body["stop_reason"], "tool_use");
    let alone = json!({"tools": [add()], "tool_choice": {"type": "auto", "disable_parallel_tool_use": true}});
    assert_eq!(server.post(PATH, &with(hi(), alone)).json()["content"].as_array().unwrap().len(), 1);
}

#[test]
fn a_message_tells_which_stop_sequence_ended_it_and_what_cut_it() {
    let server = abc([("a", says("one two three"))]);
    let stopped = server.post(PATH, &with(hi(), json!({"stop_sequences": ["never", "two "]}))).json();
    assert_eq!((&stopped["stop_reason"], &stopped["stop_sequence"]), (&json!("stop_sequence"), &json!("two ")));
    let streamed = server.post(PATH, &with(hi(), json!({"stop_sequences": ["never", "two "], "stream": true}))).named_events();
    let end = &streamed[streamed.len() - 2].1["delta"];
    assert_eq!(*end, json!({"stop_reason": "stop_sequence", "stop_sequence": "two "}));
    let cut = server.post(PATH, &with(hi(), json!({"max_tokens": 1}))).json();
    assert_eq!((&cut["stop_reason"], &cut["stop_sequence"]), (&json!("max_tokens"), &Value::Null));
}

#[test]
fn a_dropped_gear_is_disclosed() {
    let server = abc([("a", Script::FailsToLoad(FailureKind::Missing)), ("b", says("From b"))]);
    let body = server.post(PATH, &hi()).json();
    assert_eq!((&body["model"], &body["fallback"]["attempts"][0]["kind"]), (&json!("b"), &json!("missing")));
    let events = server.post(PATH, &with(hi(), json!({"stream": true}))).named_events();
    let message = &events[0].1["message"];
    assert_eq!((&message["model"], &message["fallback"]["requested"]), (&json!("b"), &json!("a")));
    assert!(events.iter().skip(1).all(|(_, data)| data.get("fallback").is_none()));
}

#[test]
fn a_stream_that_breaks_ends_with_one_error() {
    let broken = ["a", "b", "c"].map(|name| (name, Script::BreaksOff(words("one "), FailureKind::Crashed)));
    let server = serve("on_stream_failure = \"error\"\nnum_retries = 0", broken, ServeOptions::default());
    let events = server.post(PATH, &with(hi(), json!({"stream": true}))).named_events();
    let (name, data) = events.last().unwrap();
    assert_eq!((name.as_str(), &data["type"], &data["error"]["type"]), ("error", &json!("error"), &json!("api_error")));
    assert!(events.iter().all(|(name, _)| name != "message_stop"));
}

#[test]
fn tokens_are_counted_as_the_prompt_is_read() {
    let server = abc([]);
    // The scripted model counts the bytes of each turn as JSON.
    let body = json!({"model": "a", "system": "s", "messages": [{"role": "user", "content": "hi"}]});
    assert_eq!(server.post("/v1/messages/count_tokens", &body).json(), json!({"input_tokens": 7}));
    let unknown = server.post("/v1/messages/count_tokens", &with(body, json!({"model": "x"})));
    assert_eq!((unknown.status, &unknown.json()["error"]["type"]), (404, &json!("not_found_error")));
}

#[test]
fn what_is_wrong_is_named_in_anthropics_words() {
    let server = abc([]);
    let image = json!({"type": "image", "source": {"type": "url", "url": "http://x"}});
    let rows = [
        (json!({"max_tokens": null}), "max_tokens"),
        (json!({"max_tokens": -1}), "max_tokens"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": [{"role": "wizard", "content": "hi"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "user", "content": [image]}]}), "messages[0].content[0]"),
        (json!({"messages": [{"role": "user", "content": [{"type": "text"}]}]}), "messages[0].content[0]"),
        (json!({"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}), "messages[0].content[0]"),
        (json!({"messages": [{"role": "assistant", "content": [{"type": "tool_use"}]}]}), "messages[0].content[0]"),
        (json!({"messages": [{"role": "user", "content": 5}]}), "messages[0].content"),
        (json!({"system": 5}), "system"),
        (json!({"stop_sequences": [""]}), "stop_sequences"),
        (json!({"temperature": -1}), "temperature"),
        (json!({"tools": [{"name": "x"}]}), "tools[0].input_schema"),
        (json!({"tools": [{"type": "bash_20250124", "name": "bash"}]}), "tools[0].type"),
        (json!({"tool_choice": {"type": "any"}}), "tool_choice"),
        (json!({"tool_choice": {"type": "tool"}}), "tool_choice.name"),
        (json!({"thinking": {"type": "deep"}}), "thinking.type"),
        (json!({"output_config": {"format": {"type": "json_schema", "schema": 5}}}), "output_config.format"),
    ];
    for (wrong, param) in rows {
        let reply = server.post(PATH, &with(hi(), wrong.clone()));
        let body = reply.json();
        assert_eq!((reply.status, &body["type"]), (400, &json!("error")), "{wrong}: {body}");
        assert_eq!((&body["error"]["type"], &body["error"]["param"]), (&json!("invalid_request_error"), &json!(param)), "{wrong}: {body}");
        let message = body["error"]["message"].as_str().unwrap();
        assert!(!message.contains("`stop`") && !message.contains("response_format"), "{message}");
    }
}

#[test]
fn refusals_have_anthropics_types() {
    let server = abc([]);
    let unknown = server.post(PATH, &with(hi(), json!({"model": "x"})));
    assert_eq!((unknown.status, &unknown.json()["error"]["type"]), (404, &json!("not_found_error")));
    let full =
        serve("num_retries = 0", ["a", "b", "c"].map(|name| (name, Script::Refuses(FailureKind::OutOfMemory))), ServeOptions::default());
    let overloaded = full.post(PATH, &hi());
    assert_eq!((overloaded.status, &overloaded.json()["error"]["type"]), (503, &json!("overloaded_error")));
    let length = full.post(PATH, &hi()).body.len();
    assert_eq!(overloaded.header("content-length").parse::<usize>().unwrap(), overloaded.body.len(), "{length}");
}

#[test]
fn the_key_is_taken_from_either_header() {
    let options = ServeOptions { api_key: ApiKey::new("secret"), ..ServeOptions::default() };
    let server = serve("", [], options);
    let send = |header: &str| {
        let body = hi().to_string();
        server.exchange(server.request(PATH, &body).replacen("\r\n", &format!("\r\n{header}\r\n"), 1))
    };
    assert_eq!((send("x-api-key: secret").status, send("Authorization: Bearer secret").status), (200, 200));
    let wrong = send("x-api-key: wrong");
    assert_eq!((wrong.status, &wrong.json()["error"]["type"]), (401, &json!("authentication_error")));
}
