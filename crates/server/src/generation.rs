//! The fields that all generating routes share, checked and put into the scheduler's terms.

use std::time::Duration;

use downshift_scheduler::config::OnStreamFailure;
use downshift_scheduler::{Options, Submission};
use downshift_worker::{Input, Request, RequestId, ResponseFormat, SamplingParams};
use serde_json::{Number, Value};

use crate::app::App;
use crate::error::ApiError;
use crate::openai::{CommonFields, ResponseFormat as FormatFields};

/// Answers to one prompt.
const MOST_CHOICES: u32 = 16;
const MOST_STOPS: usize = 16;
const LONGEST_STOP_BYTES: usize = 1024;
const MOST_BIASES: usize = 4096;
/// A JSON schema, a grammar, or all tools together.
const LONGEST_SCHEMA_BYTES: usize = 256 << 10;
/// Names in `model` and in `fallbacks`.
const MOST_MODELS: usize = 32;
/// What stands after a gap. It is copied for every answer.
const LONGEST_SUFFIX_BYTES: usize = 1 << 20;
/// Alternatives that are reported per token.
const MOST_LOGPROBS: u32 = 20;
const LONGEST_TIMEOUT_SECONDS: f64 = 86_400.0;

/// What is asked of a model beside its prompt, checked. Routes of other dialects fill it themselves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Generation {
    pub models: Vec<String>,
    pub options: Options,
    pub sampling: SamplingParams,
    pub max_tokens: Option<u32>,
    pub stop: Vec<String>,
    pub logprobs: Option<u8>,
    pub prompt_logprobs: Option<u8>,
    pub format: ResponseFormat,
    /// Answers per prompt.
    pub n: u32,
    pub include_usage: bool,
}

impl Generation {
    /// What `fields` ask for, or which of them is wrong.
    pub fn from_fields(app: &App, fields: CommonFields) -> Result<Self, ApiError> {
        let stream = fields.stream.unwrap_or(false);
        let include_usage = fields.stream_options.and_then(|options| options.0.include_usage).unwrap_or(false);
        let n = fields.n.unwrap_or(1);
        if !(1..=MOST_CHOICES).contains(&n) {
            return Err(ApiError::param("n", format!("`n` is {n}, and can be from 1 to {MOST_CHOICES}")));
        }
        let models = app.models_for(fields.model.map(|names| names.0));
        check_names("model", &models)?;
        let options = Options {
            // Several answers side by side cannot be continued by another model without a seam.
            on_stream_failure: (n > 1).then_some(OnStreamFailure::Error),
            stream,
            ..chain_options(fields.fallbacks, fields.disable_fallbacks, fields.num_retries, fields.timeout, fields.mock_testing_fallbacks)?
        };
        let sampling = SamplingParams {
            temperature: in_range("temperature", fields.temperature, 0.0, 5.0)?,
            top_k: fields.top_k.map(top_k).transpose()?,
            top_p: in_range("top_p", fields.top_p, 0.0, 1.0)?,
            min_p: in_range("min_p", fields.min_p, 0.0, 1.0)?,
            repeat_penalty: in_range("repeat_penalty", fields.repeat_penalty, 0.01, 10.0)?,
            frequency_penalty: in_range("frequency_penalty", fields.frequency_penalty, -2.0, 2.0)?,
            presence_penalty: in_range("presence_penalty", fields.presence_penalty, -2.0, 2.0)?,
            penalty_last_n: fields.penalty_last_n.map(last_n).transpose()?,
            seed: fields.seed.as_ref().map(seed).transpose()?,
            logit_bias: fields.logit_bias.unwrap_or_default().into_iter().filter_map(bias).collect::<Result<_, _>>()?,
        };
        if sampling.logit_bias.len() > MOST_BIASES {
            return Err(ApiError::param("logit_bias", format!("`logit_bias` has more than {MOST_BIASES} entries")));
        }
        let stop = fields.stop.unwrap_or_default().0;
        check_stop(&stop)?;
        Ok(Self {
            models,
            options,
            sampling,
            max_tokens: fields.max_tokens.map(|tokens| max_tokens("max_tokens", tokens)).transpose()?,
            stop,
            logprobs: None,
            prompt_logprobs: None,
            format: format(fields.response_format.map(|format| format.0), fields.grammar)?,
            n,
            include_usage,
        })
    }

    /// One submission per prompt and answer, in that order; the first has the id of the HTTP request.
    pub fn submissions(&self, app: &App, id: RequestId, inputs: Vec<Input>) -> Vec<Submission> {
        let mut submissions = Vec::new();
        for input in inputs {
            for choice in 0..self.n {
                let id = if submissions.is_empty() { id } else { app.scheduler.next_request_id() };
                // Answers to one prompt are to differ, and to be repeatable all the same.
                let seed = self.sampling.seed.map(|seed| seed.wrapping_add(u64::from(choice)));
                let request = Request {
                    sampling: SamplingParams { seed, ..self.sampling.clone() },
                    max_tokens: self.max_tokens,
                    stop: self.stop.clone(),
                    logprobs: self.logprobs,
                    prompt_logprobs: self.prompt_logprobs,
                    format: self.format.clone(),
                    ..Request::new(id, input.clone())
                };
                submissions.push(Submission { request, models: self.models.clone(), options: self.options.clone() });
            }
        }
        submissions
    }
}

/// What a request says of the chain it travels along; `timeout` in seconds.
pub(crate) fn chain_options(
    fallbacks: Option<Vec<String>>,
    disable_fallbacks: Option<bool>,
    num_retries: Option<u32>,
    timeout: Option<f64>,
    mock_testing_fallbacks: Option<bool>,
) -> Result<Options, ApiError> {
    check_names("fallbacks", fallbacks.as_deref().unwrap_or_default())?;
    let timeout = in_range("timeout", timeout, 0.0, LONGEST_TIMEOUT_SECONDS)?;
    Ok(Options {
        fallbacks,
        disable_fallbacks: disable_fallbacks.unwrap_or(false),
        num_retries: num_retries.map(|retries| retries.min(10)),
        timeout: timeout.map(Duration::from_secs_f32),
        mock_testing_fallbacks: mock_testing_fallbacks.unwrap_or(false),
        ..Options::default()
    })
}

/// The number of alternatives to report.
pub(crate) fn top_logprobs(param: &str, number: u32) -> Result<u8, ApiError> {
    let found = u8::try_from(number).ok().filter(|number| u32::from(*number) <= MOST_LOGPROBS);
    found.ok_or_else(|| ApiError::param(param, format!("`{param}` is {number}, and can be at most {MOST_LOGPROBS}")))
}

/// The text after a gap, if there is any.
pub(crate) fn suffix(suffix: Option<String>) -> Result<Option<String>, ApiError> {
    match suffix {
        Some(suffix) if suffix.len() > LONGEST_SUFFIX_BYTES => {
            let message = format!("`suffix` has {} bytes, and may have {LONGEST_SUFFIX_BYTES}", suffix.len());
            Err(ApiError::param("suffix", message))
        }
        suffix => Ok(suffix.filter(|suffix| !suffix.is_empty())),
    }
}

/// None is an empty answer; more than there can be is no limit.
pub(crate) fn max_tokens(param: &str, tokens: i64) -> Result<u32, ApiError> {
    if tokens < 0 {
        return Err(ApiError::param(param, format!("`{param}` is {tokens}, and cannot be negative")));
    }
    Ok(u32::try_from(tokens).unwrap_or(u32::MAX))
}

/// What a schema, a grammar or a list of tools may weigh.
pub(crate) fn check_size(param: &str, value: &impl serde::Serialize) -> Result<(), ApiError> {
    let bytes = serde_json::to_vec(value).map_or(usize::MAX, |json| json.len());
    if bytes > LONGEST_SCHEMA_BYTES {
        return Err(ApiError::param(param, format!("`{param}` has {bytes} bytes, and may have {LONGEST_SCHEMA_BYTES}")));
    }
    Ok(())
}

/// Names that could be those of models, and not too many.
pub(crate) fn check_names(param: &str, names: &[String]) -> Result<(), ApiError> {
    if names.len() > MOST_MODELS {
        return Err(ApiError::param(param, format!("`{param}` names more than {MOST_MODELS} models")));
    }
    match names.iter().find(|name| name.is_empty() || name.len() > 256) {
        Some(name) if name.is_empty() => Err(ApiError::param(param, format!("`{param}` has an empty name"))),
        Some(_) => Err(ApiError::no_model("there is no model with so long a name")),
        None => Ok(()),
    }
}

fn check_stop(stop: &[String]) -> Result<(), ApiError> {
    let error = |message: String| Err(ApiError::param("stop", message));
    if stop.len() > MOST_STOPS {
        return error(format!("`stop` has {} strings, and may have {MOST_STOPS}", stop.len()));
    }
    if stop.iter().any(String::is_empty) {
        return error("`stop` has an empty string, which every answer begins with".to_owned());
    }
    if stop.iter().any(|stop| stop.len() > LONGEST_STOP_BYTES) {
        return error(format!("a string of `stop` is longer than {LONGEST_STOP_BYTES} bytes"));
    }
    Ok(())
}

fn in_range(param: &str, value: Option<f64>, least: f64, most: f64) -> Result<Option<f32>, ApiError> {
    match value {
        Some(value) if !(least..=most).contains(&value) => {
            Err(ApiError::param(param, format!("`{param}` is {value}, and can be from {least} to {most}")))
        }
        value => Ok(value.map(|value| value as f32)),
    }
}

fn top_k(top_k: i64) -> Result<u32, ApiError> {
    match top_k {
        -1 => Ok(0),
        0.. => Ok(u32::try_from(top_k).unwrap_or(u32::MAX)),
        _ => Err(ApiError::param("top_k", format!("`top_k` is {top_k}; 0 and -1 keep all tokens"))),
    }
}

fn last_n(tokens: i64) -> Result<u32, ApiError> {
    match tokens {
        -1 => Ok(u32::MAX),
        0.. => Ok(u32::try_from(tokens).unwrap_or(u32::MAX)),
        _ => Err(ApiError::param("penalty_last_n", format!("`penalty_last_n` is {tokens}; -1 looks at all tokens"))),
    }
}

fn seed(seed: &Number) -> Result<u64, ApiError> {
    let found = seed.as_u64().or_else(|| seed.as_i64().map(|seed| seed as u64));
    found.ok_or_else(|| ApiError::param("seed", format!("`seed` is {seed}, and must be a whole number of 64 bits")))
}

/// `None` where nothing is changed by it.
fn bias((id, bias): (String, f64)) -> Option<Result<(u32, f32), ApiError>> {
    let error = |message: String| {
        let param = format!("logit_bias.{}", id.chars().take(32).collect::<String>());
        Some(Err(ApiError::param(param, message)))
    };
    match id.parse() {
        _ if bias == 0.0 => None,
        Err(_) => error("the keys of `logit_bias` must be token ids".to_owned()),
        Ok(_) if !(-100.0..=100.0).contains(&bias) => error(format!("a value of `logit_bias` is {bias}, and can be from -100 to 100")),
        Ok(token_id) => Some(Ok((token_id, bias as f32))),
    }
}

fn format(fields: Option<FormatFields>, grammar: Option<String>) -> Result<ResponseFormat, ApiError> {
    let asked = match fields {
        None => ResponseFormat::Text,
        Some(fields) => match fields.kind.as_str() {
            "text" => ResponseFormat::Text,
            "json_object" => ResponseFormat::JsonObject,
            "json_schema" => ResponseFormat::JsonSchema(schema(fields)?),
            other => {
                let message = format!("`response_format.type` is `{other}`, and can be text, json_object or json_schema");
                return Err(ApiError::param("response_format.type", message));
            }
        },
    };
    match grammar {
        None => Ok(asked),
        Some(_) if !asked.is_text() => Err(ApiError::param("grammar", "`grammar` and `response_format` exclude each other")),
        Some(grammar) => {
            check_size("grammar", &grammar)?;
            Ok(ResponseFormat::Grammar(grammar))
        }
    }
}

fn schema(fields: FormatFields) -> Result<Value, ApiError> {
    const PARAM: &str = "response_format.json_schema";
    let schema = fields.json_schema.and_then(|named| named.0.schema);
    let schema = schema.ok_or_else(|| ApiError::param(PARAM, format!("`{PARAM}.schema` is missing")))?;
    if !(schema.is_object() || schema.is_boolean()) {
        return Err(ApiError::param(PARAM, format!("`{PARAM}.schema` must be an object")));
    }
    check_size(PARAM, &schema)?;
    Ok(schema)
}
