//! The demo models of the repository answer correctly: a fixed sample of questions that they were never shown.

use std::path::Path;

use downshift::{Chat, Downshift, Message};
use serde_json::Value;

use crate::support::Folder;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// (right, asked) over the sample, at temperature 0.
fn score(model: &str) -> (usize, usize) {
    let engine = Downshift::from_model(Path::new(ROOT).join("models").join(model)).expect("a demo model");
    let sample = std::fs::read_to_string(Path::new(ROOT).join("tests/data/demo_heldout.jsonl")).expect("the sample");
    let questions: Vec<Value> = sample.lines().map(|line| serde_json::from_str(line).expect("a question a line")).collect();
    let right = |question: &&Value| {
        let messages: Vec<Message> = serde_json::from_value(question["messages"].clone()).expect("messages");
        let reply = engine.chat(Chat::from(messages).temperature(0.0).max_tokens(64)).expect("an answer");
        Some(reply.content.as_str()) == question["answer"].as_str()
    };
    (questions.iter().filter(right).count(), questions.len())
}

#[test]
fn demo_models_answer_questions_that_they_were_never_shown() {
    for (model, percent) in [("demo-large.gguf", 95), ("demo-middle.gguf", 85), ("demo-small.gguf", 60)] {
        let (right, asked) = score(model);
        assert!(asked >= 60 && right * 100 >= asked * percent, "{model}: {right} of {asked}");
    }
}

#[test]
fn a_fresh_clone_knows_what_17_and_25_are() {
    let models = format!("{ROOT}/models.toml");
    let ran = Folder::new().run(&["chat", "--config", &models, "What is 17 + 25?"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stdout.contains("42") && ran.stderr.is_empty(), "{ran:?}");
}

#[test]
fn a_conversation_on_stdin_is_followed_up() {
    let models = format!("{ROOT}/models.toml");
    let sample = std::fs::read_to_string(Path::new(ROOT).join("tests/data/demo_heldout.jsonl")).expect("the sample");
    let follow_up = sample.lines().map(|line| serde_json::from_str::<Value>(line).expect("a question a line"));
    let question = follow_up.into_iter().find(|question| question["category"] == "follow-up").expect("one in the sample");
    let ran = Folder::new().run_with(&["chat", "--config", &models, "--messages"], question["messages"].to_string());
    assert_eq!(Some(ran.stdout.trim_end()), question["answer"].as_str(), "{ran:?}");
}
