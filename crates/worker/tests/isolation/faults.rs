//! Faults on demand: cause x stage x isolated or in process, each with the failure that the caller gets.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use downshift_worker::{Delta, Failure, FailureKind, Faulty, Launcher, Stage, Worker};

use crate::fake::{Fake, collect, request, spec};
use crate::{PLACEMENT, eventually, isolated, start};

/// The fake under `rules`, in this process and in children.
fn both(rules: &str, check: impl Fn(&str, Arc<dyn Launcher>)) {
    check("in process", Arc::new(Faulty::new(Fake, rules.parse().unwrap())));
    check("isolated", Arc::new(isolated().env("DOWNSHIFT_FAULT", rules)));
}

/// The failure and what was said before it; panics that reach the caller are failures as the scheduler makes them.
fn ask(worker: &dyn Worker, words: &str) -> (Result<(), Failure>, String) {
    let mut text = String::new();
    let outcome = catch_unwind(AssertUnwindSafe(|| worker.generate(&request(1, words), &mut collect(&mut text))));
    let outcome = outcome.unwrap_or_else(|_| Err(Failure::new(FailureKind::Panicked, Stage::Decode, "")));
    (outcome.map(drop), text)
}

fn load(launcher: &dyn Launcher) -> Result<Arc<dyn Worker>, Failure> {
    catch_unwind(AssertUnwindSafe(|| launcher.launch(&spec("m"), &PLACEMENT, &|_, _| {})))
        .unwrap_or_else(|_| Err(Failure::new(FailureKind::Panicked, Stage::Load, "")))
}

const EVERYWHERE: [(&str, FailureKind); 7] = [
    ("oom", FailureKind::OutOfMemory),
    ("oom_kill", FailureKind::OutOfMemory),
    ("segv", FailureKind::Crashed),
    ("abort", FailureKind::Crashed),
    ("bus", FailureKind::Crashed),
    ("panic", FailureKind::Panicked),
    ("device", FailureKind::Device),
];

#[test]
fn faults_at_load_fail_the_load_once_and_the_next_one_succeeds() {
    let at_load = [("corrupt", FailureKind::Corrupt), ("unsupported", FailureKind::UnsupportedArchitecture)];
    for (fault, kind) in at_load.into_iter().chain(EVERYWHERE) {
        both(&format!("other@load:hang;m@load:{fault}"), |place, launcher| {
            let failure = load(launcher.as_ref()).err().unwrap_or_else(|| panic!("{fault} {place}"));
            assert_eq!((failure.kind, failure.stage), (kind, Stage::Load), "{fault} {place}: {failure}");
            let worker = load(launcher.as_ref()).unwrap_or_else(|failure| panic!("{fault} {place} again: {failure}"));
            assert_eq!(ask(worker.as_ref(), "a b"), (Ok(()), "a b ".to_owned()));
        });
    }
}

#[test]
fn faults_at_prefill_fail_before_anything_is_said() {
    for (fault, kind) in EVERYWHERE.into_iter().chain([("nan", FailureKind::NonFinite)]) {
        both(&format!("m@prefill:{fault}"), |place, launcher| {
            let (outcome, text) = ask(start(launcher.as_ref(), "m").as_ref(), "a b");
            assert_eq!((outcome.unwrap_err().kind, text.as_str()), (kind, ""), "{fault} {place}");
            assert_eq!(ask(start(launcher.as_ref(), "m").as_ref(), "a b"), (Ok(()), "a b ".to_owned()), "{fault} {place}");
        });
    }
}

#[test]
fn faults_at_a_token_fail_right_after_it() {
    for (fault, kind) in EVERYWHERE.into_iter().chain([("nan", FailureKind::NonFinite)]) {
        both(&format!("m@token=2:{fault}"), |place, launcher| {
            let (outcome, text) = ask(start(launcher.as_ref(), "m").as_ref(), "a b c");
            let failure = outcome.unwrap_err();
            assert_eq!((failure.kind, failure.stage, text.as_str()), (kind, Stage::Decode, "a b "), "{fault} {place}: {failure}");
            assert_eq!(ask(start(launcher.as_ref(), "m").as_ref(), "a b c"), (Ok(()), "a b c ".to_owned()), "{fault} {place}");
        });
    }
}

#[test]
fn with_a_bang_a_fault_comes_back_in_every_life() {
    both("m@token=1:segv!", |place, launcher| {
        for life in 0..3 {
            let (outcome, text) = ask(start(launcher.as_ref(), "m").as_ref(), "a b");
            assert_eq!((outcome.unwrap_err().kind, text.as_str()), (FailureKind::Crashed, "a "), "{place} {life}");
        }
    });
}

#[test]
fn what_hangs_hangs_until_it_is_given_up() {
    both("m@load:hang;m@prefill:hang;m@token=1:hang", |place, launcher| {
        thread::scope(|scope| {
            let loading = scope.spawn(|| load(launcher.as_ref()));
            eventually("the load can be given up", || {
                launcher.abort("m");
                loading.is_finished()
            });
            let failure = loading.join().unwrap().err().unwrap();
            assert_eq!((failure.kind, failure.stage), (FailureKind::Stalled, Stage::Load), "{place}: {failure}");
        });
    });
    for (rule, said) in [("m@prefill:hang", ""), ("m@token=1:hang", "a ")] {
        both(rule, |place, launcher| {
            let worker = start(launcher.as_ref(), "m");
            let text = Mutex::new(String::new());
            let mut sink = |delta: Delta| {
                text.lock().unwrap().push_str(&delta.text);
                ControlFlow::Continue(())
            };
            thread::scope(|scope| {
                let asking = scope.spawn(|| worker.generate(&request(1, "a b"), &mut sink));
                eventually("it has come to where it hangs", || *text.lock().unwrap() == said);
                eventually("it can be killed", || {
                    worker.kill();
                    asking.is_finished()
                });
                assert!(asking.join().unwrap().is_err(), "{place} {rule}");
            });
            assert_eq!(*text.lock().unwrap(), said, "{place} {rule}");
        });
    }
}

#[test]
fn slow_tokens_are_late_and_right() {
    both("m@token=1:slow", |place, launcher| {
        let worker = start(launcher.as_ref(), "m");
        let before = Instant::now();
        assert_eq!(ask(worker.as_ref(), "a b"), (Ok(()), "a b ".to_owned()), "{place}");
        assert!(before.elapsed() >= Duration::from_millis(500), "{place}");
        assert_eq!(ask(worker.as_ref(), "c d"), (Ok(()), "c d ".to_owned()), "{place}");
    });
}

#[test]
fn a_rule_that_does_not_parse_ends_the_child_with_the_remedy() {
    let failure = load(&isolated().env("DOWNSHIFT_FAULT", "m@load:boom")).err().unwrap();
    assert_eq!((failure.kind, failure.stage), (FailureKind::Crashed, Stage::Load));
    assert!(failure.message.contains("unknown fault `boom`"), "{failure}");
}
