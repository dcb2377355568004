//! Promises about streams that break off after text was shown: the same model first, then the next, or one honest error.

use std::time::Duration;

use downshift_scheduler::Options;
use downshift_scheduler::config::OnStreamFailure;
use downshift_worker::{
    Delta, FailureKind as K, Input, Message, Prompt, Request, RequestId, ResponseFormat, Resume, ToolCallDelta, ToolChoice,
};
use serde_json::json;

use crate::support::*;

#[test]
fn a_crash_is_continued_by_the_same_model_from_its_exact_tokens() {
    let fake = Fake::new();
    fake.act("a", [after(2, Then::Fail(K::Crashed)), after(4, Then::End)]);
    let outcome = ask(&fake.scheduler(ABC), &[], streamed());
    assert_eq!(outcome.text, "a| a0 a1 a>a(crashed) a2 a3 ");
    assert_eq!((outcome.model(), outcome.attempts().as_str()), ("a", "a:crashed"));
    let resume = fake.requests.lock().unwrap()[1].resume.clone();
    assert_eq!(resume, Some(Resume::Tokens { token_ids: vec![0, 1], shown_bytes: "a0 a1 ".len() }));
    assert_eq!(outcome.result.unwrap().output.usage.completion_tokens, 4);
}

#[test]
fn if_the_same_model_cannot_the_next_continues_the_text() {
    let fake = Fake::new();
    fake.act("a", [after(2, Then::Fail(K::Crashed)), after(3, Then::Fail(K::Crashed))]);
    let outcome = ask(&fake.scheduler(ABC), &[], streamed());
    assert_eq!(outcome.text, "a| a0 a1 a>a(crashed) a2 a>b(crashed) ");
    let fake = Fake::new();
    fake.act("a", [after(2, Then::Fail(K::NonFinite))]);
    fake.act("b", [after(5, Then::End)]);
    let outcome = ask(&fake.scheduler(ABC), &[], streamed());
    assert_eq!(outcome.text, "a| a0 a1 a>b(non_finite) b2 b3 b4 ");
    assert_eq!((outcome.model(), outcome.attempts().as_str()), ("b", "a:non_finite"));
    let resume = fake.requests.lock().unwrap()[1].resume.clone();
    assert_eq!(resume, Some(Resume::Text { text: "a0 a1 ".to_owned(), reasoning: String::new(), tokens: 2 }));
}

#[test]
fn the_notice_names_what_broke_the_text_and_not_what_was_skipped_after() {
    let fake = Fake::new();
    fake.act("a", [after(2, Then::Fail(K::NonFinite))]);
    fake.inspect_fails("b", [K::Missing]);
    let outcome = ask(&fake.scheduler(ABC), &[], streamed());
    assert_eq!(outcome.text, "a| a0 a1 a>c(non_finite) c2 ");
    assert_eq!(outcome.attempts(), "a:non_finite b:missing");
}

#[test]
fn another_model_takes_over_once_per_request() {
    let fake = Fake::new();
    fake.act("a", [after(2, Then::Fail(K::NonFinite))]);
    fake.act("b", [after(4, Then::Fail(K::NonFinite))]);
    let outcome = ask(&fake.scheduler(ABC), &[], streamed());
    assert_eq!(outcome.text, "a| a0 a1 a>b(non_finite) b2 b3 ");
    assert_eq!((outcome.kind(), outcome.attempts().as_str()), ("non_finite", "a:non_finite b:non_finite"));
    assert!(outcome.result.unwrap_err().shown);
}

#[test]
fn one_that_took_over_and_crashed_goes_on_from_the_joined_text() {
    let fake = Fake::new();
    fake.act("a", [after(2, Then::Fail(K::NonFinite))]);
    fake.act("b", [after(4, Then::Fail(K::Crashed)), after(5, Then::End)]);
    let outcome = ask(&fake.scheduler(ABC), &[], streamed());
    assert_eq!(outcome.text, "a| a0 a1 a>b(non_finite) b2 b3 b>b(crashed) b4 ");
    let resume = fake.requests.lock().unwrap()[2].resume.clone();
    assert_eq!(resume, Some(Resume::Text { text: "a0 a1 b2 b3 ".to_owned(), reasoning: String::new(), tokens: 4 }));
}

#[test]
fn an_attempt_that_fails_before_it_goes_on_leaves_no_notice() {
    let fake = Fake::new();
    fake.act("a", [after(2, Then::Fail(K::NonFinite))]);
    fake.act("b", [after(0, Then::Fail(K::NonFinite))]);
    let outcome = ask(&fake.scheduler(ABC), &[], streamed());
    assert_eq!(outcome.text, "a| a0 a1 a>c(non_finite) c2 ");
}

#[test]
fn a_stall_in_the_middle_is_continued_too() {
    let fake = Fake::new();
    fake.act("a", [after(2, Then::Hang(30))]);
    let outcome = ask(&fake.scheduler(ABC), &[], streamed());
    assert_eq!(outcome.text, "a| a0 a1 a>b(stalled) b2 ");
    assert_eq!(fake.count_of("kill a"), 1);
}

#[test]
fn where_another_model_may_not_go_on_the_error_is_honest() {
    let broken = |fake: &Fake| fake.act("a", [after(2, Then::Fail(K::NonFinite))]);
    let base = || Request::new(downshift_worker::RequestId(77), Input::chat(vec![Message::user("hi")]));
    let mut seeded = base();
    seeded.sampling.seed = Some(1);
    let mut with_logprobs = base();
    with_logprobs.logprobs = Some(2);
    let mut with_prompt = base();
    with_prompt.prompt_logprobs = Some(0);
    let refused = Options { on_stream_failure: Some(OnStreamFailure::Error), ..streamed() };
    for (request, options) in [(seeded, streamed()), (with_logprobs, streamed()), (with_prompt, streamed()), (base(), refused)] {
        let fake = Fake::new();
        broken(&fake);
        let outcome = submit(&fake.scheduler(ABC), request, &[], options, usize::MAX);
        assert_eq!((outcome.text.as_str(), outcome.kind()), ("a| a0 a1 ", "non_finite"));
    }
}

#[test]
fn a_gap_that_is_half_filled_goes_on_with_a_model_that_fills_gaps_or_ends_honestly() {
    let gap = || Input::Infill { prefix: Prompt::Text("begin".to_owned()), suffix: "end".to_owned() };
    for (infilling, text) in [("a c", "a| a0 a1 a>c(non_finite) c2 "), ("a", "a| a0 a1 ")] {
        let fake = Fake::new();
        fake.infilling.lock().unwrap().extend(infilling.split(' ').map(str::to_owned));
        fake.act("a", [after(2, Then::Fail(K::NonFinite))]);
        let outcome = submit(&fake.scheduler(ABC), Request::new(RequestId(77), gap()), &[], streamed(), usize::MAX);
        assert_eq!(outcome.text, text);
        if infilling == "a" {
            assert_eq!(outcome.attempts(), "a:non_finite b:cannot_do c:cannot_do");
            assert_eq!(outcome.kind(), "non_finite");
            continue;
        }
        assert_eq!(outcome.attempts(), "a:non_finite b:cannot_do");
        let last = fake.requests.lock().unwrap()[1].clone();
        assert_eq!(
            (last.input, last.resume),
            (gap(), Some(Resume::Text { text: "a0 a1 ".to_owned(), reasoning: String::new(), tokens: 2 }))
        );
    }
}

#[test]
fn a_seeded_stream_is_continued_by_the_same_model() {
    let fake = Fake::new();
    fake.act("a", [after(2, Then::Fail(K::Crashed))]);
    let scheduler = fake.scheduler(ABC);
    let mut request = Request::new(scheduler.next_request_id(), Input::chat(Vec::new()));
    request.sampling.seed = Some(1);
    let outcome = submit(&scheduler, request, &[], streamed(), usize::MAX);
    assert_eq!(outcome.text, "a| a0 a1 a>a(crashed) a2 ");
}

#[test]
fn after_text_was_shown_no_attempt_is_cut_to_half_of_the_time() {
    let fake = Fake::new();
    fake.act("a", [after(2, Then::Fail(K::NonFinite))]);
    fake.act("b", [Act { tokens: 14, pace: 1.0, then: Then::End }]);
    let options = Options { timeout: Some(Duration::from_secs(20)), ..streamed() };
    let outcome = ask(&fake.scheduler(ABC), &[], options);
    assert_eq!((outcome.model(), outcome.attempts().as_str()), ("b", "a:non_finite"));
}

#[test]
fn an_answer_that_repeats_itself_ends_with_length_and_is_no_failure() {
    let fake = Fake::new();
    fake.act("a", [after(5000, Then::Repeat)]);
    fake.counts.lock().unwrap().insert("a".to_owned(), 9);
    let scheduler = fake.scheduler(ABC);
    let outcome = ask(&scheduler, &[], streamed());
    let answer = outcome.result.unwrap();
    assert_eq!((answer.output.finish_reason.as_str(), answer.fallback), ("length", None));
    assert_eq!((answer.output.usage.completion_tokens, answer.output.usage.prompt_tokens), (256, 9));
    assert_eq!(outcome.text.split_whitespace().count(), 257);
    let unguarded = fake.scheduler(&format!("[settings]\nloop_guard = false\n{ABC}"));
    fake.act("a", [after(500, Then::Repeat)]);
    assert_eq!(ask(&unguarded, &[], streamed()).result.unwrap().output.usage.completion_tokens, 500);
}

fn with_tools(tool_choice: ToolChoice) -> Request {
    let tools = vec![json!({"type": "function", "function": {"name": "add"}})];
    let input = Input::Chat { messages: Vec::new(), tools, tool_choice, variables: Default::default() };
    Request::new(RequestId(77), input)
}

#[test]
fn thoughts_count_as_shown_and_the_next_model_gets_them() {
    let fake = Fake::new();
    fake.says.lock().unwrap().insert("a".to_owned(), |token| Delta { reasoning: format!("t{token} "), ..Delta::default() });
    fake.act("a", [after(2, Then::Fail(K::Crashed)), after(3, Then::Fail(K::NonFinite))]);
    let outcome = ask(&fake.scheduler(ABC), &[], streamed());
    assert_eq!(outcome.text, "a| a>a(crashed) a>b(non_finite) ");
    let requests = fake.requests.lock().unwrap();
    assert_eq!(requests[1].resume, Some(Resume::Tokens { token_ids: vec![0, 1], shown_bytes: "t0 t1 ".len() }));
    assert_eq!(requests[2].resume, Some(Resume::Text { text: String::new(), reasoning: "t0 t1 t2 ".to_owned(), tokens: 3 }));
}

fn calling(token: usize) -> Delta {
    let name = (token == 0).then(|| "add".to_owned());
    Delta { tool_calls: vec![ToolCallDelta { index: 0, name, arguments: "{}".to_owned() }], ..Delta::default() }
}

#[test]
fn a_call_that_was_begun_is_ended_by_its_model_or_not_at_all() {
    let fake = Fake::new();
    fake.says.lock().unwrap().insert("a".to_owned(), calling);
    fake.act("a", [after(2, Then::Fail(K::Crashed)), after(3, Then::Fail(K::NonFinite))]);
    let outcome = submit(&fake.scheduler(ABC), with_tools(ToolChoice::Auto), &[], streamed(), usize::MAX);
    assert_eq!((outcome.kind(), outcome.attempts().as_str()), ("non_finite", "a:crashed a:non_finite"));
    assert!(outcome.result.unwrap_err().shown);
    let resume = fake.requests.lock().unwrap()[1].resume.clone();
    assert_eq!(resume, Some(Resume::Tokens { token_ids: vec![0, 1], shown_bytes: "add{}{}".len() }));
}

#[test]
fn a_call_of_the_model_that_took_over_is_never_begun_again() {
    let fake = Fake::new();
    fake.act("a", [after(1, Then::Fail(K::NonFinite))]);
    fake.says.lock().unwrap().insert("b".to_owned(), |_| calling(0));
    fake.act("b", [after(2, Then::Fail(K::Crashed))]);
    let outcome = submit(&fake.scheduler(ABC), with_tools(ToolChoice::Auto), &[], streamed(), usize::MAX);
    assert_eq!((outcome.kind(), outcome.attempts().as_str()), ("crashed", "a:non_finite b:crashed"));
}

#[test]
fn text_beside_offered_tools_is_continued_by_the_next_model() {
    let fake = Fake::new();
    fake.act("a", [after(2, Then::Fail(K::NonFinite))]);
    let outcome = submit(&fake.scheduler(ABC), with_tools(ToolChoice::Auto), &[], streamed(), usize::MAX);
    assert_eq!(outcome.text, "a| a0 a1 a>b(non_finite) b2 ");
}

#[test]
fn what_a_format_asks_for_may_repeat_itself() {
    let fake = Fake::new();
    fake.act("a", [after(500, Then::Repeat), after(500, Then::Repeat)]);
    let scheduler = fake.scheduler(ABC);
    let mut request = Request::new(scheduler.next_request_id(), Input::chat(Vec::new()));
    request.format = ResponseFormat::JsonObject;
    for request in [request, with_tools(ToolChoice::Required)] {
        let outcome = submit(&scheduler, request, &[], streamed(), usize::MAX);
        assert_eq!(outcome.result.unwrap().output.usage.completion_tokens, 500);
    }
}
