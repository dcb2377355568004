//! The description is of this server: its routes, its fields and their bounds, its answers, its page in docs.

use std::collections::BTreeSet;
use std::path::Path;

use downshift_server::{ApiKey, ServeOptions};
use downshift_worker::FailureKind;
use serde_json::{Map, Value, json};

use crate::support::*;

const PAGE: &str = include_str!("../../../../docs/api.md");

fn document() -> Value {
    abc([]).get("/openapi.json").json()
}

/// What `pointer` leads to among the schemas.
fn schema<'a>(document: &'a Value, pointer: &str) -> &'a Value {
    let found = document.pointer(&format!("/components/schemas/{pointer}"));
    found.unwrap_or_else(|| panic!("a schema {pointer}"))
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().into_iter().flat_map(Map::keys).cloned().collect()
}

/// Every route, and what is described of it.
fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
    let paths = document["paths"].as_object().expect("paths");
    paths
        .iter()
        .flat_map(|(path, item)| item.as_object().unwrap().iter().map(move |(method, of)| (method.as_str(), path.as_str(), of)))
        .collect()
}

/// The schema of a route's body.
fn taken(operation: &Value) -> Option<&str> {
    let name = operation.pointer("/requestBody/content/application~1json/schema/$ref")?;
    name.as_str()?.strip_prefix("#/components/schemas/")
}

#[test]
fn every_reference_leads_somewhere_and_no_schema_is_idle() {
    let document = document();
    assert_eq!((&document["openapi"], &document["info"]["title"]), (&json!("3.1.0"), &json!("downshift")));
    let (mut open, mut named) = (vec![&document], BTreeSet::new());
    while let Some(value) = open.pop() {
        if let Some(name) = value.get("$ref") {
            let pointer = name.as_str().and_then(|name| name.strip_prefix('#')).expect("a reference within the document");
            assert!(document.pointer(pointer).is_some(), "{name}");
            named.extend(pointer.strip_prefix("/components/schemas/").map(str::to_owned));
        }
        open.extend(value.as_array().into_iter().flatten().chain(value.as_object().into_iter().flat_map(Map::values)));
    }
    assert_eq!(named, keys(&document["components"]["schemas"]));
    let ids: BTreeSet<_> = operations(&document).iter().map(|(_, _, operation)| operation["operationId"].to_string()).collect();
    assert_eq!(ids.len(), operations(&document).len(), "ids of operations differ");
}

#[test]
fn the_page_has_the_routes_of_the_description() {
    let document = document();
    let described: BTreeSet<_> =
        operations(&document).iter().map(|(method, path, _)| format!("{} {path}", method.to_uppercase())).collect();
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).filter(|row| row.contains(" /"));
    assert_eq!(described, rows.map(str::to_owned).collect());
}

#[test]
fn every_field_in_a_table_of_the_page_is_described() {
    let document = document();
    let tables: Vec<_> = PAGE.split("| field | type | range | default |\n|---|---|---|---|\n").skip(1).collect();
    let answers = ["ChatRequest", "CompletionRequest"];
    let generating = [&answers[..], &["ResponseRequest", "MessageRequest"]].concat();
    let routed = [&generating[..], &["EmbeddingRequest"]].concat();
    for (table, schemas) in tables.iter().zip([routed, generating, answers.to_vec()]) {
        let first_cells = table.lines().take_while(|line| line.starts_with('|')).filter_map(|line| line.split(" | ").next());
        let fields: Vec<_> = first_cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
        assert!(fields.len() > 5, "{fields:?}");
        for (field, name) in fields.iter().flat_map(|field| schemas.iter().map(move |name| (field, name))) {
            let pointer = format!("/properties/{}", field.replace('.', "/properties/"));
            assert!(schema(&document, name).pointer(&pointer).is_some(), "{field} of {name}");
        }
    }
    assert_eq!(tables.len(), 3);
}

/// The fields that a type in a source file is read from, with their other names.
fn fields(place: &str) -> BTreeSet<String> {
    let (file, name) = place.split_once(' ').expect("a file and a type");
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file)).expect("a source file");
    let (_, body) = text.split_once(&format!("struct {name} {{\n")).unwrap_or_else(|| panic!("{place}"));
    let (body, _) = body.split_once("\n}").expect("its end");
    let (mut found, mut renamed) = (BTreeSet::new(), None);
    for line in body.lines().map(str::trim) {
        let quoted = |after: &str| Some(line.split_once(after)?.1.split('"').next()?.to_owned());
        if line.starts_with("#[") {
            found.extend(quoted("alias = \""));
            renamed = quoted("rename = \"").or(renamed);
        } else if let Some((field, _)) = line.split_once(": ").filter(|_| !line.starts_with("//")) {
            found.insert(renamed.take().unwrap_or_else(|| field.trim_start_matches("pub ").to_owned()));
        }
    }
    found
}

#[test]
fn what_is_described_of_a_request_is_what_is_read() {
    const COMMON: &str = "openai.rs CommonFields";
    const ITEMS: &str = "responses/request.rs Prompt";
    // Of each schema: the types that it is read into, and the fields that only one of both sides has.
    let rows: &[(&str, &[&str], &[&str])] = &[
        ("ChatRequest", &[COMMON, "openai.rs ChatFields"], &[]),
        ("ChatMessage", &["openai.rs ChatMessage"], &[]),
        ("CompletionRequest", &[COMMON, "openai.rs CompletionFields"], &[]),
        ("EmbeddingRequest", &["embeddings.rs EmbeddingFields"], &[]),
        (
            "ResponseRequest",
            &[COMMON, ITEMS, "responses/request.rs Fields", "responses/response.rs Echoed"],
            &["max_tokens", "n", "response_format", "stream_options"],
        ),
        ("ResponseCountRequest", &[ITEMS], &["model"]),
        ("InputItem", &["responses/items.rs Item"], &[]),
        (
            "MessageRequest",
            &[COMMON, "messages/request.rs Fields", "messages/request.rs Conversation"],
            &["n", "response_format", "stop", "stream_options"],
        ),
        ("MessageCountRequest", &["messages/request.rs Conversation"], &["model"]),
        ("Block", &["messages/request.rs Block"], &["signature"]),
        ("OllamaChatRequest", &["ollama/generate.rs Fields", "ollama/generate.rs ChatBody"], &[]),
        ("OllamaChatRequest/properties/options", &["ollama/generate.rs Options"], &[]),
        ("OllamaGenerateRequest", &["ollama/generate.rs Fields", "ollama/generate.rs GenerateBody"], &[]),
        ("OllamaEmbedRequest", &["ollama/embed.rs Embed"], &[]),
        ("OllamaEmbeddingRequest", &["ollama/embed.rs EmbedOne"], &[]),
        ("OllamaShowRequest", &["ollama/models.rs Show"], &[]),
        ("TokenizeRequest", &["text.rs Tokenize"], &[]),
        ("DetokenizeRequest", &["text.rs Detokenize"], &[]),
        ("TemplateRequest", &["text.rs ApplyTemplate"], &[]),
    ];
    let document = document();
    for (name, places, on_one_side) in rows {
        let read: BTreeSet<_> = places.iter().flat_map(|place| fields(place)).collect();
        let described = keys(&schema(&document, name)["properties"]);
        let differing: Vec<_> = read.symmetric_difference(&described).map(String::as_str).collect();
        assert_eq!(differing, *on_one_side, "{name}");
    }
    for (_, path, operation) in operations(&document) {
        assert!(taken(operation).is_none_or(|taken| rows.iter().any(|row| row.0 == taken)), "the body of {path} is held to its type");
    }
}

#[test]
fn a_body_without_its_required_fields_is_refused() {
    let server = abc([]);
    let document = server.get("/openapi.json").json();
    let mut checked = 0;
    for (_, path, operation) in operations(&document) {
        let Some(required) = taken(operation).and_then(|name| schema(&document, name)["required"].as_array()) else { continue };
        let reply = server.post(path, &json!({}));
        let param = &reply.json()["error"]["param"];
        assert_eq!(reply.status, 400, "{path}");
        assert!(param.is_null() == path.starts_with("/api/") && (param.is_null() || required.contains(param)), "{path}: {}", reply.body);
        checked += 1;
    }
    assert_eq!(checked, 13);
}

#[test]
fn numbers_are_taken_up_to_the_described_bounds_and_no_further() {
    let server = abc([("a", says("hello"))]);
    let document = server.get("/openapi.json").json();
    let hi = json!([{"role": "user", "content": "hi"}]);
    let mut checked = 0;
    for (path, body) in [
        ("/v1/chat/completions", json!({"messages": hi, "logprobs": true})),
        ("/v1/completions", json!({"prompt": "hi"})),
        ("/v1/responses", json!({"input": "hi", "include": ["message.output_text.logprobs"]})),
        ("/v1/messages", json!({"messages": hi, "max_tokens": 5})),
    ] {
        let name = taken(&document["paths"][path]["post"]).expect("a body");
        for (field, described) in schema(&document, name)["properties"].as_object().expect("fields") {
            let ask = |value: f64| {
                let mut body = body.clone();
                body[field] = if described["type"] == "integer" { json!(value as i64) } else { json!(value) };
                server.post(path, &body)
            };
            let step = if described["type"] == "integer" { 1.0 } else { 0.001 };
            for (bound, step) in [("minimum", -step), ("maximum", step)] {
                let Some(bound) = described[bound].as_f64() else { continue };
                let reply = ask(bound);
                assert_eq!(reply.status, 200, "{path}: {field} of {bound}: {}", reply.body);
                let reply = ask(bound + step);
                let param = match field.as_str() {
                    "repetition_penalty" => "repeat_penalty",
                    "repeat_last_n" => "penalty_last_n",
                    field => field,
                };
                assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!(param)), "{path}: {field} of {}", bound + step);
                checked += 1;
            }
        }
    }
    assert!(checked > 80, "{checked} bounds");
}

/// What of `value` is not as `schema` has it.
fn misfit(document: &Value, schema: &Value, value: &Value) -> Option<String> {
    if let Some(name) = schema["$ref"].as_str() {
        return misfit(document, document.pointer(&name[1..]).expect("a schema"), value);
    }
    if let Some(schemas) = schema["anyOf"].as_array() {
        let misfits: Option<Vec<_>> = schemas.iter().map(|schema| misfit(document, schema, value)).collect();
        return misfits.map(|misfits| misfits.join(", and "));
    }
    let is_of = |kind: &str| match kind {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => value.is_null(),
    };
    if schema["type"].as_str().is_some_and(|kind| !is_of(kind)) {
        return Some(format!("{value} is no {}", schema["type"]));
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        return Some(format!("{value} is none of {}", schema["enum"]));
    }
    if let Some(missing) = schema["required"].as_array().into_iter().flatten().find(|name| value.get(name.as_str().unwrap()).is_none()) {
        return Some(format!("{missing} is missing"));
    }
    let field = |(name, value): (&String, &Value)| match (schema["properties"].get(name), schema.get("properties")) {
        (Some(described), _) => misfit(document, described, value).map(|misfit| format!("{name}: {misfit}")),
        (None, Some(_)) => Some(format!("{name} is not described")),
        (None, None) => None,
    };
    let items = value.as_array().filter(|_| schema["items"].is_object());
    let item = |value: &Value| misfit(document, &schema["items"], value);
    value.as_object().into_iter().flatten().find_map(field).or_else(|| items.into_iter().flatten().find_map(item))
}

/// Holds a reply to what is described of its route, and says which route that is.
#[track_caller]
fn check_reply(document: &Value, method: &str, path: &str, reply: &Reply) -> String {
    let route = match path {
        _ if path.starts_with("/v1/models/") => "/v1/models/{id}",
        _ if path.starts_with("/page/") => "/page/{file}",
        path => path,
    };
    let described = &document["paths"][route][method]["responses"][reply.status.to_string()];
    assert!(described.is_object(), "{method} {path} is not described to give {}: {}", reply.status, reply.body);
    // What browsers and proxies are told is not for programs that use the API.
    let telling = |name: &&String| name.starts_with("x-") && !["x-content-type-options", "x-accel-buffering"].contains(&name.as_str());
    for name in reply.headers.keys().filter(|name| telling(name) || *name == "retry-after") {
        assert!(described["headers"][name].is_object(), "{name} of {method} {path}, {}", reply.status);
    }
    if let Some(kind) = reply.header("content-type").split(';').next().filter(|kind| !kind.is_empty()) {
        let content = &described["content"][kind];
        assert!(content.is_object(), "{kind} of {method} {path}, {}", reply.status);
        let pieces = match kind {
            "application/json" => vec![reply.json()],
            "application/x-ndjson" => reply.body.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect(),
            "text/event-stream" => reply.body.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect(),
            _ => Vec::new(),
        };
        assert!(!pieces.is_empty() || kind.starts_with("text/") && kind != "text/event-stream", "{method} {path}: {}", reply.body);
        for piece in pieces {
            assert_eq!(misfit(document, &content["schema"], &piece), None, "{method} {path}: {piece}");
        }
    }
    format!("{method} {route}")
}

#[test]
fn every_route_answers_as_described() {
    let pieces = [vec![thought("Well. ")], words("Hello there "), vec![call(0, Some("f"), "{}")]].concat();
    let server = abc([("a", Script::Says(pieces)), ("b", says("Hello")), ("c", Script::Embeds)]);
    let document = server.get("/openapi.json").json();
    let hi = json!([{"role": "user", "content": "hi"}]);
    let tool = json!({"type": "function", "name": "f", "parameters": {"type": "object"}});
    let mut asked = BTreeSet::new();
    for (path, body) in [
        ("/v1/chat/completions", json!({"messages": hi, "logprobs": true, "top_logprobs": 1, "n": 2})),
        ("/v1/chat/completions", json!({"messages": hi, "mock_testing_fallbacks": true})),
        ("/v1/chat/completions", json!({"messages": hi, "stream": true, "logprobs": true, "mock_testing_fallbacks": true})),
        ("/v1/chat/completions", json!({"messages": hi, "stream": true, "stream_options": {"include_usage": true}})),
        ("/v1/completions", json!({"prompt": "hi", "logprobs": 1})),
        ("/v1/completions", json!({"prompt": "hi", "logprobs": 1, "stream": true})),
        ("/v1/completions", json!({"prompt": "hi", "logprobs": 1, "echo": true})),
        ("/v1/completions", json!({"prompt": "hi", "suffix": "ho"})),
        ("/v1/embeddings", json!({"model": "c", "input": "hi"})),
        ("/v1/embeddings", json!({"model": "c", "input": ["hi", "ho"], "encoding_format": "base64"})),
        (
            "/v1/responses",
            json!({"input": "hi", "include": ["message.output_text.logprobs"], "tools": [tool], "instructions": "Be brief.", "user": "u"}),
        ),
        ("/v1/responses", json!({"input": "hi", "max_output_tokens": 1, "mock_testing_fallbacks": true})),
        ("/v1/responses", json!({"input": "hi", "stream": true})),
        ("/v1/responses/input_tokens", json!({"input": "hi"})),
        ("/v1/messages", json!({"messages": hi, "max_tokens": 9})),
        ("/v1/messages", json!({"messages": hi, "max_tokens": 9, "mock_testing_fallbacks": true})),
        ("/v1/messages", json!({"messages": hi, "max_tokens": 9, "stream": true})),
        ("/v1/messages/count_tokens", json!({"messages": hi})),
        ("/api/chat", json!({"model": "a", "messages": hi, "stream": false})),
        ("/api/chat", json!({"model": "a", "messages": hi})),
        ("/api/generate", json!({"model": "a", "prompt": "hi"})),
        ("/api/chat", json!({"model": "a"})),
        ("/api/generate", json!({"model": "a", "prompt": "hi", "stream": false})),
        ("/api/generate", json!({"model": "a", "prompt": "hi", "suffix": "ho"})),
        ("/api/generate", json!({"model": "b", "keep_alive": 0})),
        ("/api/embed", json!({"model": "c", "input": "hi"})),
        ("/api/embeddings", json!({"model": "c", "prompt": "hi"})),
        ("/api/show", json!({"model": "a"})),
        ("/tokenize", json!({"content": "hi"})),
        ("/detokenize", json!({"tokens": [104, 105]})),
        ("/apply-template", json!({"messages": hi})),
    ] {
        let reply = server.post(path, &body);
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        asked.insert(check_reply(&document, "post", path, &reply));
    }
    let paths = ["/v1/models", "/v1/models/a", "/api/tags", "/api/ps", "/api/version", "/health", "/ready", "/metrics", "/props"];
    for path in paths.iter().chain(&["/openapi.json", "/", "/page/app.js", "/page/page.css"]) {
        let reply = server.get(path);
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        asked.insert(check_reply(&document, "get", path, &reply));
    }
    let described = operations(&document).iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    assert_eq!(asked, described, "every route was asked");
}

#[test]
fn streams_that_change_their_model_or_break_off_are_as_described() {
    let hi = json!([{"role": "user", "content": "hi"}]);
    let breaks = || Script::BreaksOff(words("one two "), FailureKind::Crashed);
    let document = document();
    for (second, part) in [(says("one two three"), "\"from\":"), (breaks(), "\"error\":")] {
        for (path, body) in [
            ("/v1/chat/completions", json!({"messages": hi, "stream": true})),
            ("/v1/completions", json!({"prompt": "hi", "stream": true})),
            ("/api/chat", json!({"model": "a", "messages": hi})),
        ] {
            // A server each: models that broke off are left out for a while.
            let server = abc([("a", breaks()), ("b", second.clone()), ("c", breaks())]);
            let reply = server.post(path, &body);
            assert!(reply.body.contains(part), "{path}: {}", reply.body);
            check_reply(&document, "post", path, &reply);
        }
    }
}

#[test]
fn refusals_are_as_described() {
    let server = abc([]);
    let document = server.get("/openapi.json").json();
    let hi = json!([{"role": "user", "content": "hi"}]);
    for (path, body, status) in [
        ("/v1/chat/completions", json!({}), 400),
        ("/v1/chat/completions", json!({"messages": hi, "model": "nobody"}), 404),
        ("/v1/messages", json!({"messages": hi, "max_tokens": -1}), 400),
        ("/v1/messages", json!({"messages": hi, "max_tokens": 1, "model": "nobody"}), 404),
        ("/api/chat", json!({"model": "nobody", "messages": hi}), 404),
        ("/api/show", json!({"model": "nobody"}), 404),
        ("/tokenize", json!({"content": "x", "model": "nobody"}), 404),
    ] {
        let reply = server.post(path, &body);
        assert_eq!(reply.status, status, "{path}: {}", reply.body);
        check_reply(&document, "post", path, &reply);
    }
    for path in ["/v1/models/nobody", "/page/nothing.js"] {
        check_reply(&document, "get", path, &server.get(path));
    }
    for (kind, status) in
        [(FailureKind::OutOfMemory, 503), (FailureKind::Corrupt, 500), (FailureKind::PromptTooLong { needed: 9000, limit: 4096 }, 400)]
    {
        let server = serve("num_retries = 0", ["a", "b", "c"].map(|name| (name, Script::Refuses(kind))), ServeOptions::default());
        for (path, body) in [
            ("/v1/chat/completions", json!({"messages": hi})),
            ("/v1/messages", json!({"messages": hi, "max_tokens": 1})),
            ("/api/chat", json!({"model": "a", "messages": hi})),
        ] {
            let reply = server.post(path, &body);
            assert_eq!(reply.status, status, "{path}: {}", reply.body);
            check_reply(&document, "post", path, &reply);
        }
    }
}

#[test]
fn a_key_is_asked_for_the_description_too_which_tells_where() {
    let server = serve("", [], ServeOptions { api_key: ApiKey::new("s3cret"), ..ServeOptions::default() });
    let refused = server.get("/openapi.json");
    let request = format!("GET /openapi.json HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nx-api-key: s3cret\r\n\r\n", server.address);
    let document = server.exchange(request).json();
    assert_eq!(refused.status, 401);
    check_reply(&document, "get", "/openapi.json", &refused);
    let without: Vec<_> = operations(&document).into_iter().filter(|(.., operation)| operation.get("security").is_none()).collect();
    for (_, path, operation) in &without {
        assert_eq!(server.get(&path.replace("{file}", "app.js")).status, 200, "{path}");
        assert!(operation["responses"]["401"].is_null(), "{path}");
    }
    let paths: Vec<_> = without.iter().map(|(_, path, _)| *path).collect();
    assert_eq!(paths, ["/health", "/ready", "/", "/page/{file}"]);
    assert!(operations(&self::document()).iter().all(|(.., operation)| operation.get("security").is_none()), "nobody asks for a key");
}
