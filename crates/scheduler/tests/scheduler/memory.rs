//! Promises about memory: what cannot fit is never tried, the smallest idle set leaves, and nothing is decided for ever.

use downshift_scheduler::plan::Plan;
use downshift_scheduler::{ModelState, Options, RefusedClass};
use downshift_worker::{FailureKind as K, Footprint, Input, Message, Request, ResidentMemory};

use crate::support::*;

const NO_MARGIN: &str = "[settings]\nmemory_margin = \"0\"\n";

fn abc(more: &str) -> String {
    format!("{NO_MARGIN}{more}{ABC}")
}

#[test]
fn a_model_that_cannot_fit_is_never_tried_and_tried_once_there_is_room() {
    let fake = Fake::new();
    fake.memory(1000);
    fake.size("a", 2000, 0);
    let scheduler = fake.scheduler(&abc(""));
    let outcome = ask(&scheduler, &[], streamed());
    assert_eq!((outcome.attempts().as_str(), outcome.model()), ("a:does_not_fit", "b"));
    let message = &outcome.failed[0].message;
    assert!(message.contains("needs 2.0 GiB") && message.ends_with("1000 MiB are free by MemAvailable"), "{message}");
    assert_eq!(fake.count_of("load a on cpu with 4096"), 0);
    fake.memory(3000);
    assert_eq!(ask(&scheduler, &[], streamed()).model(), "a", "without a restart");
}

#[test]
fn when_none_fits_the_caller_may_come_back() {
    let fake = Fake::new();
    fake.memory(100);
    ["a", "b", "c"].iter().for_each(|model| fake.size(model, 200, 0));
    let refused = ask(&fake.scheduler(&abc("")), &[], streamed());
    assert_eq!(refused.attempts(), "a:does_not_fit b:does_not_fit c:does_not_fit");
    assert_eq!(refused.result.unwrap_err().class(), RefusedClass::Unavailable);
}

#[test]
fn an_idle_model_leaves_for_another_and_a_busy_one_does_not() {
    let fake = Fake::new();
    fake.memory(1000);
    ["a", "b"].iter().for_each(|model| fake.size(model, 700, 0));
    let scheduler = fake.scheduler(&abc(""));
    ask(&scheduler, &["a"], streamed());
    assert_eq!(ask(&scheduler, &["b"], streamed()).model(), "b");
    assert_eq!(scheduler.models()[0].state, ModelState::Unloaded);
    assert_eq!(scheduler.counters().evict_total["a"], 1);
    let scheduler = std::sync::Arc::new(scheduler);
    fake.act("b", [after(1, Then::Gate)]);
    let busy = {
        let scheduler = scheduler.clone();
        std::thread::spawn(move || ask(&scheduler, &["b"], streamed()))
    };
    while scheduler.models()[1].running == 0 {
        std::thread::yield_now();
    }
    let outcome = ask(&scheduler, &["a", "c"], streamed());
    assert_eq!((outcome.attempts().as_str(), outcome.model()), ("a:does_not_fit", "c"));
    fake.open();
    assert_eq!(busy.join().unwrap().text, "b| b0 ");
}

#[test]
fn a_pinned_model_is_not_evicted() {
    let fake = Fake::new();
    fake.memory(1000);
    ["a", "b"].iter().for_each(|model| fake.size(model, 700, 0));
    let scheduler = fake.scheduler(&abc("").replace("path = \"a\"", "path = \"a\"\nkeep_alive = \"forever\""));
    ask(&scheduler, &["a"], streamed());
    assert_eq!(ask(&scheduler, &["b"], Options { disable_fallbacks: true, ..streamed() }).kind(), "does_not_fit");
}

#[test]
fn context_shrinks_to_what_fits_and_no_further_than_min_context() {
    let fake = Fake::new();
    fake.memory(1000);
    fake.size("a", 500, 800);
    let scheduler = fake.scheduler(&abc(""));
    ask(&scheduler, &["a"], streamed());
    assert_eq!(fake.count_of("load a on cpu with 2560"), 1, "{:?}", fake.log());
    let strict = fake.scheduler(&abc("").replace("path = \"a\"", "path = \"a\"\nmin_context = 3000"));
    assert_eq!(ask(&strict, &["a"], streamed()).attempts(), "a:does_not_fit");
}

#[test]
fn memory_limit_counts_the_models_alone() {
    let fake = Fake::new();
    fake.memory(10_000);
    fake.size("a", 600, 0);
    fake.size("b", 300, 0);
    let scheduler = fake.scheduler(&abc("memory_limit = \"500MiB\"\n"));
    let outcome = ask(&scheduler, &[], streamed());
    assert_eq!((outcome.attempts().as_str(), outcome.model()), ("a:does_not_fit", "b"));
    assert!(outcome.failed[0].message.ends_with("500 MiB are free by memory_limit"), "{:?}", outcome.failed);
}

#[test]
fn a_model_that_ran_out_although_it_was_to_fit_is_planned_larger() {
    let fake = Fake::new();
    fake.memory(1000);
    fake.size("a", 900, 0);
    fake.load("a", [Load::Fail(K::OutOfMemory)]);
    let outcome = ask(&fake.scheduler(&abc("")), &[], streamed());
    assert_eq!((outcome.attempts().as_str(), outcome.model()), ("a:out_of_memory", "a"), "64 MiB more still fit");
    let fake = Fake::new();
    fake.memory(1000);
    fake.size("a", 950, 0);
    fake.load("a", [Load::Fail(K::OutOfMemory)]);
    let outcome = ask(&fake.scheduler(&abc("")), &[], streamed());
    assert_eq!((outcome.attempts().as_str(), outcome.model()), ("a:out_of_memory a:does_not_fit", "b"));
}

#[test]
fn a_forecast_names_needs_room_and_what_would_leave() {
    let fake = Fake::new();
    fake.memory(1000);
    ["a", "b"].iter().for_each(|model| fake.size(model, 700, 0));
    let scheduler = fake.scheduler(&abc(""));
    ask(&scheduler, &["a"], streamed());
    let forecast = scheduler.plan("b", None).unwrap();
    assert_eq!(forecast.need.footprint.weights_bytes, 700 << 20);
    assert!(matches!(&forecast.plan, Plan::Fits { evict, context: 4096, .. } if *evict == [0]), "{:?}", forecast.plan);
    assert!(scheduler.plan("a", None).unwrap().loaded);
    assert_eq!(scheduler.plan("x", None).unwrap_err().kind, K::UnknownModel);
}

/// Asks with a prompt that may be long, so that it is counted.
fn ask_long(scheduler: &downshift_scheduler::Scheduler, models: &[&str]) -> Outcome {
    let request = Request::new(scheduler.next_request_id(), Input::chat(vec![Message::user("x".repeat(10_000))]));
    submit(scheduler, request, models, streamed(), usize::MAX)
}

#[test]
fn long_prompts_are_counted_before_loading_and_go_where_they_fit() {
    let fake = Fake::new();
    fake.counts.lock().unwrap().extend([("a".to_owned(), 5000), ("b".to_owned(), 4999), ("c".to_owned(), 4000)]);
    let scheduler = fake.scheduler(ABC);
    let outcome = ask_long(&scheduler, &[]);
    assert_eq!((outcome.attempts().as_str(), outcome.model()), ("a:prompt_too_long b:prompt_too_long", "c"));
    assert!(fake.log().iter().all(|line| !line.starts_with("load a") && !line.starts_with("load b")));
    fake.counts.lock().unwrap().insert("c".to_owned(), 9000);
    scheduler.unload("c");
    let refused = ask_long(&scheduler, &[]).result.unwrap_err();
    assert_eq!(refused.class(), RefusedClass::Invalid);
    assert_eq!(refused.failure.kind, K::PromptTooLong { needed: 9000, limit: 4096 });
}

#[test]
fn a_prompt_too_long_for_the_primary_goes_to_its_context_window_fallbacks_first() {
    let fake = Fake::new();
    fake.counts.lock().unwrap().insert("a".to_owned(), 5000);
    let text = ABC.replace("path = \"a\"", "path = \"a\"\ncontext_window_fallbacks = [\"c\"]");
    let outcome = ask_long(&fake.scheduler(&text), &[]);
    assert_eq!((outcome.attempts().as_str(), outcome.model()), ("a:prompt_too_long", "c"));
    let fake = Fake::new();
    fake.act("a", [after(0, Then::Fail(K::PromptTooLong { needed: 5000, limit: 4096 }))]);
    let found_by_the_worker = ask(&fake.scheduler(&text), &[], streamed());
    assert_eq!((found_by_the_worker.attempts().as_str(), found_by_the_worker.model()), ("a:prompt_too_long", "c"));
}

#[test]
fn a_long_prompt_keeps_the_context_from_shrinking_below_it() {
    let fake = Fake::new();
    fake.memory(1000);
    fake.size("a", 500, 800);
    fake.counts.lock().unwrap().insert("a".to_owned(), 3000);
    let outcome = ask_long(&fake.scheduler(&abc("")), &[]);
    assert_eq!((outcome.attempts().as_str(), outcome.model()), ("a:does_not_fit", "b"));
}

#[test]
fn a_model_that_was_loaded_small_is_loaded_again_for_a_longer_prompt_once_there_is_room() {
    let fake = Fake::new();
    fake.memory(1000);
    fake.size("a", 500, 800);
    fake.counts.lock().unwrap().insert("a".to_owned(), 3000);
    let scheduler = fake.scheduler(&abc(""));
    ask(&scheduler, &["a"], streamed());
    fake.memory(9000);
    assert_eq!(ask_long(&scheduler, &["a"]).attempts(), "");
    assert_eq!(fake.count_of("load a on cpu with 2560"), 1);
    assert_eq!(fake.count_of("load a on cpu with 4096"), 1);
}

#[test]
fn a_load_that_takes_more_than_predicted_corrects_the_plan() {
    let fake = Fake::new();
    fake.memory(10_000);
    let footprint = Footprint { fixed_bytes: 20 << 20, scratch_bytes: 30 << 20, weights_bytes: 500 << 20, ..Footprint::default() };
    fake.footprints.lock().unwrap().extend(["a", "b"].map(|model| (model.to_owned(), footprint)));
    let takes = |anon_mib: u64, file_mib: u64| {
        let found = ResidentMemory { anon_bytes: anon_mib << 20, file_bytes: file_mib << 20 };
        fake.resident.lock().unwrap().insert("a".to_owned(), found);
    };
    let scheduler = fake.scheduler(&abc(""));
    let need = |model: &str| {
        let need = scheduler.plan(model, None).unwrap().need;
        (need.extra_bytes >> 20, need.footprint.program_bytes >> 20)
    };
    takes(19, 500);
    ask(&scheduler, &["a"], streamed());
    assert_eq!(need("a"), (0, 0), "as predicted");

    scheduler.unload("a");
    takes(27, 512);
    ask(&scheduler, &["a"], streamed());
    assert_eq!(need("a"), (7, 12));
    assert_eq!(need("b"), (7, 12), "what one lacked is expected of those never measured");
    assert_eq!(scheduler.plan("b", None).unwrap().ledger.entries[0].hard_bytes >> 20, 57, "and set aside for the one that is loaded");

    takes(90, 512);
    ask(&scheduler, &["a"], streamed());
    assert_eq!(need("a").0, 40, "in use it may touch what it has reserved, and touched more");

    scheduler.unload("a");
    takes(21, 500);
    ask(&scheduler, &["a"], streamed());
    assert_eq!(need("a"), (1, 0), "the last load counts");
}
