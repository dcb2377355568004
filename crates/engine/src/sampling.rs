//! From a request's sampling parameters, the model's and the defaults to one sampler.

use downshift_worker::{Request, Resume, SamplingParams};

use crate::error::Error;
use crate::grammar::{self, Guide};
use crate::output::Thought;
use crate::prompt::PromptBuilder;
use crate::sampler::{self, Constraint, Sampler};

/// The sampler of a request over a model's defaults. Penalties see the prompt and what an earlier attempt generated.
///
/// # Errors
/// [`Error::Sampling`] names the parameter that is out of range.
pub(crate) fn sampler(
    request: &Request,
    model: &SamplingParams,
    n_vocab: usize,
    prompt: &[u32],
    resumed: &[u32],
    constraint: Option<Box<dyn Constraint>>,
) -> Result<Sampler, Error> {
    let asked = request.sampling.or(model);
    let defaults = sampler::SamplingParams::default();
    let params = sampler::SamplingParams {
        temperature: asked.temperature.unwrap_or(defaults.temperature),
        top_k: asked.top_k.map_or(defaults.top_k, |n| n as usize),
        top_p: asked.top_p.unwrap_or(defaults.top_p),
        min_p: asked.min_p.unwrap_or(defaults.min_p),
        repeat_penalty: asked.repeat_penalty.unwrap_or(defaults.repeat_penalty),
        frequency_penalty: asked.frequency_penalty.unwrap_or(defaults.frequency_penalty),
        presence_penalty: asked.presence_penalty.unwrap_or(defaults.presence_penalty),
        penalty_last_n: asked.penalty_last_n.map_or(defaults.penalty_last_n, |n| n as usize),
        seed: asked.seed,
        logit_bias: asked.logit_bias,
    };
    let mut sampler = Sampler::new(params, n_vocab)?;
    for &id in prompt.iter().chain(resumed) {
        sampler.accept(id);
    }
    if let Some(constraint) = constraint {
        sampler.constrain(constraint);
    }
    Ok(sampler)
}

/// The grammar of a request's answer, as far as an earlier attempt has come in it.
///
/// # Errors
/// As [`grammar::guide`].
pub(crate) fn guide(request: &Request, prompts: &PromptBuilder, thought: Thought, resumed: &[u32]) -> Result<Option<Guide>, Error> {
    let Some(mut guide) = grammar::guide(request, prompts, thought)? else { return Ok(None) };
    match &request.resume {
        None => {}
        Some(Resume::Tokens { .. }) => resumed.iter().for_each(|&id| guide.accept(id)),
        Some(Resume::Text { text, reasoning, .. }) => {
            guide.accept_text(prompts.dialect().thinking.is_some() && !reasoning.is_empty(), text)
        }
    }
    Ok(Some(guide))
}

/// Ids of what an earlier attempt had generated, as this model spells them.
pub(crate) fn resumed_tokens(request: &Request, prompts: &PromptBuilder, thought: Thought) -> Vec<u32> {
    match &request.resume {
        None => Vec::new(),
        Some(Resume::Tokens { token_ids, .. }) => token_ids.clone(),
        Some(Resume::Text { text, .. }) if request.input.is_infill() => prompts.filled(text),
        Some(Resume::Text { text, reasoning, .. }) => prompts.continued(reasoning, text, thought),
    }
}
