//! Log-probabilities of prompts through the worker contract: what generating token by token gives, and what the session's own
//! logits give.

mod support;

use std::ops::ControlFlow;

use downshift_engine::testing::{Stored, tiny_model};
use downshift_engine::{Feed, LoadOptions, Model, Sequence};
use downshift_worker::{
    Completion, Delta, FinishReason, Input, Prompt, PromptToken, Request, RequestId, ResponseFormat, Resume, SamplingParams, TokenLogprob,
    Worker,
};

use support::{run, worker};

const N_VOCAB: u32 = 283;

/// What differs between two ways of rounding: prefills of other lengths, and the session alone.
const ROUNDING: f32 = 0.02;

fn ids(n: u32) -> Vec<u32> {
    (0..n).map(|at| (at * at * 31 + at * 7) % 256).collect()
}

fn request(token_ids: &[u32], max_tokens: u32) -> Request {
    let sampling = SamplingParams { temperature: Some(0.0), ..SamplingParams::default() };
    let input = Input::Completion(Prompt::Tokens(token_ids.to_vec()));
    Request { sampling, max_tokens: Some(max_tokens), logprobs: Some(2), ..Request::new(RequestId(1), input) }
}

/// What was told of the prompt, of the answer, and its end.
fn told(worker: &dyn Worker, request: &Request) -> (Vec<PromptToken>, Vec<TokenLogprob>, Completion) {
    let (mut prompt, mut logprobs) = (Vec::new(), Vec::new());
    let completion = worker.generate(request, &mut |delta: Delta| {
        assert!(delta.prompt.is_empty() || logprobs.is_empty(), "the prompt comes first");
        prompt.extend(delta.prompt);
        logprobs.extend(delta.logprobs);
        ControlFlow::Continue(())
    });
    (prompt, logprobs, completion.expect("an answer"))
}

fn scored(token: &PromptToken) -> &TokenLogprob {
    match token {
        PromptToken::Scored(logprob) => logprob,
        PromptToken::First(id) => panic!("{id} is not the first token"),
    }
}

/// The largest distance of values that stand for the same positions.
fn distance(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max)
}

#[test]
fn they_are_what_generating_token_by_token_gives() {
    let worker = worker(None, &[]);
    let token_ids = ids(70);
    let (prompt, logprobs, completion) = told(&*worker, &Request { prompt_logprobs: Some(3), ..request(&token_ids, 2) });
    assert_eq!((prompt.len(), logprobs.len(), completion.usage.prompt_tokens), (70, 2, 70));
    assert_eq!(prompt[0], PromptToken::First(token_ids[0]));
    let at_once: Vec<f32> = prompt[1..].iter().map(|token| scored(token).logprob).collect();
    assert!(prompt[1..].iter().zip(&token_ids[1..]).all(|(token, id)| scored(token).token_id == *id));
    let by_token: Vec<f32> = (1..token_ids.len())
        .map(|at| {
            let mut forced = request(&token_ids[..at], 1);
            forced.sampling.logit_bias = vec![(token_ids[at], 100.0)];
            let found = told(&*worker, &forced).1[0].clone();
            assert_eq!(found.token_id, token_ids[at]);
            let top = &scored(&prompt[at]).top;
            assert!(top.len() == 3 && (top[0].1 - found.top[0].1).abs() < ROUNDING, "the likeliest after {at} tokens");
            found.logprob
        })
        .collect();
    assert!(distance(&at_once, &by_token) < ROUNDING, "{}", distance(&at_once, &by_token));
    assert!(distance(&at_once[1..], &by_token) > 10.0 * ROUNDING, "one position further it is another value");
}

#[test]
fn they_are_the_log_softmax_of_the_sessions_logits() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("tiny.gguf");
    std::fs::write(&path, tiny_model("llama", 3, Stored::F32)).expect("a file");
    let mut session = Model::open(&path).and_then(|model| model.load(&LoadOptions::default(), &|_, _| {})).expect("a session");
    let token_ids = ids(70);
    let mut rows: Vec<Vec<f32>> = Vec::new();
    let feed = Feed { sequence: &mut Sequence::default(), token_ids: &token_ids, logits_from: 0 };
    session.step(&mut [feed], &mut |_, logits| rows.push(logits.to_vec())).expect("a step");
    let expected: Vec<f32> = (1..token_ids.len())
        .map(|at| {
            let row = &rows[at - 1];
            row[token_ids[at] as usize] - row.iter().map(|logit| logit.exp()).sum::<f32>().ln()
        })
        .collect();
    let prompt = told(&*worker(None, &[]), &Request { prompt_logprobs: Some(0), ..request(&token_ids, 0) }).0;
    let found: Vec<f32> = prompt[1..].iter().map(|token| scored(token).logprob).collect();
    assert!(distance(&found, &expected) < 1e-4, "{}", distance(&found, &expected));
    assert!(prompt[1..].iter().all(|token| scored(token).top.is_empty()));
}

#[test]
fn a_prompt_is_told_for_an_answer_of_no_tokens_and_not_where_one_is_resumed() {
    let worker = worker(None, &[]);
    let asked = Request { prompt_logprobs: Some(1), ..request(&ids(5), 0) };
    let (prompt, logprobs, completion) = told(&*worker, &asked);
    assert_eq!((prompt.len(), logprobs.len(), completion.finish_reason), (5, 0, FinishReason::Length));
    assert_eq!((completion.usage.prompt_tokens, completion.usage.completion_tokens), (5, 0));
    assert_eq!(told(&*worker, &Request { prompt_logprobs: Some(1), ..request(&[7], 0) }).0, [PromptToken::First(7)]);
    let resume = Some(Resume::Tokens { token_ids: vec![9], shown_bytes: 0 });
    assert!(told(&*worker, &Request { resume, max_tokens: Some(3), ..asked.clone() }).0.is_empty());
    let nothing = ResponseFormat::Grammar("start: \"\"".into());
    let (prompt, _, completion) = told(&*worker, &Request { format: nothing, max_tokens: Some(4), ..asked });
    assert_eq!((prompt.len(), completion.finish_reason), (5, FinishReason::Stop), "an answer that can only be empty");
}

#[test]
fn the_token_that_ends_an_answer_is_told_and_counted_nowhere() {
    let worker = worker(None, &[]);
    let end = worker.tokenize("<|im_end|>", true).expect("a token")[0];
    let mut asked = Request { prompt_logprobs: Some(1), ..request(&ids(5), 4) };
    asked.sampling.logit_bias = vec![(end, 100.0)];
    let (_, logprobs, completion) = told(&*worker, &asked);
    assert_eq!(logprobs.iter().map(|found| found.token_id).collect::<Vec<_>>(), [end]);
    assert_eq!((completion.finish_reason, completion.usage.completion_tokens), (FinishReason::Stop, 0));
    let (output, _) = run(&*worker, &asked).expect("an answer");
    assert_eq!((output.text.as_str(), output.ids.len()), ("", 0));
    asked.prompt_logprobs = None;
    assert!(told(&*worker, &asked).1.is_empty(), "only beside those of the prompt");
    assert!(end < N_VOCAB);
}
