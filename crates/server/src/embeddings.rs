//! `POST /v1/embeddings`.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use downshift_scheduler::Options;
use downshift_worker::{Embedded, Prompt, RequestId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::body::Payload;
use crate::disclosure::Disclosure;
use crate::error::{ApiError, json_response};
use crate::generation::check_names;
use crate::guard::Id;
use crate::openai::{Prompts, Texts};

/// Texts of one request, as OpenAI has it.
const MOST_INPUTS: usize = 2048;

#[derive(Deserialize)]
struct EmbeddingFields {
    input: Prompts,
    #[serde(default)]
    model: Option<Texts>,
    #[serde(default)]
    encoding_format: Option<String>,
    #[serde(default)]
    dimensions: Option<usize>,
    #[serde(default)]
    fallbacks: Option<Vec<String>>,
    #[serde(default)]
    disable_fallbacks: Option<bool>,
    #[serde(default)]
    num_retries: Option<u32>,
    /// Seconds.
    #[serde(default)]
    timeout: Option<f64>,
    #[serde(default)]
    mock_testing_fallbacks: Option<bool>,
}

pub(crate) async fn create(State(app): State<Arc<App>>, Extension(Id(id)): Extension<Id>, payload: Payload) -> Result<Response, ApiError> {
    let fields: EmbeddingFields = payload.parse_any_number()?;
    drop(payload);
    let as_base64 = match fields.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(ApiError::param("encoding_format", "`encoding_format` can be float or base64")),
    };
    let texts = fields.input.0.into_iter().enumerate().map(not_empty).collect::<Result<Vec<_>, _>>()?;
    if texts.is_empty() || texts.len() > MOST_INPUTS {
        let message = format!("`input` has {} texts, and can have from 1 to {MOST_INPUTS}", texts.len());
        return Err(ApiError::param("input", message));
    }
    let models = app.models_for(fields.model.map(|names| names.0));
    check_names("model", &models)?;
    check_names("fallbacks", fields.fallbacks.as_deref().unwrap_or_default())?;
    let timeout = fields.timeout.filter(|seconds| (0.0..=86_400.0).contains(seconds));
    if timeout.is_none() && fields.timeout.is_some() {
        return Err(ApiError::param("timeout", "`timeout` can be from 0 to 86400 seconds"));
    }
    let options = Options {
        fallbacks: fields.fallbacks,
        disable_fallbacks: fields.disable_fallbacks.unwrap_or(false),
        num_retries: fields.num_retries.map(|retries| retries.min(10)),
        timeout: timeout.map(Duration::from_secs_f64),
        mock_testing_fallbacks: fields.mock_testing_fallbacks.unwrap_or(false),
        ..Options::default()
    };
    embed(&app, id, texts, models, options, fields.dimensions, as_base64).await
}

fn not_empty((at, prompt): (usize, Prompt)) -> Result<Prompt, ApiError> {
    let is_empty = match &prompt {
        Prompt::Text(text) => text.is_empty(),
        Prompt::Tokens(token_ids) => token_ids.is_empty(),
    };
    if is_empty { Err(ApiError::param(format!("input[{at}]"), "a text of `input` is empty")) } else { Ok(prompt) }
}

async fn embed(
    app: &Arc<App>,
    id: RequestId,
    texts: Vec<Prompt>,
    models: Vec<String>,
    options: Options,
    dimensions: Option<usize>,
    as_base64: bool,
) -> Result<Response, ApiError> {
    let leave = app.leave_to_ask(1)?;
    let requested = app.requested(&models);
    let _cancel = CancelOnDrop { app: app.clone(), id };
    let scheduler = app.scheduler.clone();
    let asked = tokio::task::spawn_blocking(move || {
        let _leave = leave;
        scheduler.embed(id, texts, models, options)
    });
    let outcome = asked.await.map_err(|_| ApiError::internal("the server failed while it asked the model"))?;
    let answer = outcome.map_err(|refused| ApiError::refused(&refused))?;
    let Embedded { vectors, prompt_tokens } = &answer.output;
    let width = vectors.first().map_or(0, Vec::len);
    let kept = dimensions.unwrap_or(width);
    if kept == 0 || kept > width {
        let message = format!("`dimensions` is {kept}, and the vectors of `{}` have {width}", answer.model);
        return Err(ApiError::param("dimensions", message));
    }
    let data = vectors.iter().enumerate().map(|(index, vector)| {
        let vector = shortened(vector, kept);
        let embedding = if as_base64 { Value::String(STANDARD.encode(little_endian(&vector))) } else { json!(vector) };
        json!({"object": "embedding", "index": index, "embedding": embedding})
    });
    let mut body = json!({
        "object": "list",
        "data": data.collect::<Vec<_>>(),
        "model": answer.model,
        "usage": {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens},
    });
    if let Some(fallback) = &answer.fallback {
        body["fallback"] = json!(fallback);
    }
    let mut response = json_response(StatusCode::OK, &body);
    Disclosure::of_answer(&requested, &answer).write(response.headers_mut());
    Ok(response)
}

/// The first `kept` numbers; of a shortened vector as one of length 1 again.
fn shortened(vector: &[f32], kept: usize) -> Vec<f32> {
    let first = &vector[..kept.min(vector.len())];
    let norm = first.iter().map(|number| number * number).sum::<f32>().sqrt();
    let scale = if kept < vector.len() && norm > 0.0 { norm.recip() } else { 1.0 };
    first.iter().map(|number| number * scale).collect()
}

fn little_endian(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Ends a request whose client has left.
struct CancelOnDrop {
    app: Arc<App>,
    id: RequestId,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.app.scheduler.cancel(self.id);
    }
}
