//! The batcher over a decoder that remembers tokens instead of keys and values, so that a row that is stale, foreign or written
//! under somebody's eyes shows in the answer or in a check.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};

use downshift_kernels::kv::KV_BLOCK;
use downshift_worker::{PromptToken, TokenLogprob};

use super::*;
use crate::models::{Batch, Forward, Times};
use crate::sampler::{Sampler, SamplingParams};

const N_VOCAB: usize = 50;

/// The token that makes logits NaN wherever it is seen.
const POISON: u32 = 49;

struct Recall {
    /// Token and position of each row of the pool.
    rows: Vec<Option<(u32, usize)>>,
    n_computed: Arc<AtomicUsize>,
    max_rows: usize,
}

impl Forward for Recall {
    fn forward(&mut self, batch: &Batch, on_logits: &mut dyn FnMut(usize, &mut [f32])) -> Result<(), Error> {
        for (a, segment) in batch.segments().iter().enumerate() {
            let end = segment.first_pos + segment.rows.len();
            let written = &batch.blocks(segment)[segment.first_pos / KV_BLOCK..end.div_ceil(KV_BLOCK)];
            for (b, other) in batch.segments().iter().enumerate() {
                assert!(a == b || written.iter().all(|block| !batch.blocks(other).contains(block)), "a block is written and shared");
            }
            for (pos, row) in (segment.first_pos..).zip(segment.rows.clone()) {
                let at = batch.blocks(segment)[pos / KV_BLOCK] as usize * KV_BLOCK + pos % KV_BLOCK;
                self.rows[at] = Some((batch.token_ids()[row], pos));
            }
        }
        self.n_computed.fetch_add(batch.len(), Ordering::Relaxed);
        for (idx, &row) in batch.outputs().iter().enumerate() {
            let segment = batch.segments().iter().find(|segment| segment.rows.contains(&(row as usize))).expect("the row's run");
            let blocks = batch.blocks(segment);
            let seen = (0..=batch.positions()[row as usize]).map(|pos| {
                let (id, at) = self.rows[blocks[pos / KV_BLOCK] as usize * KV_BLOCK + pos % KV_BLOCK].expect("a row that was written");
                assert_eq!(at, pos, "a row of another position");
                id
            });
            let seen: Vec<u32> = seen.collect();
            let mut logits = vec![if seen.contains(&POISON) { f32::NAN } else { 0.0 }; N_VOCAB];
            logits[next_token(&seen) as usize] += 1.0;
            on_logits(idx, &mut logits);
        }
        Ok(())
    }

    fn copy_kv(&mut self, from: u32, to: u32, positions: usize) -> Result<(), Error> {
        let from = from as usize * KV_BLOCK;
        self.rows.copy_within(from..from + positions, to as usize * KV_BLOCK);
        Ok(())
    }

    fn set_threads(&mut self, _threads: usize) {}

    fn take_times(&mut self) -> Times {
        Times::default()
    }

    fn max_rows(&self) -> usize {
        self.max_rows
    }
}

/// What [`Recall`] says after `seen`: depends on every token and its place.
pub(super) fn next_token(seen: &[u32]) -> u32 {
    let hash = seen.iter().fold(7u64, |hash, &id| (hash ^ u64::from(id)).wrapping_mul(0x0100_0000_01b3).rotate_left(11));
    (hash % u64::from(POISON)) as u32
}

/// The answer of a model that has nothing in its cache.
fn alone(prompt: &[u32], n: usize) -> Vec<u32> {
    let mut seen = prompt.to_vec();
    for _ in 0..n {
        seen.push(next_token(&seen));
    }
    seen.split_off(prompt.len())
}

pub(super) struct Rig {
    pub batcher: Batcher,
    pub n_computed: Arc<AtomicUsize>,
    next_id: u64,
}

/// The client's end of a request.
pub(super) struct Client {
    pub id: RequestId,
    prompt: Vec<u32>,
    max_tokens: usize,
    is_scored: bool,
    events: Receiver<Event>,
    pub token_ids: Vec<u32>,
    pub n_cached: Option<usize>,
    pub scored: Vec<PromptToken>,
    pub end: Option<Result<FinishReason, Arc<Error>>>,
}

impl Rig {
    pub fn new(positions: usize, parallel: usize) -> Self {
        let n_computed = Arc::<AtomicUsize>::default();
        let n_rows = positions.next_multiple_of(KV_BLOCK);
        let decoder = Recall { rows: vec![None; n_rows], n_computed: Arc::clone(&n_computed), max_rows: 96 };
        Self { batcher: Batcher::new(Session::new(Box::new(decoder), positions, N_VOCAB), parallel), n_computed, next_id: 0 }
    }

    fn submit(&mut self, prompt: &[u32], max_tokens: usize) -> Client {
        self.submit_as(prompt, max_tokens, false)
    }

    /// With `is_scored`, log-probabilities of the prompt are asked for, and one alternative.
    pub fn submit_as(&mut self, prompt: &[u32], max_tokens: usize, is_scored: bool) -> Client {
        self.next_id += 1;
        let id = RequestId(self.next_id);
        let (sender, events) = channel();
        self.batcher.submit(Job {
            id,
            token_ids: prompt.to_vec(),
            n_resumed: 0,
            sampler: Sampler::new(SamplingParams { temperature: 0.0, ..SamplingParams::default() }, N_VOCAB).expect("greedy"),
            max_tokens,
            is_end: Arc::new(|_| false),
            logprobs: None,
            prompt_logprobs: is_scored.then_some(1),
            events: sender,
        });
        let (token_ids, n_cached, scored, end) = (Vec::new(), None, Vec::new(), None);
        Client { id, prompt: prompt.to_vec(), max_tokens, is_scored, events, token_ids, n_cached, scored, end }
    }

    pub fn step(&mut self) {
        self.batcher.step();
        self.check();
    }

    fn check(&self) {
        let held: Vec<_> = self.batcher.running.iter().map(|request| &request.sequence).collect();
        self.batcher.session.check(&held);
        assert!(self.batcher.waiting.iter().all(|request| request.sequence.is_empty()), "what waits holds nothing");
    }

    /// Steps until nothing is left to do.
    pub fn finish(&mut self) {
        for _ in 0..100_000 {
            if self.batcher.is_empty() {
                assert_eq!(self.batcher.session.used_positions(), 0, "all blocks are back");
                return;
            }
            self.step();
        }
        panic!("{} requests never end", self.batcher.len());
    }

    /// The answer to `prompt`, and how many of its tokens were computed.
    fn ask(&mut self, prompt: &[u32], max_tokens: usize) -> (Client, usize) {
        let before = self.n_computed.load(Ordering::Relaxed);
        let mut client = self.submit(prompt, max_tokens);
        self.finish();
        client.read();
        let n_computed = self.n_computed.load(Ordering::Relaxed) - before;
        (client, n_computed + 1 - max_tokens)
    }
}

impl Client {
    pub fn read(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            assert!(self.end.is_none(), "nothing follows the end");
            match event {
                Event::Prefilled { n_cached } => {
                    assert!(self.n_cached.replace(n_cached).is_none() && self.token_ids.is_empty(), "once, before the first token");
                    assert!(n_cached < self.prompt.len());
                }
                Event::Prompt(tokens) => {
                    assert!(self.n_cached.is_none() && self.token_ids.is_empty(), "before the answer");
                    self.scored.extend(tokens);
                }
                Event::Last(_) => panic!("no token ends an answer here"),
                Event::Token { id, .. } => self.token_ids.push(id),
                Event::End(end) => self.end = Some(end),
            }
        }
    }

    /// Whole and right, or honest about why not.
    pub fn check(&self, positions: usize) {
        match self.end.as_ref().expect("an end") {
            Ok(_) => {
                assert!(!self.prompt.contains(&POISON));
                assert_eq!(self.token_ids, alone(&self.prompt, self.token_ids.len()), "not the answer of a fresh session");
                assert_eq!(self.token_ids.len(), self.max_tokens.min(positions + 1 - self.prompt.len()));
                assert_eq!(self.scored, if self.is_scored { scores(&self.prompt) } else { Vec::new() });
                assert!(!self.is_scored || self.n_cached == Some(0), "logits are not kept");
            }
            Err(error) => {
                assert!(matches!(**error, Error::NonFinite { .. }) && self.prompt.contains(&POISON), "{error}");
                assert!(self.token_ids.is_empty());
            }
        }
    }
}

/// The log-probabilities of a prompt, each from all that comes before its token.
fn scores(prompt: &[u32]) -> Vec<PromptToken> {
    let total = (f64::from(1f32.exp()) + (N_VOCAB - 1) as f64).ln();
    let score = |at: usize| {
        let likely = next_token(&prompt[..at]);
        let logprob = |token_id: u32| (f64::from(u8::from(token_id == likely)) - total) as f32;
        PromptToken::Scored(TokenLogprob { token_id: prompt[at], logprob: logprob(prompt[at]), top: vec![(likely, logprob(likely))] })
    };
    [PromptToken::First(prompt[0])].into_iter().chain((1..prompt.len()).map(score)).collect()
}

/// Tokens of one of several families, so that prompts begin alike by chance.
pub(super) fn text(family: u32, n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| (i * i + i * family + 3 * family) % POISON).collect()
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn prompt(&mut self, longest: usize) -> Vec<u32> {
        let stem = [0, 20, 64, 65, 100, 128, 200][self.roll(7)];
        let (family, own) = (self.roll(3) as u32, self.roll(90) + 1);
        let mut prompt = [text(family, stem), text(100 + self.roll(4) as u32, own)].concat();
        if self.roll(30) == 0 {
            let at = self.roll(prompt.len());
            prompt[at] = POISON;
        }
        prompt.truncate(longest);
        prompt
    }
}

#[test]
fn whatever_comes_and_goes_every_answer_is_that_of_a_fresh_session_and_no_block_is_lost() {
    let mut n_answers = 0;
    for seed in 0..100 {
        let mut dice = Dice(seed * 77 + 1);
        let positions = 64 * (2 + dice.roll(9)) - dice.roll(64);
        let parallel = 1 + dice.roll(5);
        let mut rig = Rig::new(positions, parallel);
        let mut clients: HashMap<u64, Client> = HashMap::new();
        let mut ended = Vec::new();
        for _ in 0..400 {
            match dice.roll(10) {
                0 | 1 if clients.len() < 8 => {
                    let prompt = dice.prompt(positions - 1);
                    let is_scored = dice.roll(3) == 0;
                    let max_tokens = dice.roll(100) + usize::from(!is_scored);
                    let client = rig.submit_as(&prompt, max_tokens, is_scored);
                    clients.insert(client.id.0, client);
                }
                2 if !clients.is_empty() => {
                    let mut ids: Vec<u64> = clients.keys().copied().collect();
                    ids.sort_unstable();
                    let client = clients.remove(&ids[dice.roll(ids.len())]).expect("a client");
                    // Either says that it leaves, or is found to have left; both in any state.
                    if dice.roll(2) == 0 {
                        rig.batcher.cancel(client.id);
                        rig.check();
                    }
                }
                _ => rig.step(),
            }
            clients.values_mut().for_each(Client::read);
            let done: Vec<u64> = clients.iter().filter(|(_, client)| client.end.is_some()).map(|(&id, _)| id).collect();
            ended.extend(done.iter().filter_map(|id| clients.remove(id)));
        }
        rig.finish();
        clients.values_mut().for_each(Client::read);
        ended.extend(clients.into_values());
        ended.iter().for_each(|client| client.check(positions));
        n_answers += ended.len();
    }
    assert!(n_answers > 1000, "too little happened: {n_answers} answers");
}

#[test]
fn what_an_ended_sequence_left_is_not_computed_again() {
    let mut rig = Rig::new(2048, 2);
    let first = text(1, 150);
    let (client, n_computed) = rig.ask(&first, 30);
    assert_eq!((client.n_cached, n_computed), (Some(0), 150));
    // A conversation goes on: the answer is part of the next prompt. Its last token was drawn and never fed.
    let second = [first.clone(), client.token_ids.clone(), text(9, 40)].concat();
    let (client, n_computed) = rig.ask(&second, 5);
    assert_eq!((client.n_cached, n_computed), (Some(176), 44));
    client.check(2048);
    // The same again: but for the tokens that are always computed.
    let (client, n_computed) = rig.ask(&second, 5);
    assert_eq!((client.n_cached, n_computed), (Some(192), 28));
    client.check(2048);
    // Another question after the same beginning, in the middle of a block.
    let (client, n_computed) = rig.ask(&[&first[..100], &text(4, 30)[..]].concat(), 5);
    assert_eq!((client.n_cached, n_computed), (Some(96), 34));
    client.check(2048);
}

#[test]
fn requests_that_begin_alike_at_the_same_time_compute_it_once() {
    let mut rig = Rig::new(2048, 4);
    let system = text(2, 300);
    let mut clients: Vec<Client> = (0..4).map(|idx| rig.submit(&[system.clone(), text(10 + idx, 20)].concat(), 8)).collect();
    rig.finish();
    for client in &mut clients {
        client.read();
        client.check(2048);
    }
    let n_cached: Vec<_> = clients.iter().map(|client| client.n_cached).collect();
    assert_eq!(n_cached[0], Some(0));
    assert!(n_cached[1..].iter().all(|&n| n >= Some(256)), "{n_cached:?}");
}

#[test]
fn a_new_request_always_wins_over_what_is_kept() {
    let positions = 256;
    let mut rig = Rig::new(positions, 2);
    for family in 0..6 {
        let (client, _) = rig.ask(&text(family, 200), 50);
        client.check(positions);
        assert_eq!(rig.batcher.session.used_positions(), 0);
    }
}

#[test]
fn requests_are_answered_in_the_order_they_came() {
    let mut rig = Rig::new(512, 1);
    let mut clients: Vec<Client> = (0..4).map(|family| rig.submit(&text(family, 70), 3)).collect();
    let mut order = Vec::new();
    while !rig.batcher.is_empty() {
        rig.step();
        for (idx, client) in clients.iter_mut().enumerate() {
            let had = client.token_ids.len();
            client.read();
            order.extend(std::iter::repeat_n(idx, client.token_ids.len() - had));
        }
    }
    assert_eq!(order, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]);
}

#[test]
fn streams_get_a_token_every_step_and_a_short_prompt_does_not_wait_for_a_long_one() {
    let mut rig = Rig::new(4096, 4);
    let mut stream = rig.submit(&text(1, 10), 500);
    rig.step();
    let mut long = rig.submit(&text(2, 2000), 5);
    rig.step();
    let mut short = rig.submit(&text(3, 20), 5);
    for step in 1..=5 {
        let had = stream.token_ids.len();
        rig.step();
        stream.read();
        assert!(stream.token_ids.len() > had, "the stream stalls in step {step}");
    }
    short.read();
    long.read();
    assert!(!short.token_ids.is_empty(), "20 tokens waited for 2000");
    assert!(long.token_ids.is_empty());
    rig.finish();
    for client in [&mut stream, &mut long, &mut short] {
        client.read();
        client.check(4096);
    }
}

#[test]
fn a_cancelled_request_is_gone_whatever_it_was_doing() {
    for steps in [0, 1, 3, 30] {
        for (parallel, positions) in [(2, 512), (2, 1024), (1, 1024)] {
            let mut rig = Rig::new(positions, parallel);
            let mut other = rig.submit(&text(5, 30), 200);
            let mut client = rig.submit(&text(1, 400), 200);
            for _ in 0..steps {
                rig.step();
            }
            client.read();
            let seen = client.token_ids.len();
            rig.batcher.cancel(client.id);
            assert_eq!(rig.batcher.len(), 1, "after {steps} steps");
            rig.finish();
            client.read();
            assert_eq!((client.token_ids.len(), client.end.is_none()), (seen, true));
            other.read();
            other.check(positions);
        }
    }
}

#[test]
fn rows_that_are_not_finite_are_not_kept() {
    let mut rig = Rig::new(1024, 2);
    let mut poisoned = text(1, 200);
    poisoned[100] = POISON;
    for _ in 0..2 {
        let mut client = rig.submit(&poisoned, 5);
        rig.finish();
        client.read();
        client.check(1024);
    }
    let before = rig.n_computed.load(Ordering::Relaxed);
    let mut client = rig.submit(&poisoned, 5);
    rig.finish();
    client.read();
    assert_eq!(rig.n_computed.load(Ordering::Relaxed) - before, 200, "nothing of it was reused");
}
