//! Log-probabilities of prompts: whole, at their own positions, and computed whatever the cache holds.

use std::sync::atomic::Ordering;

use downshift_worker::{FinishReason, PromptToken};

use super::tests::{Client, Rig, next_token, text};

fn ask(rig: &mut Rig, prompt: &[u32], max_tokens: usize) -> (Client, usize) {
    let before = rig.n_computed.load(Ordering::Relaxed);
    let mut client = rig.submit_as(prompt, max_tokens, true);
    rig.finish();
    client.read();
    (client, rig.n_computed.load(Ordering::Relaxed) - before)
}

/// A prompt of which every other token is the likely one.
fn half_likely(n: usize) -> Vec<u32> {
    let mut prompt: Vec<u32> = Vec::new();
    for at in 0..n as u32 {
        let likely = if prompt.is_empty() { 7 } else { next_token(&prompt) };
        prompt.push(if at % 2 == 0 { likely } else { (likely + 1) % 49 });
    }
    prompt
}

#[test]
fn each_token_is_judged_by_what_comes_before_it() {
    for n in [1, 2, 15, 64, 65, 96, 97, 300] {
        let prompt = half_likely(n);
        let mut rig = Rig::new(1024, 2);
        let (client, n_computed) = ask(&mut rig, &prompt, 3);
        client.check(1024);
        assert_eq!((client.scored.len(), n_computed), (n, n + 2));
        let logprob = |at: usize| match &client.scored[at] {
            PromptToken::Scored(found) => found.logprob,
            PromptToken::First(id) => panic!("{id} comes first, at {at}"),
        };
        assert!((1..n).all(|at| (logprob(at) > -3.0) == (at % 2 == 0)), "every other one was likely");
    }
}

#[test]
fn an_answer_of_no_tokens_tells_the_prompt_and_ends_for_length() {
    let mut rig = Rig::new(1024, 2);
    for n in [1, 2, 64, 200] {
        let (client, n_computed) = ask(&mut rig, &half_likely(n), 0);
        client.check(1024);
        assert_eq!((client.scored.len(), client.token_ids.len(), n_computed), (n, 0, n));
        assert!(matches!(client.end, Some(Ok(FinishReason::Length))));
    }
}

#[test]
fn what_the_cache_holds_is_computed_again_and_then_serves_others() {
    let mut rig = Rig::new(1024, 2);
    let prompt = text(1, 200);
    for _ in 0..2 {
        let (client, n_computed) = ask(&mut rig, &prompt, 1);
        client.check(1024);
        assert_eq!(n_computed, 200);
    }
    let mut other = rig.submit_as(&prompt, 1, false);
    rig.finish();
    other.read();
    other.check(1024);
    assert_eq!(other.n_cached, Some(176));
    // Side by side with one that computes the same, too.
    let mut both = [false, true].map(|is_scored| rig.submit_as(&text(2, 200), 4, is_scored));
    rig.finish();
    for client in &mut both {
        client.read();
        client.check(1024);
    }
}

#[test]
fn one_that_makes_room_for_another_tells_nothing_twice() {
    let mut rig = Rig::new(256, 3);
    let mut older = rig.submit_as(&text(1, 60), 190, false);
    rig.step();
    let mut scored = rig.submit_as(&text(2, 120), 60, true);
    let mut n_steps_back = 0;
    while !rig.batcher.is_empty() {
        rig.step();
        scored.read();
        n_steps_back += usize::from(rig.batcher.waiting.iter().any(|request| request.job.id == scored.id) && !scored.scored.is_empty());
    }
    assert!(n_steps_back > 0, "it had to make room after it had told its prompt");
    for client in [&mut older, &mut scored] {
        client.read();
        client.check(256);
    }
}
