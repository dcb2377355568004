//! What an answer must look like, kept by a model that knows nothing: random weights at temperature 1.

#[path = "support/schema.rs"]
mod schema;
mod support;

use downshift_worker::{
    Completion, Failure, FailureKind, FinishReason, Input, Message, Prompt, Request, RequestId, ResponseFormat, Resume, SamplingParams,
    Worker,
};
use serde_json::{Value, json};

use schema::violation;
use support::{Output, run, worker};

const SEEDS: u64 = 50;

fn sampling(seed: u64) -> SamplingParams {
    SamplingParams {
        temperature: Some(1.0),
        top_k: Some(0),
        top_p: Some(1.0),
        min_p: Some(0.0),
        seed: Some(seed),
        ..SamplingParams::default()
    }
}

fn asked(format: ResponseFormat, seed: u64) -> Request {
    Request { format, sampling: sampling(seed), ..Request::new(RequestId(seed), Input::chat(vec![Message::user("Go on.")])) }
}

fn answer(worker: &dyn Worker, request: &Request) -> Result<(Output, Completion), Failure> {
    run(worker, request)
}

fn schemas() -> Vec<Value> {
    let word = json!({ "type": "string", "maxLength": 6 });
    vec![
        json!({ "type": "object", "properties": { "name": word, "age": { "type": "integer", "minimum": 0, "maximum": 150 } }, "required": ["name", "age"], "additionalProperties": false }),
        json!({ "type": "array", "items": { "type": "integer", "minimum": -5, "maximum": 5 }, "minItems": 2, "maxItems": 4 }),
        json!({ "enum": ["red", "green", "blue", 7, null, true] }),
        json!({ "const": { "a": [1, 2] } }),
        json!({ "type": "boolean" }),
        json!({ "type": "null" }),
        json!({ "type": "number", "minimum": 0.5, "maximum": 2.25 }),
        json!({ "anyOf": [{ "type": "integer", "minimum": 10, "maximum": 99 }, { "type": "object", "properties": { "x": { "type": "boolean" } }, "required": ["x"], "additionalProperties": false }] }),
        json!({ "type": "object", "properties": { "a": { "type": "object", "properties": { "b": { "type": "object", "properties": { "c": { "type": "array", "items": { "type": "boolean" }, "maxItems": 3 } }, "required": ["c"], "additionalProperties": false } }, "required": ["b"], "additionalProperties": false } }, "required": ["a"], "additionalProperties": false }),
        json!({ "$defs": { "colour": { "enum": ["r", "g"] } }, "type": "object", "properties": { "one": { "$ref": "#/$defs/colour" }, "two": { "$ref": "#/$defs/colour" } }, "required": ["one", "two"], "additionalProperties": false }),
        json!({ "$defs": { "node": { "type": "object", "properties": { "value": { "type": "integer", "minimum": 0, "maximum": 9 }, "next": { "anyOf": [{ "type": "null" }, { "$ref": "#/$defs/node" }] } }, "required": ["value", "next"], "additionalProperties": false } }, "$ref": "#/$defs/node" }),
        json!({ "type": "string", "minLength": 2, "maxLength": 5 }),
        json!({ "type": "object", "properties": { "first": word, "second": { "type": "boolean" }, "third": { "type": "null" } }, "required": ["second"], "additionalProperties": false }),
        json!({ "type": ["integer", "null"], "minimum": -1000, "maximum": 1000 }),
        json!({ "type": "array", "items": { "type": "array", "items": { "enum": ["x", "y"] }, "minItems": 1, "maxItems": 2 }, "minItems": 1, "maxItems": 3 }),
        json!({ "type": "string", "pattern": "^[a-f]{2}-[0-9]{1,3}$" }),
        json!({ "type": "object", "properties": { "kind": { "const": "point" }, "at": { "type": "array", "prefixItems": [{ "type": "integer", "minimum": 0, "maximum": 9 }, { "type": "integer", "minimum": 0, "maximum": 9 }], "items": false, "minItems": 2 } }, "required": ["kind", "at"], "additionalProperties": false }),
    ]
}

#[test]
fn every_answer_is_valid_under_its_schema_at_temperature_one() {
    let worker = worker(None, &[]);
    for schema in schemas() {
        for seed in 0..SEEDS {
            let (output, completion) = answer(&*worker, &asked(ResponseFormat::JsonSchema(schema.clone()), seed)).expect("an answer");
            assert_eq!(completion.finish_reason, FinishReason::Stop, "{schema} with seed {seed}: {}", output.text);
            let value: Value = serde_json::from_str(&output.text).unwrap_or_else(|error| panic!("{schema}: {error}: {}", output.text));
            assert_eq!(violation(&schema, &schema, &value), None, "{schema} with seed {seed}: {}", output.text);
        }
    }
}

#[test]
fn whatever_the_sampling_the_schema_holds() {
    let worker = worker(None, &[]);
    let schema = schemas().swap_remove(0);
    let quote = worker.tokenize("{", false).expect("tokens")[0];
    let all = [
        SamplingParams { temperature: Some(0.0), ..SamplingParams::default() },
        SamplingParams { temperature: Some(50.0), top_k: Some(0), seed: Some(1), ..SamplingParams::default() },
        SamplingParams { top_k: Some(1), ..SamplingParams::default() },
        SamplingParams { top_p: Some(0.01), seed: Some(2), ..SamplingParams::default() },
        SamplingParams { min_p: Some(1.0), seed: Some(3), ..SamplingParams::default() },
        SamplingParams { repeat_penalty: Some(5.0), frequency_penalty: Some(2.0), seed: Some(4), ..SamplingParams::default() },
        SamplingParams { logit_bias: vec![(quote, f32::NEG_INFINITY), (7, 1e5)], seed: Some(5), ..SamplingParams::default() },
    ];
    for sampling in all {
        let request = Request { sampling: sampling.clone(), ..asked(ResponseFormat::JsonSchema(schema.clone()), 0) };
        let (output, _) = answer(&*worker, &request).expect("an answer");
        let value: Value = serde_json::from_str(&output.text).unwrap_or_else(|error| panic!("{sampling:?}: {error}: {}", output.text));
        assert_eq!(violation(&schema, &schema, &value), None, "{sampling:?}: {}", output.text);
    }
}

#[test]
fn an_object_is_an_object_and_a_short_answer_its_beginning() {
    let worker = worker(None, &[]);
    // Strings of a model that knows nothing rarely end; a bias helps it.
    let likely: Vec<(u32, f32)> = ["\"", "}", ":"].iter().map(|text| (worker.tokenize(text, false).expect("tokens")[0], 4.0)).collect();
    for seed in 0..SEEDS {
        let request = asked(ResponseFormat::JsonObject, seed);
        let request = Request { sampling: SamplingParams { logit_bias: likely.clone(), ..sampling(seed) }, ..request };
        let (output, completion) = answer(&*worker, &request).expect("an answer");
        if completion.finish_reason == FinishReason::Stop {
            assert!(serde_json::from_str::<Value>(&output.text).expect("JSON").is_object(), "{}", output.text);
        }
        let (short, completion) = answer(&*worker, &Request { max_tokens: Some(3), ..request }).expect("an answer");
        // The third token may end within a character.
        assert!(output.text.starts_with(short.text.trim_end_matches('\u{fffd}')), "{} {}", short.text, output.text);
        assert!(short.ids.len() <= 3);
        if short.text != output.text {
            assert_eq!(completion.finish_reason, FinishReason::Length);
        }
    }
}

#[test]
fn a_grammar_holds_and_its_end_is_the_answers() {
    let worker = worker(None, &[]);
    for seed in 0..SEEDS {
        let lark = "start: word (\" \" word)~2\nword: /[a-c]{1,3}/".to_owned();
        let (output, completion) = answer(&*worker, &asked(ResponseFormat::Grammar(lark), seed)).expect("an answer");
        let words: Vec<&str> = output.text.split(' ').collect();
        assert_eq!(words.len(), 3, "{}", output.text);
        assert!(words.iter().all(|word| (1..=3).contains(&word.len()) && word.bytes().all(|b| b"abc".contains(&b))), "{}", output.text);
        assert_eq!(completion.finish_reason, FinishReason::Stop);
    }
}

#[test]
fn an_interrupted_answer_continues_validly_from_tokens_and_from_text() {
    let worker = worker(None, &[]);
    let schema = schemas().swap_remove(8);
    for seed in 0..20 {
        let request = asked(ResponseFormat::JsonSchema(schema.clone()), seed);
        let (whole, _) = answer(&*worker, &request).expect("an answer");
        for cut in [1, whole.ids.len() / 2, whole.ids.len() - 1, whole.ids.len()] {
            let shown = worker.detokenize(&whole.ids[..cut]).expect("text");
            let tokens = Resume::Tokens { token_ids: whole.ids[..cut].to_vec(), shown_bytes: shown.len() };
            let (rest, _) = answer(&*worker, &Request { resume: Some(tokens), ..request.clone() }).expect("an answer");
            assert_eq!(format!("{shown}{}", rest.text), whole.text, "cut after {cut} tokens");
            let text = Resume::Text { text: shown.clone(), reasoning: String::new(), tokens: cut as u32 };
            let (rest, completion) = answer(&*worker, &Request { resume: Some(text), ..request.clone() }).expect("an answer");
            let joined = format!("{shown}{}", rest.text);
            let value: Value = serde_json::from_str(&joined).unwrap_or_else(|error| panic!("{error}: {joined}"));
            assert_eq!(violation(&schema, &schema, &value), None, "{joined}");
            assert_eq!(completion.finish_reason, FinishReason::Stop);
        }
    }
}

#[test]
fn constrained_and_free_answers_do_not_disturb_each_other() {
    let worker = worker(None, &[]);
    let free = |id| Request {
        max_tokens: Some(60),
        sampling: sampling(id),
        ..Request::new(RequestId(1000 + id), Input::Completion(Prompt::Text("Hello".into())))
    };
    let bound = |seed| asked(ResponseFormat::JsonSchema(schemas().swap_remove(0)), seed);
    let alone: Vec<(String, String)> = (0..4)
        .map(|i| (answer(&*worker, &free(i)).expect("an answer").0.text, answer(&*worker, &bound(i)).expect("an answer").0.text))
        .collect();
    std::thread::scope(|scope| {
        let both: Vec<_> = (0..4)
            .map(|i| {
                let worker = &worker;
                let free = scope.spawn(move || answer(&**worker, &free(i)).expect("an answer").0.text);
                let bound = scope.spawn(move || answer(&**worker, &bound(i)).expect("an answer").0.text);
                (free, bound)
            })
            .collect();
        for ((free, bound), alone) in both.into_iter().zip(&alone) {
            assert_eq!((free.join().expect("no panic"), bound.join().expect("no panic")), *alone);
        }
    });
}

#[test]
fn log_probabilities_are_of_the_model_and_not_of_the_mask() {
    let worker = worker(None, &[]);
    let request = Request { logprobs: Some(0), ..asked(ResponseFormat::JsonSchema(json!({ "const": "x" })), 1) };
    let (output, _) = answer(&*worker, &request).expect("an answer");
    assert_eq!(output.text, "\"x\"");
    assert!(output.logprobs.iter().all(|logprob| *logprob < -0.5), "{:?}", output.logprobs);
}

/// (what is wrong, format, a part of the reason)
fn refused() -> Vec<(&'static str, ResponseFormat, &'static str)> {
    let schema = ResponseFormat::JsonSchema;
    let mut deep = json!({ "type": "integer" });
    for _ in 0..200 {
        deep = json!({ "type": "array", "items": deep });
    }
    let parentheses = format!("{}a{}", "(".repeat(100_000), ")".repeat(100_000));
    let many: Value = (0..30_000).map(|i| json!(format!("v{i}"))).collect();
    vec![
        ("remote reference", schema(json!({ "$ref": "https://example.com/schema.json" })), "nothing is fetched"),
        ("reference to a file", schema(json!({ "properties": { "a": { "$ref": "file:///etc/passwd" } } })), "nothing is fetched"),
        ("reference to nothing", schema(json!({ "$ref": "#/$defs/none" })), "none"),
        ("reference to itself", schema(json!({ "$ref": "#" })), "nothing satisfies it"),
        (
            "references in a circle",
            schema(json!({ "$defs": { "a": { "$ref": "#/$defs/b" }, "b": { "$ref": "#/$defs/a" } }, "$ref": "#/$defs/a" })),
            "",
        ),
        ("a circle of allOf", schema(json!({ "allOf": [{ "$ref": "#" }] })), ""),
        ("unsatisfiable bounds", schema(json!({ "type": "integer", "minimum": 5, "maximum": 1 })), "atisfiable"),
        ("false", schema(json!(false)), ""),
        ("no schema", schema(json!("string")), ""),
        ("a type that is none", schema(json!({ "type": "text" })), ""),
        ("an unknown word", schema(json!({ "type": "array", "uniqueItems": true })), "uniqueItems"),
        ("nested too deep", schema(deep), "deeper than"),
        ("parentheses", schema(json!({ "type": "string", "pattern": parentheses })), ""),
        ("too many values", schema(json!({ "enum": many })), "more than"),
        ("too long", schema(json!({ "type": "string", "pattern": "a".repeat(300_000) })), "longer than"),
        ("a grammar that is none", ResponseFormat::Grammar("start: (".into()), ""),
        ("a rule that is missing", ResponseFormat::Grammar("start: other".into()), "other"),
        (
            "parentheses in a grammar",
            ResponseFormat::Grammar(format!("start: {}\"a\"{}", "(".repeat(100_000), ")".repeat(100_000))),
            "deeper than",
        ),
        ("a chain of rules", ResponseFormat::Grammar((0..5000).map(|i| format!("r{i}: r{}\n", i + 1)).collect()), "more than"),
        ("an empty grammar", ResponseFormat::Grammar(String::new()), ""),
    ]
}

#[test]
fn what_cannot_be_kept_is_refused_with_its_reason() {
    let worker = worker(None, &[]);
    for (what, format, reason) in refused() {
        let began = std::time::Instant::now();
        let failure = answer(&*worker, &Request { max_tokens: Some(64), ..asked(format, 1) }).expect_err(what);
        assert_eq!(failure.kind, FailureKind::InvalidRequest, "{what}: {failure}");
        assert!(failure.message.contains(reason) && failure.message.len() < 700, "{what}: {failure}");
        assert!(began.elapsed().as_secs() < 20, "{what} took {:?}", began.elapsed());
        eprintln!("{what}: {failure} ({:?})", began.elapsed());
    }
    answer(&*worker, &asked(ResponseFormat::JsonSchema(json!({ "type": "boolean" })), 1)).expect("the worker goes on");
}

#[test]
fn what_explodes_is_answered_or_refused_soon() {
    let worker = worker(None, &[]);
    let schema = ResponseFormat::JsonSchema;
    let alternatives: Vec<Value> =
        (0..2000).map(|i| json!({ "type": "object", "properties": { format!("k{i}"): {} }, "required": [format!("k{i}")] })).collect();
    let rows = [
        ("nested repetitions", schema(json!({ "type": "string", "pattern": "^((a{1,1000}){1,1000}){1,1000}$" }))),
        ("long repetitions", schema(json!({ "type": "string", "pattern": "^(a{50000}|b{49999}c?){30000}$" }))),
        ("a pattern that looks back", schema(json!({ "type": "string", "pattern": "^(.*a.{30})(.*b.{30})$" }))),
        ("many items", schema(json!({ "type": "array", "items": { "type": "string" }, "minItems": 1_000_000_000 }))),
        ("a long string", schema(json!({ "type": "string", "minLength": 1_000_000_000 }))),
        ("many alternatives", schema(json!({ "anyOf": alternatives.clone() }))),
        ("all of many", schema(json!({ "allOf": alternatives }))),
        ("an object that never ends", schema(json!({ "type": "object", "properties": { "a": { "$ref": "#" } }, "required": ["a"] }))),
        ("doubled references", {
            let defs: serde_json::Map<String, Value> = (0..60)
                .map(|i| {
                    (
                        format!("d{i}"),
                        json!({ "allOf": [{ "$ref": format!("#/$defs/d{}", i + 1) }, { "$ref": format!("#/$defs/d{}", i + 1) }] }),
                    )
                })
                .chain([("d60".to_owned(), json!({ "type": "boolean" }))])
                .collect();
            schema(json!({ "$defs": defs, "$ref": "#/$defs/d0" }))
        }),
        ("an ambiguous grammar", ResponseFormat::Grammar("start: s\ns: s s s | \"a\" | \"\"".into())),
        ("a grammar of repetitions", ResponseFormat::Grammar("start: ((((/a/ ~ 1..1000) ~ 1..1000) ~ 1..1000) ~ 1..1000)".into())),
        ("a rule that calls itself", ResponseFormat::Grammar("start: start".into())),
    ];
    for (what, format) in rows {
        let began = std::time::Instant::now();
        let outcome = answer(&*worker, &Request { max_tokens: Some(64), ..asked(format, 1) });
        if let Err(failure) = &outcome {
            assert_eq!(failure.kind, FailureKind::InvalidRequest, "{what}: {failure}");
        }
        assert!(began.elapsed().as_secs() < 30, "{what} took {:?}", began.elapsed());
        eprintln!("{what}: {:?} {:?}", outcome.map(|(output, _)| output.text).map_err(|failure| failure.message), began.elapsed());
    }
}
