//! What a request asks of sampling, and whether it makes sense. Does not own the sampling.

/// How the next token is chosen. Names and meanings are llama.cpp's.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f32,
    /// Keeps this many of the likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the fewest of the likeliest tokens whose probabilities reach this sum; 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens at least this fraction as likely as the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Divides positive logits of recent tokens and multiplies negative ones; 1 changes nothing.
    pub repeat_penalty: f32,
    /// Subtracted from a recent token's logit for each time that it occurred.
    pub frequency_penalty: f32,
    /// Subtracted from a recent token's logit once.
    pub presence_penalty: f32,
    /// How many tokens are recent; 0 turns the three penalties off.
    pub penalty_last_n: usize,
    /// Added to the logits of these tokens before anything else; negative infinity bans one.
    pub logit_bias: Vec<(u32, f32)>,
    /// Makes the choice repeatable; a random one is drawn without it.
    pub seed: Option<u64>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            penalty_last_n: 64,
            logit_bias: Vec::new(),
            seed: None,
        }
    }
}

/// A parameter that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{parameter} {reason}")]
pub struct InvalidParameter {
    /// Its name in `SamplingParams`, or `stop`.
    pub parameter: &'static str,
    /// What it must be.
    pub reason: String,
}

/// Largest `penalty_last_n`: its window is allocated ahead.
const MAX_LAST_N: usize = 1 << 20;
/// Largest size of a penalty, bias or temperature; beyond it all tokens but one, or none, would count.
const MAX_SCALE: f32 = 1e6;

impl SamplingParams {
    /// Checks everything that does not depend on the vocabulary.
    ///
    /// # Errors
    /// Names the first parameter that is not a number or out of range.
    pub fn validate(&self) -> Result<(), InvalidParameter> {
        let within = |parameter, value: f32, low: f32, high: f32| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(InvalidParameter { parameter, reason: format!("must be between {low} and {high}, not {value}") })
        };
        within("temperature", self.temperature, 0.0, MAX_SCALE)?;
        within("top_p", self.top_p, 0.0, 1.0)?;
        within("min_p", self.min_p, 0.0, 1.0)?;
        within("repeat_penalty", self.repeat_penalty, f32::MIN_POSITIVE, MAX_SCALE)?;
        within("frequency_penalty", self.frequency_penalty, -MAX_SCALE, MAX_SCALE)?;
        within("presence_penalty", self.presence_penalty, -MAX_SCALE, MAX_SCALE)?;
        if self.penalty_last_n > MAX_LAST_N {
            let reason = format!("must be at most {MAX_LAST_N}, not {}", self.penalty_last_n);
            return Err(InvalidParameter { parameter: "penalty_last_n", reason });
        }
        for &(token_id, bias) in &self.logit_bias {
            if !(bias.abs() <= MAX_SCALE || bias == f32::NEG_INFINITY) {
                let reason = format!("of token {token_id} must be within {MAX_SCALE} or negative infinity, not {bias}");
                return Err(InvalidParameter { parameter: "logit_bias", reason });
            }
        }
        Ok(())
    }

    /// Whether the likeliest token is taken.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0 || self.top_k == 1
    }

    pub(super) fn has_penalties(&self) -> bool {
        self.penalty_last_n > 0 && (self.repeat_penalty != 1.0 || self.frequency_penalty != 0.0 || self.presence_penalty != 0.0)
    }
}
