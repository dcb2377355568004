//! Calls of tools and thoughts, by a model that knows nothing: random weights at temperature 1.

#[path = "support/schema.rs"]
mod schema;
mod support;

use std::ops::ControlFlow;

use downshift_worker::{
    Delta, FailureKind, FinishReason, Input, Message, Request, RequestId, ResponseFormat, Resume, SamplingParams, ToolChoice, Worker,
};
use serde_json::{Map, Value, json};

use schema::violation;
use support::{Output, run, worker};

const SEEDS: u64 = 40;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

const CHATML: &str =
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n";

/// (template, further tokens)
fn forms() -> Vec<(String, Vec<(&'static str, i32)>)> {
    let with = |head: &str| format!("{{% if tools %}}{{{{ tools | tojson }}}}{head}{{% endif %}}{CHATML}");
    vec![
        (with("<tool_call>"), vec![]),
        (with("<tool_call>"), vec![("<tool_call>", USER_DEFINED), ("</tool_call>", USER_DEFINED)]),
        (with("<tool_call>"), vec![("<tool_call>", CONTROL), ("</tool_call>", CONTROL)]),
        (with("{\"name\": .., \"parameters\": ..}"), vec![("<|python_tag|>", CONTROL)]),
        (with("[TOOL_CALLS]"), vec![("[TOOL_CALLS]", CONTROL)]),
        (with("[TOOL_CALLS][ARGS]"), vec![("[TOOL_CALLS]", CONTROL), ("[ARGS]", CONTROL)]),
    ]
}

fn tools() -> Vec<Value> {
    let tool = |name: &str, parameters: Value| json!({ "type": "function", "function": { "name": name, "description": "d", "parameters": parameters } });
    vec![
        tool(
            "add",
            json!({ "type": "object", "properties": { "a": { "type": "integer", "minimum": 0, "maximum": 99 }, "b": { "$ref": "#/$defs/digit" } }, "required": ["a", "b"], "additionalProperties": false, "$defs": { "digit": { "enum": [1, 2, 3] } } }),
        ),
        tool("say \"hi\"", json!({ "properties": { "to": { "type": "string", "maxLength": 5 } }, "additionalProperties": false })),
    ]
}

fn parameters(name: &str) -> Value {
    let tools = tools();
    let found = tools.iter().find(|tool| tool["function"]["name"] == name).expect("an offered tool");
    found["function"]["parameters"].clone()
}

fn asked(tool_choice: ToolChoice, seed: u64) -> Request {
    let input = Input::Chat { messages: vec![Message::user("Go on.")], tools: tools(), tool_choice, variables: Map::new() };
    let sampling = SamplingParams {
        temperature: Some(1.0),
        top_k: Some(0),
        top_p: Some(1.0),
        min_p: Some(0.0),
        seed: Some(seed),
        ..SamplingParams::default()
    };
    Request { sampling, max_tokens: Some(400), ..Request::new(RequestId(seed), input) }
}

/// Makes tokens likelier.
fn towards(worker: &dyn Worker, request: Request, texts: &[(&str, f32)]) -> Request {
    let id = |text: &str| {
        let ids = worker.tokenize(text, true).expect("tokens");
        assert_eq!(ids.len(), 1, "{text} is one token");
        ids[0]
    };
    let logit_bias = texts.iter().map(|(text, bias)| (id(text), *bias)).collect();
    Request { sampling: SamplingParams { logit_bias, ..request.sampling.clone() }, ..request }
}

fn check_call(name: &str, arguments: &str) {
    let value: Value = serde_json::from_str(arguments).unwrap_or_else(|error| panic!("{name}: {error}: {arguments}"));
    assert!(value.is_object(), "{arguments}");
    assert_eq!(violation(&parameters(name), &parameters(name), &value), None, "{arguments}");
}

#[test]
fn a_required_call_is_valid_in_every_form_at_temperature_one() {
    for (template, added) in forms() {
        let worker = worker(Some(&template), &added);
        let mut names = std::collections::BTreeSet::new();
        for seed in 0..SEEDS {
            let (output, completion) = run(&*worker, &asked(ToolChoice::Required, seed)).expect("an answer");
            if completion.finish_reason == FinishReason::Length {
                continue;
            }
            assert_eq!(completion.finish_reason, FinishReason::ToolCalls, "{template}: {output:?}");
            assert_eq!(output.text, "", "{template}");
            assert!(!output.calls.is_empty());
            for call in &output.calls {
                let name = call.name.as_deref().expect("a name");
                check_call(name, &call.arguments);
                names.insert(name.to_owned());
            }
        }
        assert_eq!(names.len(), 2, "{template}: {names:?}");
    }
}

#[test]
fn a_named_call_is_that_one_alone() {
    for (template, added) in forms() {
        let worker = worker(Some(&template), &added);
        for (seed, name) in (0..10).flat_map(|seed| ["add", "say \"hi\""].map(|name| (seed, name))) {
            let (output, completion) = run(&*worker, &asked(ToolChoice::Function(name.into()), seed)).expect("an answer");
            assert_eq!(completion.finish_reason, FinishReason::ToolCalls);
            assert_eq!(output.calls.len(), 1);
            assert_eq!(output.calls[0].name.as_deref(), Some(name));
            check_call(name, &output.calls[0].arguments);
        }
    }
}

#[test]
fn a_call_that_the_model_begins_itself_is_ended_validly() {
    let (template, added) = forms().swap_remove(1);
    let worker = worker(Some(&template), &added);
    let mut begun = 0;
    for seed in 0..SEEDS {
        let request = towards(&*worker, asked(ToolChoice::Auto, seed), &[("<tool_call>", 4.0)]);
        let (output, completion) = run(&*worker, &request).expect("an answer");
        let whole =
            if completion.finish_reason == FinishReason::Length { output.calls.len().saturating_sub(1) } else { output.calls.len() };
        output.calls[..whole].iter().for_each(|call| check_call(call.name.as_deref().expect("a name"), &call.arguments));
        // One that was cut short before its name was whole is text.
        if completion.finish_reason != FinishReason::Length {
            assert!(!output.text.contains("<tool_call>"), "{}", output.text);
        }
        begun += whole;
    }
    assert!(begun > 20, "{begun} calls");
}

#[test]
fn an_interrupted_call_goes_on_where_it_was() {
    for (template, added) in forms() {
        let worker = worker(Some(&template), &added);
        for seed in 0..2 {
            let request = asked(ToolChoice::Function("add".into()), seed);
            // What was shown after each delta.
            let mut snapshots = Vec::new();
            let mut whole = Output::default();
            worker
                .generate(&request, &mut |delta: Delta| {
                    whole.take(delta);
                    snapshots.push(whole.clone());
                    ControlFlow::Continue(())
                })
                .expect("an answer");
            for shown in &snapshots {
                let resume = Resume::Tokens { token_ids: shown.ids.clone(), shown_bytes: shown.shown_bytes };
                let mut joined = shown.clone();
                worker
                    .generate(&Request { resume: Some(resume), ..request.clone() }, &mut |delta: Delta| {
                        joined.take(delta);
                        ControlFlow::Continue(())
                    })
                    .expect("an answer");
                assert_eq!(joined, whole, "after {} tokens", shown.ids.len());
            }
        }
    }
}

#[test]
fn choices_that_cannot_be_met_are_refused_by_name() {
    let (template, added) = forms().swap_remove(0);
    let able = worker(Some(&template), &added);
    let plain = worker(Some(CHATML), &[]);
    let kind = |worker: &dyn Worker, choice: ToolChoice, tools: Vec<Value>| {
        let mut request = asked(choice, 1);
        if let Input::Chat { tools: offered, .. } = &mut request.input {
            *offered = tools;
        }
        let request = Request { max_tokens: Some(8), ..request };
        run(worker, &request).map(|_| ()).map_err(|failure| (failure.kind, failure.message))
    };
    let (found, message) = kind(&*able, ToolChoice::Required, Vec::new()).expect_err("no tools");
    assert_eq!(found, FailureKind::InvalidRequest, "{message}");
    let (found, message) = kind(&*able, ToolChoice::Function("steal".into()), tools()).expect_err("no such tool");
    assert!(found == FailureKind::InvalidRequest && message.contains("`steal`"), "{message}");
    kind(&*plain, ToolChoice::Required, tools()).expect("a template without tools: the model is told in words");
    let remote = vec![json!({ "function": { "name": "far", "parameters": { "$ref": "http://example.com/x" } } })];
    let (found, message) = kind(&*able, ToolChoice::Required, remote.clone()).expect_err("a remote reference");
    assert!(found == FailureKind::InvalidRequest && message.contains("nothing is fetched"), "{message}");
    kind(&*able, ToolChoice::Auto, remote).expect("a call that nobody forces needs no grammar");
    let told = plain.apply_template(&asked(ToolChoice::Auto, 1).input).expect("a prompt");
    assert!(told.contains("You can call functions.") && told.contains("<tool_call>"), "{told}");
}

const THINKING: [(&str, i32); 2] = [("<think>", USER_DEFINED), ("</think>", USER_DEFINED)];

fn thinker(end: &str) -> String {
    format!("{CHATML}{{# </think> #}}{end}")
}

#[test]
fn a_thought_is_free_and_the_answer_behind_it_is_bound() {
    let schema =
        json!({ "type": "object", "properties": { "x": { "type": "boolean" } }, "required": ["x"], "additionalProperties": false });
    let format = ResponseFormat::JsonSchema(schema.clone());
    /// What the prompt ends with, what is made likely, how many of the answers have a thought.
    type Row = (&'static str, &'static [(&'static str, f32)], std::ops::RangeInclusive<u32>);
    let rows: [Row; 3] = [
        ("<think>\n", &[("</think>", 3.0)], 30..=40),
        ("", &[("<think>", 5.0), ("</think>", 4.0)], 10..=40),
        ("<think>\n\n</think>\n\n", &[("<think>", 30.0)], 0..=0),
    ];
    for (end, likely, expected) in rows {
        let worker = worker(Some(&thinker(end)), &THINKING);
        let mut thoughts = 0;
        for seed in 0..SEEDS {
            let request = Request { format: format.clone(), ..asked(ToolChoice::None, seed) };
            let request = towards(&*worker, request, likely);
            let (output, completion) = run(&*worker, &request).expect("an answer");
            assert_eq!(completion.finish_reason, FinishReason::Stop, "{end:?}: {output:?}");
            let value: Value = serde_json::from_str(&output.text).unwrap_or_else(|error| panic!("{end:?}: {error}: {output:?}"));
            assert_eq!(violation(&schema, &schema, &value), None);
            assert!(!output.reasoning.contains("</think>"), "{}", output.reasoning);
            thoughts += u32::from(!output.reasoning.is_empty());
        }
        assert!(expected.contains(&thoughts), "{end:?}: {thoughts} thoughts");
    }
}

#[test]
fn a_thought_that_never_ends_is_reasoning_and_no_answer() {
    let worker = worker(Some(&thinker("<think>\n")), &THINKING);
    let request = towards(&*worker, asked(ToolChoice::None, 1), &[("</think>", f32::NEG_INFINITY)]);
    let (output, _) = run(&*worker, &Request { max_tokens: Some(30), ..request }).expect("an answer");
    assert_eq!(output.text, "");
    assert!(!output.reasoning.is_empty());
}

#[test]
fn another_model_goes_on_behind_the_thought_that_was_shown() {
    let worker = worker(Some(&thinker("<think>\n")), &THINKING);
    let format = ResponseFormat::JsonSchema(json!({ "type": "array", "items": { "type": "boolean" }, "minItems": 2, "maxItems": 2 }));
    let request = Request { format, ..asked(ToolChoice::None, 3) };
    let resume = |text: &str| Some(Resume::Text { text: text.into(), reasoning: "Well, ".into(), tokens: 3 });
    let (output, completion) = run(&*worker, &Request { resume: resume("[true"), ..request.clone() }).expect("an answer");
    assert_eq!((output.reasoning.as_str(), completion.finish_reason), ("", FinishReason::Stop));
    let joined = format!("[true{}", output.text);
    assert_eq!(serde_json::from_str::<Vec<bool>>(&joined).expect("JSON").len(), 2, "{joined}");
    let thinking = towards(&*worker, Request { resume: resume(""), ..request }, &[("</think>", 3.0)]);
    let (output, _) = run(&*worker, &thinking).expect("an answer");
    assert!(!output.reasoning.starts_with("Well"), "what was shown is not shown again");
    assert_eq!(serde_json::from_str::<Vec<bool>>(&output.text).expect("JSON").len(), 2);
}

#[test]
fn the_arguments_of_earlier_calls_reach_the_template_as_an_object() {
    let template = "{{ tools or '' }}{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.function.arguments | tojson }}{% endfor %}{% endfor %}.";
    let worker = worker(Some(template), &[]);
    let mut message = Message::assistant("");
    message.extra.insert("tool_calls".into(), json!([{ "function": { "name": "add", "arguments": "{\"a\": 1}" } }]));
    let prompt = worker.apply_template(&Input::chat(vec![message])).expect("a prompt");
    assert_eq!(prompt, "{\"a\": 1}.");
}
