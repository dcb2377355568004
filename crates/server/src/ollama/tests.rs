use std::time::Instant;

use downshift_scheduler::Answer;
use downshift_worker::{Completion, Delta, Device, FinishReason, Timings, ToolCallDelta, Usage};
use serde_json::{Value, json};

use super::generate::{Lines, Shape};
use super::models::parameter_size;
use crate::error::ApiError;
use crate::gather::Gathered;
use crate::narration::{Frame, Narrator};

fn lines(shape: Shape) -> Lines {
    Lines { shape, model: "asked".to_owned(), began: Instant::now(), gathered: Gathered::default(), notice: None }
}

fn answer(finish_reason: FinishReason) -> Answer {
    let usage = Usage { prompt_tokens: 7, completion_tokens: 2 };
    let timings = Timings { prompt_ms: 1.5, predicted_ms: 2.0, ..Timings::default() };
    let output = Completion { finish_reason, usage, timings, stop_index: None };
    Answer { model: "large".to_owned(), device: Device::Cpu, output, retries: 0, fallback: None }
}

fn values(frames: Vec<Frame>) -> Vec<Value> {
    let value = |frame| match frame {
        Frame::Line(mut line) => {
            for changing in ["created_at", "total_duration", "load_duration"] {
                line.as_object_mut().expect("a line is an object").shift_remove(changing);
            }
            line
        }
        other => panic!("{other:?} is no line"),
    };
    frames.into_iter().map(value).collect()
}

fn text(text: &str) -> Delta {
    Delta { text: text.to_owned(), ..Delta::default() }
}

#[test]
fn a_chat_is_told_in_lines_and_the_first_says_what_failed_before() {
    let mut told = lines(Shape::Chat);
    assert!(told.begin("large", Some(json!({"requested": "asked"}))).is_empty());
    let first = values(told.piece(text("4"), Vec::new()));
    let message = json!({"role": "assistant", "content": "4"});
    assert_eq!(first, [json!({"model": "large", "done": false, "message": message, "fallback": {"requested": "asked"}})]);
    assert!(told.piece(text(""), Vec::new()).is_empty(), "nothing to show is no line");
    let second = values(told.piece(text("2"), Vec::new()));
    assert_eq!(second[0]["fallback"], Value::Null);
    let last = values(told.end(&answer(FinishReason::Length)));
    let counts = (&last[0]["done"], &last[0]["done_reason"], &last[0]["eval_count"], &last[0]["prompt_eval_duration"]);
    assert_eq!(counts, (&json!(true), &json!("length"), &json!(2), &json!(1_500_000)));
}

#[test]
fn tool_calls_come_whole_with_their_arguments_as_an_object() {
    let mut told = lines(Shape::Chat);
    let call = |name: Option<&str>, arguments: &str| Delta {
        tool_calls: vec![ToolCallDelta { index: 0, name: name.map(str::to_owned), arguments: arguments.to_owned() }],
        ..Delta::default()
    };
    assert!(told.piece(call(Some("weather"), "{\"city\":"), Vec::new()).is_empty());
    assert!(told.piece(call(None, " \"Rome\"}"), Vec::new()).is_empty());
    let frames = values(told.end(&answer(FinishReason::ToolCalls)));
    let function = &frames[0]["message"]["tool_calls"][0]["function"];
    assert_eq!(*function, json!({"name": "weather", "arguments": {"city": "Rome"}}));
    assert_eq!((&frames[1]["done"], &frames[1]["done_reason"]), (&json!(true), &json!("stop")));
}

#[test]
fn a_generated_text_stands_beside_its_thoughts() {
    let mut told = lines(Shape::Generate);
    let thought = Delta { reasoning: "hm".to_owned(), ..Delta::default() };
    assert_eq!(values(told.piece(thought, Vec::new())), [json!({"model": "asked", "done": false, "response": "", "thinking": "hm"})]);
}

#[test]
fn an_answer_that_breaks_off_ends_with_an_error_and_not_as_done() {
    let frames = values(lines(Shape::Chat).broken(&ApiError::internal("the worker crashed")));
    assert_eq!(frames, [json!({"error": "the worker crashed"})]);
}

#[test]
fn numbers_of_parameters_are_written_as_people_do() {
    let written = [7_615_616_512, 494_032_768, 22_000, 512].map(parameter_size);
    assert_eq!(written, ["7.6B", "494M", "22K", "512"]);
}
