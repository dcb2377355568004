//! Prefix reuse on the demo models, through the worker contract: the same answers as from a worker that has just started.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use downshift_engine::InProcess;
use downshift_worker::{
    Completion, Delta, Device, Input, Launcher, Message, ModelSpec, Placement, Request, RequestId, SamplingParams, Worker,
};

const DEMO_MODELS: [&str; 3] = ["demo-small.gguf", "demo-middle.gguf", "demo-large.gguf"];

fn launch(file: &str) -> Arc<dyn Worker> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models").join(file);
    let spec = ModelSpec { parallel: 4, ..ModelSpec::from_path(path) };
    let placement = Placement { device: Device::Cpu, context: 1024, threads: 2 };
    InProcess.launch(&spec, &placement, &|_, _| {}).expect("a demo model launches")
}

fn ask(worker: &dyn Worker, id: u64, messages: &[Message]) -> (String, Vec<u32>, Completion) {
    let request = Request {
        max_tokens: Some(48),
        sampling: SamplingParams { temperature: Some(0.0), ..SamplingParams::default() },
        ..Request::new(RequestId(id), Input::chat(messages.to_vec()))
    };
    let (mut text, mut ids) = (String::new(), Vec::new());
    let completion = worker.generate(&request, &mut |delta: Delta| {
        text.push_str(&delta.text);
        ids.extend(delta.token_ids);
        ControlFlow::Continue(())
    });
    (text, ids, completion.expect("an answer"))
}

const QUESTIONS: [&str; 4] = ["What is 17 + 25?", "Reverse the word: stone", "Sort these numbers: 9 4 7 1 8 2", "And what is 3 * 8?"];

#[test]
fn a_conversation_is_answered_token_for_token_as_by_a_fresh_worker() {
    for file in DEMO_MODELS {
        let (warm, mut messages) = (launch(file), Vec::new());
        for (turn, question) in QUESTIONS.into_iter().enumerate() {
            messages.push(Message::user(question));
            let (text, ids, completion) = ask(&*warm, turn as u64, &messages);
            let (fresh_text, fresh_ids, fresh) = ask(&*launch(file), 0, &messages);
            assert_eq!((&text, ids), (&fresh_text, fresh_ids), "{file}, turn {turn}");
            assert_eq!(fresh.timings.cache_n, 0);
            assert_eq!(completion.timings.cache_n + completion.timings.prompt_n, completion.usage.prompt_tokens);
            if turn > 0 {
                assert!(completion.timings.cache_n > 0, "{file}, turn {turn}: nothing was reused");
            }
            messages.push(Message::assistant(text));
        }
        let (_, _, again) = ask(&*warm, 9, &messages[..7]);
        assert!(again.timings.prompt_n < 32, "{file}: {} tokens computed again", again.timings.prompt_n);
    }
}

#[test]
fn a_question_asked_again_gets_the_same_answer() {
    let held_out = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/demo_heldout.jsonl");
    let held_out = std::fs::read_to_string(held_out).expect("held-out questions");
    for file in DEMO_MODELS {
        let warm = launch(file);
        for (idx, line) in held_out.lines().step_by(4).enumerate() {
            let case: serde_json::Value = serde_json::from_str(line).expect("a case");
            let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).expect("messages");
            let fresh = ask(&*launch(file), 0, &messages).1;
            for round in 0..2 {
                assert_eq!(ask(&*warm, (idx * 2 + round) as u64, &messages).1, fresh, "{file}: {messages:?}, round {round}");
            }
        }
    }
}

#[test]
fn requests_at_the_same_time_get_the_answers_they_get_alone() {
    for file in DEMO_MODELS {
        let worker = launch(file);
        let conversation = |question: &str| vec![Message::user(question)];
        let alone: Vec<_> = QUESTIONS.iter().map(|question| ask(&*launch(file), 0, &conversation(question)).1).collect();
        for round in 0..2 {
            let together: Vec<_> = thread::scope(|scope| {
                let start = |(idx, question)| {
                    let (worker, messages) = (&worker, conversation(question));
                    scope.spawn(move || ask(&**worker, round * 10 + idx as u64, &messages))
                };
                let asked: Vec<_> = QUESTIONS.iter().enumerate().map(|(idx, &question)| start((idx, question))).collect();
                asked.into_iter().map(|answer| answer.join().expect("no panic")).collect()
            });
            for ((_, ids, _), alone) in together.iter().zip(&alone) {
                assert_eq!(ids, alone, "{file}, round {round}");
            }
        }
    }
}
