//! Chooses the next token from its logits: first a grammar's mask, then llama.cpp's order of logit bias, penalties, top-k,
//! top-p, min-p, temperature, and a draw. The draw depends on the seed and on the token's number only, so a sequence can
//! be resumed without saved state.
//! Does not own grammars ([`Constraint`] is their way in), stopping at end-of-generation tokens, nor detokenizing.

mod params;
mod stop;

#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};

pub use params::{InvalidParameter, SamplingParams};
pub use stop::{StopMatcher, StopStep};

/// Logits that are no distribution: NaN or positive infinity somewhere, or nothing but negative infinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the logits are not finite (token {token_id})")]
pub struct NonFinite {
    /// The first token it shows at.
    pub token_id: u32,
}

/// Why no token could be chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// The model's logits are broken.
    #[error(transparent)]
    NonFinite(#[from] NonFinite),
    /// No token may follow, or finding those that may was given up.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
}

/// A constraint that allows no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct ConstraintError {
    /// What is wrong.
    pub reason: String,
    /// Whether it takes more work than allowed; otherwise the vocabulary cannot spell what must come next.
    pub is_too_complex: bool,
}

/// What tokens may come next in one sequence.
pub trait Constraint: Send {
    /// Sets the logits of tokens that must not come next to negative infinity.
    ///
    /// # Errors
    /// Where none may, or where that takes too much work to say.
    fn mask(&mut self, logits: &mut [f32]) -> Result<(), ConstraintError>;

    /// Takes the token that was chosen.
    fn accept(&mut self, token_id: u32);

    /// Whether nothing may follow.
    fn is_complete(&self) -> bool;

    /// Whether anything may follow from now on, so that it need not be asked again.
    fn is_spent(&self) -> bool {
        false
    }
}

/// Log-probabilities of one position, from the model's own distribution.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// Of the token that was chosen.
    pub chosen: f32,
    /// The likeliest tokens with theirs, likeliest first.
    pub top: Vec<(u32, f32)>,
}

#[derive(Clone, Copy)]
struct Candidate {
    logit: f32,
    token_id: u32,
}

/// Likeliest first; equally likely ones by id.
fn by_rank(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.token_id.cmp(&b.token_id))
}

/// Chooses tokens for one sequence.
pub struct Sampler {
    params: SamplingParams,
    n_vocab: usize,
    seed: u64,
    recent: Option<Recent>,
    constraint: Option<Box<dyn Constraint>>,
    /// The logits after mask, bias and penalties; unused without any.
    adjusted: Vec<f32>,
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// A sampler for a vocabulary of `n_vocab` tokens. Allocates all that it will need.
    ///
    /// # Errors
    /// As `SamplingParams::validate`, and for a biased token outside the vocabulary.
    pub fn new(params: SamplingParams, n_vocab: usize) -> Result<Self, InvalidParameter> {
        params.validate()?;
        if let Some((token_id, _)) = params.logit_bias.iter().find(|(id, _)| *id as usize >= n_vocab) {
            let reason = format!("names token {token_id} of a vocabulary of {n_vocab}");
            return Err(InvalidParameter { parameter: "logit_bias", reason });
        }
        let recent = params.has_penalties().then(|| Recent::new(params.penalty_last_n, n_vocab));
        let adjusts = recent.is_some() || !params.logit_bias.is_empty();
        let n_candidates = match params.top_k {
            _ if params.is_greedy() => 0,
            0 => n_vocab,
            k => selection_room(k).min(n_vocab),
        };
        Ok(Self {
            seed: params.seed.unwrap_or_else(random_seed),
            n_vocab,
            recent,
            constraint: None,
            adjusted: Vec::with_capacity(if adjusts { n_vocab } else { 0 }),
            candidates: Vec::with_capacity(n_candidates),
            params,
        })
    }

    /// Lets only those tokens through that `constraint` allows. It has seen all tokens that were accepted before.
    pub fn constrain(&mut self, constraint: Box<dyn Constraint>) {
        self.adjusted.reserve_exact(self.n_vocab);
        self.constraint = Some(constraint);
    }

    /// Whether a constraint lets nothing follow what was chosen.
    pub fn is_complete(&self) -> bool {
        self.constraint.as_ref().is_some_and(|constraint| constraint.is_complete())
    }

    /// The seed in use, to repeat the choices with.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Makes a token recent, for the penalties: one that was chosen, or one of the prompt.
    pub fn accept(&mut self, token_id: u32) {
        if let Some(recent) = &mut self.recent {
            recent.push(token_id);
        }
    }

    /// Chooses the token after `n_generated` others, and takes it for the penalties and the constraint.
    ///
    /// # Errors
    /// As [`Sampler::sample`].
    pub fn next(&mut self, logits: &[f32], n_generated: u64) -> Result<u32, SampleError> {
        let token_id = self.sample(logits, n_generated)?;
        self.accept(token_id);
        if let Some(constraint) = &mut self.constraint {
            constraint.accept(token_id);
        }
        self.constraint.take_if(|constraint| constraint.is_spent());
        Ok(token_id)
    }

    /// The token after `n_generated` others, from its `logits` (`n_vocab`).
    ///
    /// # Errors
    /// If a logit is NaN or positive infinity, or none is finite; if the constraint allows none.
    ///
    /// # Panics
    /// If `logits` has another length than the vocabulary.
    pub fn sample(&mut self, logits: &[f32], n_generated: u64) -> Result<u32, SampleError> {
        assert_eq!(logits.len(), self.n_vocab, "logits of another vocabulary");
        if self.recent.is_none() && self.params.logit_bias.is_empty() && self.constraint.is_none() {
            let max = checked_max(logits)?;
            return Ok(choose(&self.params, &mut self.candidates, logits, max, self.seed, n_generated));
        }
        checked_max(logits)?;
        self.adjusted.clear();
        self.adjusted.extend_from_slice(logits);
        if let Some(constraint) = &mut self.constraint {
            constraint.mask(&mut self.adjusted)?;
        }
        // A constraint is stronger than a ban: where only banned tokens may follow, one of them does.
        let may_ban = self.constraint.is_none() || self.leaves_some();
        for &(token_id, bias) in self.params.logit_bias.iter().filter(|(_, bias)| may_ban || bias.is_finite()) {
            self.adjusted[token_id as usize] += bias;
        }
        if let Some(recent) = &mut self.recent {
            recent.penalize(&mut self.adjusted, &self.params);
        }
        let max = checked_max(&self.adjusted)?;
        Ok(choose(&self.params, &mut self.candidates, &self.adjusted, max, self.seed, n_generated))
    }

    /// Whether a masked token is left that no bias bans.
    fn leaves_some(&self) -> bool {
        let bans = self.params.logit_bias.iter().filter(|(_, bias)| !bias.is_finite());
        let banned: HashSet<u32> = bans.map(|(token_id, _)| *token_id).collect();
        let allowed = (0u32..).zip(&self.adjusted).filter(|(_, logit)| **logit > f32::NEG_INFINITY);
        banned.is_empty() || allowed.into_iter().any(|(token_id, _)| !banned.contains(&token_id))
    }
}

fn is_bad(logit: f32) -> bool {
    logit.is_nan() || logit == f32::INFINITY
}

/// The largest logit. NaN and infinity are looked for in the same pass.
fn checked_max(logits: &[f32]) -> Result<f32, NonFinite> {
    const LANES: usize = 16;
    let mut max = [f32::NEG_INFINITY; LANES];
    let mut bad = [false; LANES];
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            bad[lane] |= is_bad(chunk[lane]);
            max[lane] = if chunk[lane] > max[lane] { chunk[lane] } else { max[lane] };
        }
    }
    for (lane, &logit) in rest.iter().enumerate() {
        bad[lane] |= is_bad(logit);
        max[lane] = max[lane].max(logit);
    }
    let max = max.into_iter().fold(f32::NEG_INFINITY, f32::max);
    if bad.contains(&true) || max == f32::NEG_INFINITY {
        let at = logits.iter().position(|l| is_bad(*l)).unwrap_or(0);
        return Err(NonFinite { token_id: at as u32 });
    }
    Ok(max)
}

/// Draws from finite `logits` whose largest is `max`.
fn choose(params: &SamplingParams, candidates: &mut Vec<Candidate>, logits: &[f32], max: f32, seed: u64, number: u64) -> u32 {
    if params.is_greedy() {
        return logits.iter().position(|l| *l == max).unwrap_or(0) as u32;
    }
    let floor = max + params.min_p.ln();
    candidates.clear();
    let truncated = params.top_k > 0 && params.top_k < logits.len();
    // Top-p counts in the probabilities of what top-k left. Min-p takes a prefix of the same order and
    // compares to the likeliest only, so it may go first.
    let total = if truncated {
        select_top(candidates, logits, params.top_k);
        let total = candidates.iter().map(|c| f64::from((c.logit - max).exp())).sum();
        candidates.retain(|c| c.logit >= floor);
        total
    } else {
        let all = logits.iter().enumerate().filter(|(_, l)| **l >= floor && **l > f32::NEG_INFINITY);
        candidates.extend(all.map(|(id, &logit)| Candidate { logit, token_id: id as u32 }));
        if params.top_p < 1.0 { logits.iter().map(|l| f64::from((l - max).exp())).sum() } else { 0.0 }
    };
    if params.top_p < 1.0 {
        keep_top_p(candidates, max, total * f64::from(params.top_p));
    }
    let weight = |c: &Candidate| f64::from(((c.logit - max) / params.temperature).exp());
    let total: f64 = candidates.iter().map(weight).sum();
    let mut left = uniform(seed, number) * total;
    for candidate in candidates.iter() {
        left -= weight(candidate);
        if left < 0.0 {
            return candidate.token_id;
        }
    }
    // Only rounding leads here; the likeliest is always a candidate.
    candidates.iter().min_by(|a, b| by_rank(a, b)).map_or(0, |c| c.token_id)
}

/// Candidates held while the top `k` are looked for.
fn selection_room(k: usize) -> usize {
    k.saturating_add(k.max(1024))
}

/// The `k` likeliest of `logits`, sorted. Keeps a buffer and the worst logit worth adding, so most of the
/// vocabulary is only compared.
fn select_top(candidates: &mut Vec<Candidate>, logits: &[f32], k: usize) {
    let room = selection_room(k);
    let mut worst = f32::NEG_INFINITY;
    for (id, &logit) in logits.iter().enumerate() {
        // Not `>=`: an equal one found later has a higher id and loses.
        if logit > worst {
            candidates.push(Candidate { logit, token_id: id as u32 });
            if candidates.len() == room {
                candidates.select_nth_unstable_by(k - 1, by_rank);
                candidates.truncate(k);
                worst = candidates[k - 1].logit;
            }
        }
    }
    if candidates.len() > k {
        candidates.select_nth_unstable_by(k - 1, by_rank);
        candidates.truncate(k);
    }
    candidates.sort_unstable_by(by_rank);
}

/// Keeps the fewest of the likeliest whose weights reach `wanted`. Sorts no more than it keeps, roughly.
fn keep_top_p(candidates: &mut Vec<Candidate>, max: f32, wanted: f64) {
    let mut sorted = 0;
    let mut sum = 0.0;
    while sorted < candidates.len() {
        let step = sorted.max(64).min(candidates.len() - sorted);
        let rest = &mut candidates[sorted..];
        if step < rest.len() {
            rest.select_nth_unstable_by(step - 1, by_rank);
        }
        rest[..step].sort_unstable_by(by_rank);
        for at in sorted..sorted + step {
            sum += f64::from((candidates[at].logit - max).exp());
            if sum >= wanted {
                candidates.truncate(at + 1);
                return;
            }
        }
        sorted += step;
    }
}

/// Log-probabilities of `chosen` and of the `n_top` likeliest tokens under `logits`.
///
/// # Errors
/// As `Sampler::sample`.
pub fn logprobs(logits: &[f32], chosen: u32, n_top: usize) -> Result<Logprobs, NonFinite> {
    let max = checked_max(logits)?;
    let total: f64 = logits.iter().map(|l| f64::from((l - max).exp())).sum();
    let log_total = f64::from(max) + total.ln();
    let logprob = |logit: f32| (f64::from(logit) - log_total) as f32;
    let mut top = Vec::new();
    if n_top > 0 {
        select_top(&mut top, logits, n_top.min(logits.len()));
    }
    Ok(Logprobs {
        chosen: logits.get(chosen as usize).map_or(f32::NEG_INFINITY, |l| logprob(*l)),
        top: top.into_iter().map(|c| (c.token_id, logprob(c.logit))).collect(),
    })
}

/// The last tokens, and how often each of the vocabulary is among them.
struct Recent {
    window: VecDeque<u32>,
    last_n: usize,
    counts: Vec<u32>,
}

/// Marks a count whose token was dealt with.
const DONE: u32 = 1 << 31;

impl Recent {
    fn new(last_n: usize, n_vocab: usize) -> Self {
        Self { window: VecDeque::with_capacity(last_n), last_n, counts: vec![0; n_vocab] }
    }

    fn push(&mut self, token_id: u32) {
        let Some(count) = self.counts.get_mut(token_id as usize) else { return };
        *count += 1;
        if self.window.len() == self.last_n
            && let Some(oldest) = self.window.pop_front()
        {
            self.counts[oldest as usize] -= 1;
        }
        self.window.push_back(token_id);
    }

    fn penalize(&mut self, logits: &mut [f32], params: &SamplingParams) {
        for &token_id in &self.window {
            let count = &mut self.counts[token_id as usize];
            if *count & DONE != 0 {
                continue;
            }
            let logit = &mut logits[token_id as usize];
            // Dividing alone would make tokens with negative logits likelier.
            *logit = if *logit <= 0.0 { *logit * params.repeat_penalty } else { *logit / params.repeat_penalty };
            *logit -= *count as f32 * params.frequency_penalty + params.presence_penalty;
            *count |= DONE;
        }
        for &token_id in &self.window {
            self.counts[token_id as usize] &= !DONE;
        }
    }
}

/// A number in [0, 1) that depends on nothing but its arguments: SplitMix64's output function, twice.
fn uniform(seed: u64, number: u64) -> f64 {
    let bits = mix(mix(seed).wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn random_seed() -> u64 {
    // The standard library keys its hashers randomly.
    RandomState::new().hash_one(0u8)
}
