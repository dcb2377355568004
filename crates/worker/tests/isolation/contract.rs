//! The same promises over a launcher in memory and over child processes.

use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::thread;

use downshift_worker::{
    Delta, Device, DeviceMemory, FailureKind, Input, Launcher, Message, Prompt, Request, RequestId, ResponseFormat, Role, SamplingParams,
    Stage,
};

use crate::fake::{self, Fake, collect, request, spec};
use crate::{PLACEMENT, eventually, isolated, start};

/// Runs `check` over both launchers.
fn both(check: impl Fn(&dyn Launcher)) {
    check(&Fake);
    check(&isolated());
}

#[test]
fn an_answer_arrives_whole_and_in_order() {
    both(|launcher| {
        let worker = start(launcher, "m");
        let mut deltas = Vec::new();
        let mut sink = |delta: Delta| {
            deltas.push(delta);
            ControlFlow::Continue(())
        };
        let completion = worker.generate(&request(1, "one zw\u{f6}lf \u{1f600}"), &mut sink).unwrap();
        assert_eq!(completion.usage.completion_tokens, 3);
        assert_eq!(completion.timings.prompt_ms, 0.1);
        let texts: Vec<_> = deltas.iter().map(|delta| delta.text.as_str()).collect();
        assert_eq!(texts, ["one ", "zw\u{f6}lf ", "\u{1f600} "]);
        assert_eq!(deltas[2].token_ids, [2]);
    });
}

#[test]
fn everything_else_a_worker_does_is_the_same() {
    both(|launcher| {
        let worker = start(launcher, "m");
        let embedded = worker.embed(&[Prompt::Text("ab".to_owned()), Prompt::Tokens(Vec::new())]).unwrap();
        assert_eq!(embedded.prompt_tokens, 2);
        assert_eq!(
            embedded.vectors,
            [[2.0, 0.1, f32::NEG_INFINITY, -0.0, f32::MIN_POSITIVE], [0.0, 0.1, f32::NEG_INFINITY, 0.0, f32::MIN_POSITIVE]]
        );
        assert_eq!(worker.tokenize("hi", true).unwrap(), [104, 105, 256]);
        assert_eq!(worker.detokenize(&[104, 105, 255]).unwrap(), "hi\u{fffd}");
        assert_eq!(worker.detokenize(&[300]).unwrap_err().kind, FailureKind::InvalidRequest);
        let chat = Input::chat(vec![Message::system("be brief"), Message::user("hi")]);
        assert_eq!(worker.apply_template(&chat).unwrap(), "System:\"be brief\" User:\"hi\" ");
        let gap = Input::Infill { prefix: Prompt::Text("a \u{1f600}".to_owned()), suffix: "\0b".to_owned() };
        assert_eq!(worker.apply_template(&gap).unwrap(), "a \u{1f600}_\0b");
        let stats = worker.stats();
        assert_eq!((stats.device, stats.context, stats.active_requests), (Device::Cpu, 512, 0));
        worker.set_threads(5);
        let mut text = String::new();
        worker.generate(&request(1, "threads"), &mut collect(&mut text)).unwrap();
        assert_eq!(text, "5");
    });
}

#[test]
fn inspecting_counting_and_devices_are_the_same() {
    both(|launcher| {
        assert_eq!(launcher.inspect(&spec("m")), Fake.inspect(&spec("m")));
        let missing = launcher.inspect(&spec("missing")).unwrap_err();
        assert_eq!((missing.kind, missing.message.as_str()), (FailureKind::Missing, "there is no file /nowhere/fake.gguf"));
        assert_eq!(launcher.count(&spec("m"), &request(1, "a b c")), Ok(3));
        let ids = fake::request(1, "");
        let ids = downshift_worker::Request { input: Input::Completion(Prompt::Tokens(vec![1])), ..ids };
        assert_eq!(launcher.count(&spec("m"), &ids).unwrap_err().kind, FailureKind::CannotDo);
        let gpu = DeviceMemory { device: Device::Cuda(3), own_bytes: Some(5) };
        assert_eq!(launcher.devices(), [gpu, DeviceMemory { device: Device::Cpu, own_bytes: None }]);
    });
}

#[test]
fn a_load_reports_progress_and_its_failure() {
    both(|launcher| {
        let seen = Mutex::new(Vec::new());
        launcher.launch(&spec("m"), &PLACEMENT, &|done, total| seen.lock().unwrap().push((done, total))).unwrap();
        // Reports that wait may be merged; the last one is always told.
        assert_eq!(seen.lock().unwrap().last(), Some(&(64, 64)));
        let failure = launcher.launch(&spec("corrupt"), &PLACEMENT, &|_, _| {}).err().unwrap();
        assert_eq!(
            (failure.kind, failure.stage, failure.message.as_str()),
            (FailureKind::Corrupt, Stage::Load, "tensor `x` overlaps tensor `y`")
        );
    });
}

#[test]
fn two_requests_run_side_by_side() {
    both(|launcher| {
        let worker = start(launcher, "m");
        // Each waits for the other in the middle of its answer.
        let texts: Vec<String> = thread::scope(|scope| {
            let threads = [(1, "a meet b"), (2, "c meet d")].map(|(id, words)| {
                let worker = &worker;
                scope.spawn(move || {
                    let mut text = String::new();
                    worker.generate(&request(id, words), &mut collect(&mut text)).unwrap();
                    text
                })
            });
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(texts, ["a meet b ", "c meet d "]);
    });
}

#[test]
fn a_cancelled_request_ends_and_its_neighbour_goes_on() {
    both(|launcher| {
        let worker = start(launcher, "m");
        thread::scope(|scope| {
            let (said, hears) = channel();
            let waits = scope.spawn(|| {
                let mut sink = move |_: Delta| said.send(()).map_or(ControlFlow::Break(()), |()| ControlFlow::Continue(()));
                worker.generate(&request(1, "a wait b"), &mut sink)
            });
            hears.recv().unwrap();
            let mut text = String::new();
            worker.generate(&request(2, "c"), &mut collect(&mut text)).unwrap();
            assert_eq!(text, "c ");
            worker.cancel(RequestId(99));
            worker.cancel(RequestId(1));
            assert_eq!(waits.join().unwrap().unwrap_err().kind, FailureKind::Cancelled);
        });
        eventually("the request is gone", || worker.stats().active_requests == 0);
    });
}

#[test]
fn a_client_that_leaves_ends_an_endless_answer() {
    both(|launcher| {
        let worker = start(launcher, "m");
        let mut taken = 0;
        let mut sink = |_: Delta| {
            taken += 1;
            if taken == 1000 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        assert_eq!(worker.generate(&request(1, "forever"), &mut sink).unwrap_err().kind, FailureKind::Cancelled);
        assert_eq!(taken, 1000);
        let mut text = String::new();
        worker.generate(&request(2, "next"), &mut collect(&mut text)).unwrap();
        assert_eq!(text, "next ");
    });
}

#[test]
fn a_failure_while_generating_keeps_its_kind_and_what_was_sent() {
    both(|launcher| {
        let worker = start(launcher, "m");
        let mut text = String::new();
        let failure = worker.generate(&request(1, "a b nan c"), &mut collect(&mut text)).unwrap_err();
        assert_eq!((failure.kind, failure.stage), (FailureKind::NonFinite, Stage::Decode));
        assert_eq!(text, "a b ");
    });
}

#[test]
fn values_that_json_has_no_word_for_are_replaced_or_refused() {
    let launcher = isolated();
    let worker = start(&launcher, "m");
    let with = |sampling| downshift_worker::Request { sampling, ..request(1, "a") };
    let forbid = SamplingParams { logit_bias: vec![(7, f32::NEG_INFINITY)], ..SamplingParams::default() };
    worker.generate(&with(forbid), &mut collect(&mut String::new())).unwrap();
    let nonsense = SamplingParams { temperature: Some(f32::NAN), ..SamplingParams::default() };
    let failure = worker.generate(&with(nonsense), &mut collect(&mut String::new())).unwrap_err();
    assert_eq!((failure.kind, failure.stage), (FailureKind::InvalidRequest, Stage::Admission));
    assert_eq!(failure.message, "`temperature` is NaN, which is no finite number");
}

#[test]
fn requests_too_deep_or_too_long_for_a_frame_are_refused_and_the_worker_lives() {
    let launcher = isolated();
    let worker = start(&launcher, "m");
    let mut deep = serde_json::Value::Null;
    for _ in 0..120 {
        deep = serde_json::Value::Array(vec![deep]);
    }
    let mut message = Message::new(Role::User, "");
    message.content = deep;
    let format = ResponseFormat::JsonSchema(message.content.clone());
    let failure = worker.generate(&Request { format, ..request(1, "x") }, &mut collect(&mut String::new())).unwrap_err();
    assert_eq!((failure.kind, failure.stage), (FailureKind::InvalidRequest, Stage::Admission));
    let deep = Input::chat(vec![message]);
    assert_eq!(worker.apply_template(&deep).unwrap_err().kind, FailureKind::InvalidRequest);
    let long = request(1, &"x".repeat(65 << 20));
    let failure = worker.generate(&long, &mut collect(&mut String::new())).unwrap_err();
    assert_eq!((failure.kind, failure.stage), (FailureKind::InvalidRequest, Stage::Admission));
    worker.generate(&request(2, "still here"), &mut collect(&mut String::new())).unwrap();
}

#[test]
fn values_just_shallow_enough_arrive() {
    let launcher = isolated();
    let worker = start(&launcher, "m");
    let mut deep = serde_json::json!("x");
    for _ in 0..95 {
        deep = serde_json::Value::Array(vec![deep]);
    }
    let mut message = Message::new(Role::User, "");
    message.content = deep;
    let text = worker.apply_template(&Input::chat(vec![message])).unwrap();
    assert_eq!(text.matches('[').count(), 95);
}

#[test]
fn a_reader_that_takes_nothing_stops_the_writer() {
    let launcher = isolated();
    let worker = start(&launcher, "m");
    let mut sink = |_: Delta| {
        eventually("the child has written what it may", || worker.stats().steps >= 256);
        for _ in 0..100 {
            // Other calls are answered meanwhile, and give an unbounded writer all the time it needs.
            worker.tokenize("x", false).unwrap();
        }
        ControlFlow::Break(())
    };
    assert_eq!(worker.generate(&request(1, "forever"), &mut sink).unwrap_err().kind, FailureKind::Cancelled);
    let steps = worker.stats().steps;
    assert!((256..=258).contains(&steps), "{steps} words for one that was taken");
}
