//! Promises about time and turns: deadlines, stalls, cancellation, lines, idle models. The clock is a fake; nothing sleeps.

use std::sync::Arc;
use std::time::Duration;

use crate::support::*;
use downshift_scheduler::{ModelState, Options, RefusedClass};
use downshift_worker::FailureKind as K;

const STALL: u64 = 30;

#[test]
fn a_stalled_answer_kills_the_worker_and_the_next_model_answers() {
    for stage in ["prefill", "deaf"] {
        let fake = Fake::new();
        let then = if stage == "deaf" { Then::Deaf(STALL) } else { Then::Hang(STALL) };
        fake.act("a", [after(0, then)]);
        let outcome = ask(&fake.scheduler(ABC), &[], streamed());
        assert_eq!((outcome.attempts().as_str(), outcome.model()), ("a:stalled", "b"));
        assert_eq!(fake.count_of("kill a"), 1);
    }
}

#[test]
fn a_stalled_load_is_aborted_and_a_slow_one_is_not() {
    let fake = Fake::new();
    fake.load("a", [Load::Hang(STALL)]);
    let outcome = ask(&fake.scheduler(ABC), &[], streamed());
    assert_eq!((outcome.attempts().as_str(), outcome.model()), ("a:stalled", "b"));
    assert_eq!(fake.count_of("abort a"), 1);
    let fake = Fake::new();
    fake.load("a", [Load::Slow(10 * STALL)]);
    assert_eq!(ask(&fake.scheduler(ABC), &[], streamed()).attempts(), "");
}

#[test]
fn the_first_token_has_a_deadline_of_its_own_that_is_not_held_against_the_model() {
    let fake = Fake::new();
    fake.act("a", (0..5).map(|_| after(0, Then::Hang(5))));
    let scheduler = fake.scheduler(&format!("[settings]\nfirst_token_timeout = \"5s\"\n{ABC}"));
    for _ in 0..5 {
        assert_eq!(ask(&scheduler, &[], streamed()).attempts(), "a:first_token_timeout");
    }
    assert_eq!(fake.count_of("generate a"), 5, "slow is not broken");
    assert_eq!(fake.count_of("kill a"), 0);
}

#[test]
fn a_model_slower_than_asked_for_drops_a_gear() {
    let fake = Fake::new();
    fake.act("a", [Act { tokens: 17, pace: 1.0, then: Then::Hang(0) }]);
    let scheduler = fake.scheduler(&format!("[settings]\nmin_tokens_per_second = 2.0\n{ABC}"));
    let outcome = ask(&scheduler, &[], Options::default());
    assert_eq!((outcome.attempts().as_str(), outcome.model()), ("a:too_slow", "b"));
    let fake = Fake::new();
    fake.act("a", [Act { tokens: 40, pace: 0.4, then: Then::End }]);
    let scheduler = fake.scheduler(&format!("[settings]\nmin_tokens_per_second = 2.0\n{ABC}"));
    assert_eq!(ask(&scheduler, &[], Options::default()).attempts(), "");
}

#[test]
fn a_hung_primary_gets_half_of_the_time_and_the_last_model_all_that_is_left() {
    let fake = Fake::new();
    fake.act("a", [after(0, Then::Hang(10))]);
    fake.act("b", [after(0, Then::Hang(5))]);
    fake.act("c", [after(0, Then::Hang(5))]);
    let scheduler = fake.scheduler(ABC);
    let options = Options { timeout: Some(Duration::from_secs(20)), ..streamed() };
    let outcome = ask(&scheduler, &[], options);
    assert_eq!(outcome.attempts(), "a:timeout b:timeout c:timeout");
    let refused = outcome.result.unwrap_err();
    assert_eq!((refused.class(), fake.count_of("generate c")), (RefusedClass::Timeout, 1));
}

#[test]
fn once_text_is_shown_only_the_total_counts() {
    let fake = Fake::new();
    fake.act("a", [Act { tokens: 12, pace: 1.0, then: Then::End }]);
    let scheduler = fake.scheduler(ABC);
    let options = Options { timeout: Some(Duration::from_secs(15)), ..streamed() };
    assert_eq!(ask(&scheduler, &[], options).attempts(), "");
}

#[test]
fn a_client_that_leaves_stops_the_worker_and_frees_its_slot() {
    let fake = Fake::new();
    fake.act("a", [after(3, Then::Hang(0))]);
    let scheduler = fake.scheduler(ABC);
    let outcome = ask_until(&scheduler, &[], streamed(), 2);
    assert_eq!((outcome.kind(), outcome.attempts().as_str()), ("cancelled", ""));
    let next = ask(&scheduler, &[], streamed());
    assert_eq!((next.model(), next.attempts().as_str()), ("a", ""), "one slot, and it is free");
    assert_eq!(fake.count_of("load a on cpu with 4096"), 1);
}

#[test]
fn a_worker_that_does_not_let_go_is_killed_so_that_others_get_their_turn() {
    let fake = Fake::new();
    fake.act("a", [after(2, Then::Deaf(0))]);
    let scheduler = fake.scheduler(ABC);
    assert_eq!(ask_until(&scheduler, &[], streamed(), 2).kind(), "cancelled");
    fake.clock.advance(Duration::from_secs(STALL));
    assert_eq!(ask(&scheduler, &[], streamed()).model(), "a");
    assert_eq!(fake.count_of("kill a"), 1);
}

#[test]
fn many_requests_join_one_load_and_share_its_failure() {
    for (end, loads) in [(Load::Gate, 1), (Load::Fail(K::Corrupt), 1)] {
        let fake = Fake::new();
        fake.load("a", [end]);
        let scheduler =
            Arc::new(fake.scheduler(&format!("{ABC}[models.d]\npath = \"d\"").replace("path = \"a\"", "path = \"a\"\nparallel = 9")));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let scheduler = scheduler.clone();
                std::thread::spawn(move || ask(&scheduler, &[], streamed()))
            })
            .collect();
        fake.open();
        for thread in threads {
            assert!(thread.join().unwrap().result.is_ok());
        }
        assert_eq!(fake.count_of("load a on cpu with 4096"), loads);
    }
}

#[test]
fn a_full_line_is_refused_with_a_time_to_come_back_and_loads_no_second_model() {
    let fake = Fake::new();
    fake.act("a", [after(1, Then::Gate)]);
    let scheduler = Arc::new(fake.scheduler(&format!("[settings]\nqueue = 0\n{ABC}")));
    let busy = {
        let scheduler = scheduler.clone();
        std::thread::spawn(move || ask(&scheduler, &[], streamed()))
    };
    while scheduler.models()[0].running == 0 {
        std::thread::yield_now();
    }
    let refused = ask(&scheduler, &[], streamed());
    assert_eq!(refused.attempts(), "a:queue_full");
    let refused = refused.result.unwrap_err();
    assert_eq!((refused.class(), refused.retry_after.is_some()), (RefusedClass::Unavailable, true));
    assert_eq!(scheduler.models()[1].state, ModelState::Unloaded);
    ask(&scheduler, &["b"], streamed());
    assert_eq!(ask(&scheduler, &[], streamed()).model(), "b", "it is loaded and idle");
    fake.open();
    assert!(busy.join().unwrap().result.is_ok());
}

#[test]
fn cancelling_reaches_a_request_that_waits_for_a_load_and_the_load_finishes() {
    let fake = Fake::new();
    fake.load("a", [Load::Gate]);
    let scheduler = Arc::new(fake.scheduler(ABC));
    let waiting = {
        let scheduler = scheduler.clone();
        std::thread::spawn(move || ask(&scheduler, &[], streamed()))
    };
    while scheduler.models()[0].waiting == 0 {
        std::thread::yield_now();
    }
    scheduler.cancel(downshift_worker::RequestId(1));
    assert_eq!(waiting.join().unwrap().kind(), "cancelled");
    fake.open();
    assert_eq!(ask(&scheduler, &[], streamed()).model(), "a");
    assert_eq!(fake.count_of("load a on cpu with 4096"), 1);
}

#[test]
fn idle_models_are_unloaded_and_pinned_ones_stay() {
    let fake = Fake::new();
    let scheduler = fake.scheduler(&ABC.replace("path = \"b\"", "path = \"b\"\nkeep_alive = \"forever\""));
    ask(&scheduler, &["a"], streamed());
    ask(&scheduler, &["b"], streamed());
    fake.clock.advance(Duration::from_secs(299));
    scheduler.unload_idle();
    assert_eq!(scheduler.models()[0].state, ModelState::Ready);
    fake.clock.advance(Duration::from_secs(1));
    scheduler.unload_idle();
    assert_eq!(scheduler.models()[0].state, ModelState::Unloaded);
    assert_eq!(scheduler.models()[1].state, ModelState::Ready);
}

#[test]
fn cores_are_shared_by_the_workers_that_are_busy() {
    let fake = Fake::new();
    fake.act("a", [after(1, Then::Gate)]);
    let scheduler = Arc::new(fake.scheduler(&format!("[settings]\nthreads = 8\n{ABC}")));
    let busy = {
        let scheduler = scheduler.clone();
        std::thread::spawn(move || ask(&scheduler, &["a"], streamed()))
    };
    while scheduler.models()[0].running == 0 {
        std::thread::yield_now();
    }
    ask(&scheduler, &["b"], streamed());
    assert!(fake.log().contains(&"threads a 4".to_owned()), "{:?}", fake.log());
    fake.open();
    busy.join().unwrap();
}

#[test]
fn a_trial_that_says_nothing_about_the_model_makes_room_for_the_next() {
    let fake = Fake::new();
    fake.act("a", (0..3).map(|_| after(0, Then::Fail(K::NonFinite))));
    let scheduler = fake.scheduler(ABC);
    for _ in 0..3 {
        ask(&scheduler, &[], streamed());
    }
    fake.clock.advance(Duration::from_secs(60));
    fake.act("a", [after(1, Then::Hang(0))]);
    assert_eq!(ask_until(&scheduler, &[], streamed(), 1).kind(), "cancelled");
    assert_eq!(ask(&scheduler, &[], streamed()).model(), "a", "the trial is open again");
}

#[test]
fn a_listener_that_panics_frees_everything() {
    let fake = Fake::new();
    fake.act("a", [after(2000, Then::End)]);
    let scheduler = fake.scheduler(ABC);
    let request = downshift_worker::Request::new(scheduler.next_request_id(), downshift_worker::Input::chat(Vec::new()));
    let submission = downshift_scheduler::Submission { request: request.clone(), models: Vec::new(), options: streamed() };
    let panicked =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| scheduler.submit(submission, &mut |_| panic!("in the listener"))));
    assert!(panicked.is_err());
    let again = submit(&scheduler, request, &[], streamed(), usize::MAX);
    assert_eq!(again.model(), "a", "its id and its slot are free");
}
