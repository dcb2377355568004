//! Runs one test and keeps its samples.

use std::time::Instant;

use downshift_engine::{Error, Feed, Sequence, Session, Times};

use crate::plan::Test;

/// Seconds of each repetition of one test.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// What was measured.
    pub test: Test,
    /// One entry a repetition.
    pub seconds: Vec<f64>,
    /// Where they went, all repetitions together.
    pub times: Times,
}

impl Measurement {
    /// Tokens a second of each repetition, all sequences together.
    pub fn tokens_per_second(&self) -> Vec<f64> {
        let tokens = ((self.test.n_prompt + self.test.n_gen) * self.test.n_parallel) as f64;
        self.seconds.iter().map(|seconds| tokens / seconds).collect()
    }
}

/// Runs `test` once to warm up and then `repetitions` times; `progress` is told the number of each repetition before it starts.
///
/// # Errors
/// The session's context is too short for the test, or the device fails.
pub fn measure(session: &mut Session, test: Test, repetitions: usize, progress: &mut dyn FnMut(usize)) -> Result<Measurement, Error> {
    let mut tokens = Tokens { state: 1, n_vocab: session.n_vocab() };
    let warm_up = Test { n_depth: 0, n_gen: test.n_gen.min(1), ..test };
    progress(0);
    run(session, warm_up, &mut tokens)?;
    let mut seconds = Vec::with_capacity(repetitions);
    let mut times = Times::default();
    for repetition in 1..=repetitions {
        progress(repetition);
        seconds.push(run(session, test, &mut tokens)?);
        times += session.take_times();
    }
    Ok(Measurement { test, seconds, times })
}

/// One repetition from an empty cache; the depth is filled before the clock starts.
fn run(session: &mut Session, test: Test, tokens: &mut Tokens) -> Result<f64, Error> {
    let mut sequences: Vec<Sequence> = (0..test.n_parallel).map(|_| Sequence::default()).collect();
    let outcome = timed(session, &mut sequences, test, tokens);
    for sequence in &mut sequences {
        session.release(sequence);
    }
    outcome
}

fn timed(session: &mut Session, sequences: &mut [Sequence], test: Test, tokens: &mut Tokens) -> Result<f64, Error> {
    for sequence in sequences.iter_mut() {
        prefill(session, sequence, &tokens.draw(test.n_depth))?;
    }
    let prompts: Vec<_> = sequences.iter().map(|_| tokens.draw(test.n_prompt)).collect();
    let generated: Vec<_> = (0..test.n_gen).map(|_| tokens.draw(sequences.len())).collect();
    session.take_times();
    let start = Instant::now();
    for (sequence, prompt) in sequences.iter_mut().zip(&prompts) {
        prefill(session, sequence, prompt)?;
    }
    for ids in &generated {
        let feed = |(sequence, id)| Feed { sequence, token_ids: std::slice::from_ref(id), logits_from: 0 };
        step(session, &mut sequences.iter_mut().zip(ids).map(feed).collect::<Vec<_>>())?;
    }
    Ok(start.elapsed().as_secs_f64())
}

/// Feeds tokens in the largest steps there are; logits only of the last one.
fn prefill(session: &mut Session, sequence: &mut Sequence, token_ids: &[u32]) -> Result<(), Error> {
    let n_steps = token_ids.len().div_ceil(session.max_rows());
    for (idx, chunk) in token_ids.chunks(session.max_rows()).enumerate() {
        let logits_from = if idx + 1 == n_steps { chunk.len() - 1 } else { chunk.len() };
        step(session, &mut [Feed { sequence, token_ids: chunk, logits_from }])?;
    }
    Ok(())
}

fn step(session: &mut Session, feeds: &mut [Feed<'_>]) -> Result<(), Error> {
    session.step(feeds, &mut |_, logits| {
        std::hint::black_box(logits);
    })
}

/// Random tokens, the same in every run.
struct Tokens {
    state: u64,
    n_vocab: usize,
}

impl Tokens {
    fn draw(&mut self, n: usize) -> Vec<u32> {
        let next = |_| {
            // Knuth's MMIX generator; its high bits are the random ones.
            self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((self.state >> 33) % self.n_vocab as u64) as u32
        };
        (0..n).map(next).collect()
    }
}
