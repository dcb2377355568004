//! Promises about the chain: which model answers, what the report says, and what is remembered.

use std::time::Duration;

use crate::support::*;
use downshift_scheduler::{ModelState, ModelVerdict, Options, RefusedClass};
use downshift_worker::{Device, DeviceMemory, FailureKind as K, Input, ModelKind, Prompt, Request, Stage};

#[test]
fn the_first_model_answers_when_nothing_fails() {
    let fake = Fake::new();
    let scheduler = fake.scheduler(ABC);
    let outcome = ask(&scheduler, &[], streamed());
    assert_eq!((outcome.model(), outcome.text.as_str()), ("a", "a| a0 a1 a2 "));
    assert_eq!(outcome.result.unwrap().fallback, None);
    ask(&scheduler, &[], streamed());
    assert_eq!(fake.count_of("load a on cpu with 4096"), 1, "the second request finds it loaded");
}

/// Every cause at every stage, streamed and not: a whole answer, or exactly one honest error.
#[test]
fn every_cause_at_every_stage_ends_in_a_whole_answer_or_one_error() {
    let surfaced = [K::InvalidRequest];
    let again = [K::OutOfMemory, K::Crashed];
    let next = [
        K::Missing,
        K::Truncated,
        K::Corrupt,
        K::UnsupportedArchitecture,
        K::UnsupportedType,
        K::BrokenTokenizer,
        K::BrokenTemplate,
        K::NonFinite,
        K::Device,
        K::Protocol,
        K::CannotDo,
    ];
    for kind in surfaced.into_iter().chain(again).chain(next) {
        for (stage, tokens) in [("inspect", 0), ("load", 0), ("prefill", 0), ("decode", 2)] {
            for stream in [true, false] {
                let fake = Fake::new();
                match stage {
                    "inspect" => fake.inspect_fails("a", [kind]),
                    "load" => fake.load("a", [Load::Fail(kind)]),
                    _ => fake.act("a", [after(tokens, Then::Fail(kind))]),
                }
                let scheduler = fake.scheduler(&format!("[settings]\non_stream_failure = \"error\"\n{ABC}"));
                let outcome = ask(&scheduler, &[], Options { stream, ..Options::default() });
                let cell = format!("{kind:?} at {stage}, streamed: {stream}");
                assert_eq!(outcome.attempts(), format!("a:{}", kind.as_str()), "{cell}");
                if surfaced.contains(&kind) || (stream && tokens > 0) {
                    assert_eq!(outcome.kind(), kind.as_str(), "{cell}");
                    let shown = if stream && tokens > 0 { "a| a0 a1 " } else { "" };
                    assert_eq!(outcome.text, shown, "{cell}");
                } else {
                    let expected = if again.contains(&kind) { "a" } else { "b" };
                    assert_eq!(outcome.model(), expected, "{cell}");
                    assert_eq!(outcome.text, format!("{expected}| {expected}0 {expected}1 {expected}2 "), "{cell}");
                }
            }
        }
    }
}

#[test]
fn a_panic_anywhere_is_a_failed_attempt() {
    for (load, act) in [(Load::Panic, after(3, Then::End)), (Load::Ok, after(0, Then::Panic))] {
        let fake = Fake::new();
        fake.load("a", [load.clone(), load]);
        fake.act("a", [act.clone(), act]);
        let outcome = ask(&fake.scheduler(ABC), &[], streamed());
        if outcome.attempts() == "a:panicked a:panicked" {
            assert_eq!(outcome.model(), "b");
            assert!(outcome.failed.iter().all(|attempt| attempt.stage < Stage::Decode), "{outcome:?}");
        } else {
            panic!("{outcome:?}");
        }
    }
}

#[test]
fn when_all_fail_every_attempt_is_listed_and_the_class_follows_the_causes() {
    let fake = Fake::new();
    fake.inspect_fails("a", [K::Missing]);
    fake.load("b", [Load::Fail(K::Corrupt)]);
    fake.act("c", [after(0, Then::Fail(K::NonFinite))]);
    let outcome = ask(&fake.scheduler(ABC), &[], streamed());
    assert_eq!(outcome.attempts(), "a:missing b:corrupt c:non_finite");
    assert_eq!((outcome.kind(), outcome.text.as_str()), ("non_finite", ""));
    let refused = outcome.result.unwrap_err();
    assert_eq!((refused.class(), refused.retry_after), (RefusedClass::Failed, None));
    let message = refused.to_string();
    assert!(message.starts_with("no model could answer for `a`; a: a: scripted (missing at load"), "{message}");
}

#[test]
fn a_crash_is_replayed_once_on_a_fresh_worker() {
    let fake = Fake::new();
    fake.act("a", [after(0, Then::Fail(K::Crashed))]);
    let scheduler = fake.scheduler(ABC);
    let outcome = ask(&scheduler, &[], streamed());
    assert_eq!((outcome.attempts().as_str(), outcome.model()), ("a:crashed", "a"));
    assert_eq!(outcome.result.unwrap().retries, 1);
    assert_eq!(fake.count_of("load a on cpu with 4096"), 2);
    assert_eq!(fake.count_of("kill a"), 1);
    fake.act("a", [after(0, Then::Fail(K::Crashed))]);
    let without = ask(&scheduler, &[], Options { num_retries: Some(0), ..streamed() });
    assert_eq!((without.attempts().as_str(), without.model()), ("a:crashed", "b"));
}

#[test]
fn a_failed_allocation_frees_idle_models_and_is_tried_once_more() {
    let fake = Fake::new();
    let scheduler = fake.scheduler(ABC);
    ask(&scheduler, &["b"], streamed());
    fake.load("a", [Load::Fail(K::OutOfMemory)]);
    let outcome = ask(&scheduler, &["a"], streamed());
    assert_eq!((outcome.attempts().as_str(), outcome.model()), ("a:out_of_memory", "a"));
    let log = fake.log();
    let dropped = log.iter().position(|line| line == "drop b").unwrap();
    let loads: Vec<usize> = log.iter().enumerate().filter(|(_, line)| line.starts_with("load a")).map(|(at, _)| at).collect();
    assert!(loads[0] < dropped && dropped < loads[1], "{log:?}");
}

#[test]
fn a_lost_device_is_left_for_another_where_the_model_may_move() {
    let fake = Fake::new();
    *fake.devices.lock().unwrap() =
        [Device::Cuda(0), Device::Cpu].into_iter().map(|device| DeviceMemory { device, own_bytes: None }).collect();
    fake.act("a", [after(0, Then::Fail(K::Device))]);
    let scheduler = fake.scheduler(ABC);
    let outcome = ask(&scheduler, &[], streamed());
    assert_eq!((outcome.attempts().as_str(), outcome.model()), ("a:device", "a"));
    assert_eq!(outcome.result.unwrap().device, Device::Cpu);
    assert_eq!(outcome.failed[0].device, Some(Device::Cuda(0)));
    scheduler.unload("a");
    ask(&scheduler, &[], streamed());
    assert_eq!(fake.count_of("load a on cuda:0 with 4096"), 1, "the device cools down");
    fake.clock.advance(Duration::from_secs(60));
    scheduler.unload("a");
    ask(&scheduler, &[], streamed());
    assert_eq!(fake.count_of("load a on cuda:0 with 4096"), 2);
}

#[test]
fn a_bad_file_is_not_opened_again_until_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gguf");
    std::fs::write(&path, "bad").unwrap();
    let fake = Fake::new();
    fake.inspect_fails("a", [K::Truncated, K::Corrupt]);
    let scheduler = fake.scheduler(&format!("[models.a]\npath = {path:?}\n[models.b]\npath = \"b\""));
    assert_eq!(ask(&scheduler, &[], streamed()).attempts(), "a:truncated");
    let skipped = ask(&scheduler, &[], streamed());
    assert_eq!(skipped.attempts(), "a:truncated", "the scripted `corrupt` was not reached");
    assert_eq!(skipped.failed[0].stage, Stage::Admission);
    assert!(matches!(&scheduler.models()[0].verdict, ModelVerdict::Quarantined(failure) if failure.kind == K::Truncated));
    std::fs::write(&path, "bad, but longer").unwrap();
    assert_eq!(ask(&scheduler, &[], streamed()).attempts(), "a:corrupt");
    std::fs::write(&path, "good, at last").unwrap();
    assert_eq!(ask(&scheduler, &[], streamed()).model(), "a");
}

#[test]
fn repeated_failures_cool_a_model_down_and_one_trial_brings_it_back() {
    let fake = Fake::new();
    fake.act("a", (0..4).map(|_| after(0, Then::Fail(K::NonFinite))));
    let scheduler = fake.scheduler(ABC);
    for _ in 0..3 {
        assert_eq!(ask(&scheduler, &[], streamed()).model(), "b");
    }
    assert_eq!(fake.count_of("generate a"), 3);
    let skipped = ask(&scheduler, &[], streamed());
    assert_eq!((skipped.attempts().as_str(), fake.count_of("generate a")), ("a:non_finite", 3));
    fake.clock.advance(Duration::from_secs(60));
    ask(&scheduler, &[], streamed());
    assert_eq!(fake.count_of("generate a"), 4, "the trial");
    fake.clock.advance(Duration::from_secs(60));
    ask(&scheduler, &[], streamed());
    assert_eq!(fake.count_of("generate a"), 4, "the second cooldown is twice as long");
    fake.clock.advance(Duration::from_secs(60));
    assert_eq!(ask(&scheduler, &[], streamed()).model(), "a", "the engine has shifted up again");
    assert_eq!(scheduler.models()[0].verdict, ModelVerdict::Ok);
}

#[test]
fn a_cooling_model_is_tried_if_nothing_comes_after_it() {
    let fake = Fake::new();
    fake.act("c", (0..3).map(|_| after(0, Then::Fail(K::NonFinite))));
    let scheduler = fake.scheduler(ABC);
    for _ in 0..3 {
        assert_eq!(ask(&scheduler, &["c"], streamed()).kind(), "non_finite");
    }
    assert_eq!(ask(&scheduler, &["c"], streamed()).model(), "c");
}

#[test]
fn models_of_another_kind_are_passed_over_if_implied_and_named_if_listed() {
    let fake = Fake::new();
    fake.kinds.lock().unwrap().insert("b".to_owned(), ModelKind::Embedding);
    fake.inspect_fails("a", [K::Missing, K::Missing]);
    let scheduler = fake.scheduler(ABC);
    let implied = ask(&scheduler, &["a"], streamed());
    assert_eq!((implied.attempts().as_str(), implied.model()), ("a:missing", "c"));
    let listed = ask(&scheduler, &["a", "b", "c"], streamed());
    assert_eq!((listed.attempts().as_str(), listed.model()), ("a:missing b:cannot_do", "c"));
    let asked = ask(&scheduler, &["b"], Options { disable_fallbacks: true, ..streamed() });
    assert_eq!(asked.result.unwrap_err().class(), RefusedClass::Invalid);
}

#[test]
fn token_ids_are_not_given_to_another_vocabulary() {
    let fake = Fake::new();
    fake.inspect_fails("a", [K::Missing]);
    let scheduler = fake.scheduler(ABC);
    let input = Input::Completion(Prompt::Tokens(vec![1, 2]));
    let outcome = submit(&scheduler, Request::new(scheduler.next_request_id(), input), &[], streamed(), 99);
    assert_eq!(outcome.attempts(), "a:missing b:cannot_do c:cannot_do");
    assert_eq!(outcome.kind(), "missing");
}

#[test]
fn a_gap_is_filled_by_a_model_that_knows_how_to() {
    let fake = Fake::new();
    let scheduler = fake.scheduler(ABC);
    let gap = |prefix| Input::Infill { prefix, suffix: "end".to_owned() };
    let ask = |prefix| submit(&scheduler, Request::new(scheduler.next_request_id(), gap(prefix)), &[], streamed(), 99);
    let nobody = ask(Prompt::Text("begin".to_owned())).result.unwrap_err();
    assert_eq!((nobody.class(), nobody.failure.message.as_str()), (RefusedClass::Invalid, Input::NO_INFILL));
    assert_eq!(nobody.attempts.len(), 3);
    fake.infilling.lock().unwrap().push("b".to_owned());
    let scheduler = fake.scheduler(ABC);
    let ask = |prefix| submit(&scheduler, Request::new(scheduler.next_request_id(), gap(prefix)), &[], streamed(), 99);
    let answered = ask(Prompt::Text("begin".to_owned()));
    assert_eq!((answered.attempts().as_str(), answered.model()), ("a:cannot_do", "b"));
    assert_eq!(ask(Prompt::Tokens(vec![1])).attempts(), "a:cannot_do b:cannot_do c:cannot_do", "ids are of one vocabulary");
    assert_eq!(fake.count_of("load a on cpu with 4096"), 0, "what cannot do it is not loaded");
}

#[test]
fn a_request_chooses_its_own_chain() {
    let fake = Fake::new();
    let scheduler = fake.scheduler(ABC);
    let mock = |options: Options| Options { mock_testing_fallbacks: true, ..options };
    let outcome = ask(&scheduler, &[], mock(streamed()));
    assert_eq!((outcome.attempts().as_str(), outcome.model()), ("a:mock", "b"));
    let replaced = ask(&scheduler, &["a"], mock(Options { fallbacks: Some(vec!["c".to_owned()]), ..streamed() }));
    assert_eq!(replaced.model(), "c");
    let disabled = ask(&scheduler, &["a"], mock(Options { disable_fallbacks: true, ..streamed() }));
    assert_eq!((disabled.kind(), disabled.attempts().as_str()), ("mock", "a:mock"));
    let unknown = ask(&scheduler, &["x"], streamed()).result.unwrap_err();
    assert_eq!(unknown.class(), RefusedClass::NotFound);
    assert!(unknown.to_string().contains("the models are a, b, c"));
    assert_eq!(fake.count_of("generate a"), 0);
}

#[test]
fn no_more_models_are_tried_than_max_fallbacks_allows() {
    let fake = Fake::new();
    ["a", "b", "c"].iter().for_each(|model| fake.load(model, [Load::Fail(K::Corrupt)]));
    let scheduler = fake.scheduler(&format!("[settings]\nmax_fallbacks = 1\n{ABC}"));
    assert_eq!(ask(&scheduler, &[], streamed()).attempts(), "a:corrupt b:corrupt");
    let skipping = ask(&scheduler, &[], streamed());
    assert_eq!(skipping.attempts(), "a:corrupt b:corrupt c:corrupt", "models that are skipped do not count");
}

#[test]
fn content_checks_apply_to_unstreamed_answers_only() {
    let fake = Fake::new();
    fake.act("a", [after(0, Then::End), after(0, Then::End), after(0, Then::End)]);
    let scheduler = fake.scheduler(&format!("[settings]\nfallback_on = [\"empty\"]\n{ABC}"));
    let unary = ask(&scheduler, &[], Options::default());
    assert_eq!((unary.attempts().as_str(), unary.model()), ("a:empty_answer", "b"));
    let stream = ask(&scheduler, &[], streamed());
    assert_eq!((stream.attempts().as_str(), stream.model(), stream.text.as_str()), ("", "a", "a| "));
    let chat = Input::chat(Vec::new());
    let of_prompt = Request { prompt_logprobs: Some(0), ..Request::new(scheduler.next_request_id(), chat) };
    let told = submit(&scheduler, of_prompt, &[], Options::default(), 99);
    assert_eq!((told.attempts().as_str(), told.model()), ("", "a"), "what is asked for is not the text");
    let json = fake.scheduler(&format!("[settings]\nfallback_on = [\"invalid_json\"]\n{ABC}"));
    let refused = ask(&json, &[], Options::default());
    assert_eq!(refused.attempts(), "a:invalid_json b:invalid_json c:invalid_json");
}

#[test]
fn what_happened_is_counted() {
    let fake = Fake::new();
    fake.load("a", [Load::Fail(K::Corrupt)]);
    let scheduler = fake.scheduler(ABC);
    ask(&scheduler, &[], streamed());
    let counters = scheduler.counters();
    assert_eq!(counters.fallback_total.into_iter().collect::<Vec<_>>(), [(("a".to_owned(), "b".to_owned(), "corrupt"), 1)]);
    let loads: Vec<_> = counters.load_total.into_iter().collect();
    assert_eq!(loads, [(("a".to_owned(), "corrupt"), 1), (("b".to_owned(), "ok"), 1)]);
}

#[test]
fn sampling_that_a_request_leaves_open_comes_from_the_model() {
    let fake = Fake::new();
    let scheduler = fake.scheduler("[models.a]\npath = \"a\"\ntemperature = 0.1\ntop_k = 7");
    let mut request = Request::new(scheduler.next_request_id(), Input::chat(Vec::new()));
    request.sampling.temperature = Some(0.9);
    submit(&scheduler, request, &[], streamed(), 99);
    let sent = &fake.requests.lock().unwrap()[0].sampling;
    assert_eq!((sent.temperature, sent.top_k), (Some(0.9), Some(7)));
}

#[test]
fn the_start_up_check_finds_fallbacks_of_another_kind() {
    let fake = Fake::new();
    fake.kinds.lock().unwrap().insert("b".to_owned(), ModelKind::Embedding);
    let scheduler = fake.scheduler("[models.a]\npath = \"a\"\nfallbacks = [\"b\"]\n[models.b]\npath = \"b\"");
    let error = scheduler.check().unwrap_err();
    assert_eq!((error.line, error.key.as_str()), (Some(3), "models.a.fallbacks"));
    assert!(error.to_string().contains("`b` is an embedding model"), "{error}");
    fake.scheduler(ABC).check().unwrap();
}

#[test]
fn shutdown_stops_workers_and_refuses_requests() {
    let fake = Fake::new();
    let scheduler = fake.scheduler(ABC);
    ask(&scheduler, &[], streamed());
    assert_eq!(scheduler.models()[0].state, ModelState::Ready);
    scheduler.shutdown();
    assert_eq!(fake.count_of("drop a"), 1);
    assert_eq!(ask(&scheduler, &[], streamed()).kind(), "cancelled");
}

#[test]
fn a_worker_can_be_had_for_itself_and_is_given_back() {
    let fake = Fake::new();
    let scheduler = fake.scheduler(ABC);
    assert_eq!(scheduler.with_worker("b", |worker| worker.tokenize("hi", false)).unwrap().unwrap(), [104, 105]);
    assert_eq!((scheduler.models()[1].state, scheduler.models()[1].running), (ModelState::Ready, 0));
    fake.load("a", [Load::Fail(K::Corrupt)]);
    assert_eq!(scheduler.with_worker("a", |_| ()).unwrap_err().kind, K::Corrupt);
    assert_eq!(scheduler.with_worker("x", |_| ()).unwrap_err().kind, K::UnknownModel);
}

#[test]
fn a_caller_is_told_to_come_back_when_the_cooldown_ends() {
    let fake = Fake::new();
    fake.act("a", (0..4).map(|_| after(0, Then::Fail(K::NonFinite))));
    fake.inspect_fails("b", [K::Missing]);
    let scheduler = fake.scheduler("[models.a]\npath = \"a\"\nfallbacks = [\"b\"]\n[models.b]\npath = \"b\"");
    for _ in 0..3 {
        ask(&scheduler, &[], streamed());
    }
    fake.clock.advance(Duration::from_secs(20));
    let refused = ask(&scheduler, &[], streamed()).result.unwrap_err();
    assert_eq!((refused.class(), refused.retry_after), (RefusedClass::Unavailable, Some(Duration::from_secs(40))));
}

#[test]
fn totals_count_every_drop_and_every_load_also_one_that_ends_at_the_header() {
    let fake = Fake::new();
    fake.inspect_fails("a", [K::Missing]);
    fake.act("b", [after(0, Then::Fail(K::InvalidRequest))]);
    let scheduler = fake.scheduler(ABC);
    assert_eq!(ask(&scheduler, &[], streamed()).kind(), "invalid_request");
    let counters = scheduler.counters();
    let drop = ("a".to_owned(), "b".to_owned(), "missing");
    assert_eq!(counters.fallback_total.into_iter().collect::<Vec<_>>(), [(drop, 1)], "b was tried, although the caller was told then");
    let loads = [(("a".to_owned(), "missing"), 1), (("b".to_owned(), "ok"), 1)];
    assert_eq!(counters.load_total.into_iter().collect::<Vec<_>>(), loads);
}
