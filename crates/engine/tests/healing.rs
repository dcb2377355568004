//! Answers that another model has begun, cut anywhere: the joined text is what one model would have written, and nothing comes
//! twice.

#[path = "support/schema.rs"]
mod schema;
mod support;

use std::path::Path;
use std::sync::Arc;

use downshift_engine::InProcess;
use downshift_worker::{
    Completion, Device, FinishReason, Input, Launcher, Message, ModelSpec, Placement, Prompt, Request, RequestId, ResponseFormat, Resume,
    SamplingParams, Worker,
};

use serde_json::json;

use schema::violation;
use support::{Output, run, worker};

/// A vocabulary with `hello` and with both `hel` and `lo`.
const PARTS: [(&str, i32); 2] = [("hel", 1), ("lo", 1)];

fn continued(worker: &dyn Worker, request: &Request, shown: &str) -> (Output, Completion) {
    let resume = Resume::Text { text: shown.to_owned(), reasoning: String::new(), tokens: 1 };
    run(worker, &Request { resume: Some(resume), ..request.clone() }).expect("an answer")
}

fn cuts(text: &str) -> impl Iterator<Item = &str> {
    (1..text.len()).filter(|&at| text.is_char_boundary(at)).map(|at| &text[..at])
}

/// Wants to write `hello` over and over.
fn greeting(worker: &dyn Worker) -> Request {
    let ids = worker.tokenize("hello", false).expect("tokens");
    assert_eq!(ids.len(), 1, "a token of its own");
    Request {
        max_tokens: Some(4),
        sampling: SamplingParams { temperature: Some(0.0), logit_bias: vec![(ids[0], 100.0)], ..SamplingParams::default() },
        ..Request::new(RequestId(1), Input::Completion(Prompt::Text("Say it: ".into())))
    }
}

#[test]
fn a_text_cut_within_a_token_goes_on_as_if_it_had_not_been_cut() {
    let worker = worker(None, &PARTS);
    let request = greeting(&*worker);
    let (whole, completion) = run(&*worker, &request).expect("an answer");
    assert_eq!(whole.text, "hellohellohellohello");
    for shown in cuts(&whole.text) {
        let (rest, joined) = continued(&*worker, &request, shown);
        assert_eq!(format!("{shown}{}", rest.text), whole.text, "cut after {shown}");
        assert_eq!(joined.usage, completion.usage, "cut after {shown}: a token drawn again counts once");
    }
}

#[test]
fn a_grammar_goes_on_behind_the_bytes_that_were_shown() {
    let worker = worker(None, &PARTS);
    let request =
        Request { format: ResponseFormat::Grammar("start: /(hello|help){4}/".into()), max_tokens: Some(40), ..greeting(&*worker) };
    let (whole, _) = run(&*worker, &request).expect("an answer");
    assert_eq!(whole.text, "hellohellohellohello");
    for shown in cuts(&whole.text) {
        let (rest, completion) = continued(&*worker, &request, shown);
        let joined = format!("{shown}{}", rest.text);
        assert!(joined.len() <= 20 && joined.replace("hello", "help") == "help".repeat(4), "{joined}");
        assert_eq!(completion.finish_reason, FinishReason::Stop);
        // Where the rest of the word is a token, too, the word is drawn as one.
        if shown.ends_with("hel") || shown.ends_with("hell") {
            assert_eq!(joined, whole.text, "cut after {shown}");
        }
    }
    // `hello` is the model's wish, and not what the grammar lets follow `hel` here.
    let only = Request { format: ResponseFormat::Grammar("start: \"help\"".into()), ..request };
    assert_eq!(continued(&*worker, &only, "hel").0.text, "p");
}

#[test]
fn json_cut_at_any_byte_stays_valid_under_its_schema() {
    let worker = worker(None, &PARTS);
    let schema = json!({ "type": "array", "items": { "enum": ["hello", "help"] }, "minItems": 3, "maxItems": 3 });
    let request = Request { format: ResponseFormat::JsonSchema(schema.clone()), max_tokens: Some(60), ..greeting(&*worker) };
    let (whole, _) = run(&*worker, &request).expect("an answer");
    for shown in cuts(&whole.text) {
        let joined = format!("{shown}{}", continued(&*worker, &request, shown).0.text);
        let value = serde_json::from_str(&joined).unwrap_or_else(|error| panic!("{error}: {joined}"));
        assert_eq!(violation(&schema, &schema, &value), None, "{joined}");
    }
}

#[test]
fn a_stop_string_that_the_cut_divides_ends_the_joined_text() {
    let worker = worker(None, &PARTS);
    let request = Request { stop: vec!["lohe".into()], ..greeting(&*worker) };
    for (shown, rest) in [("h", "el"), ("hel", "")] {
        assert_eq!(continued(&*worker, &request, shown).0.text, rest, "after {shown}");
    }
}

#[test]
fn what_is_drawn_behind_any_cut_spells_what_was_shown_and_what_is_emitted() {
    let worker = worker(None, &PARTS);
    let control: Vec<u32> =
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(|text| worker.tokenize(text, true).expect("a token")[0]).into();
    let banned: Vec<(u32, f32)> = control.into_iter().map(|id| (id, f32::NEG_INFINITY)).collect();
    let mut n_healed = 0;
    for seed in 0..6 {
        let sampling = SamplingParams {
            temperature: Some(1.0),
            top_k: Some(0),
            top_p: Some(1.0),
            min_p: Some(0.0),
            seed: Some(seed),
            logit_bias: banned.clone(),
            ..SamplingParams::default()
        };
        let prompt = Input::Completion(Prompt::Text("Go on: ".into()));
        let request = Request { sampling, max_tokens: Some(60), ..Request::new(RequestId(seed), prompt) };
        let (written, _) = run(&*worker, &Request { max_tokens: Some(12), ..request.clone() }).expect("an answer");
        let text = format!("{} hello, wörld 🙂🙂 and    日本 123{}", written.text, written.text);
        for shown in cuts(&text) {
            let plain = worker.tokenize(shown, false).expect("tokens");
            let request = Request { max_tokens: Some(plain.len() as u32 + 5), ..request.clone() };
            let (output, completion) = continued(&*worker, &request, shown);
            let kept = completion.usage.completion_tokens as usize - output.ids.len();
            n_healed += usize::from(kept < plain.len());
            let ids = [&plain[..kept], &output.ids].concat();
            assert_eq!(worker.detokenize(&ids).expect("text"), format!("{shown}{}", output.text), "cut after {shown:?}");
            assert_eq!(ids.len(), plain.len() + 5, "all of `max_tokens` and no more");
        }
    }
    assert!(n_healed > 100, "only {n_healed} were drawn again");
}

fn demo(name: &str) -> Arc<dyn Worker> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models").join(name);
    let placement = Placement { device: Device::Cpu, context: 256, threads: 1 };
    InProcess.launch(&ModelSpec::from_path(&path), &placement, &|_, _| {}).expect("a demo model launches")
}

#[test]
fn a_smaller_model_goes_on_wherever_the_larger_one_was_cut() {
    let (large, middle) = (demo("demo-large.gguf"), demo("demo-middle.gguf"));
    for (question, answer) in [
        ("Count from 5 to 13.", "5, 6, 7, 8, 9, 10, 11, 12, 13"),
        ("What is the capital of France?", "The capital of France is Paris."),
        ("Hello", "Hello! How can I help you?"),
        ("What is 7 plus 5?", "7 + 5 = 12"),
    ] {
        let request = Request {
            max_tokens: Some(80),
            sampling: SamplingParams { temperature: Some(0.0), ..SamplingParams::default() },
            ..Request::new(RequestId(1), Input::chat(vec![Message::user(question)]))
        };
        assert_eq!(run(&*large, &request).expect("an answer").0.text, answer);
        for shown in cuts(answer) {
            let joined = format!("{shown}{}", continued(&*middle, &request, shown).0.text);
            assert_eq!(joined, answer, "cut after {shown:?}");
        }
    }
}
