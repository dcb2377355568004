//! `POST /v1/embeddings`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use downshift_scheduler::{Answer, Options};
use downshift_worker::{Embedded, Prompt, RequestId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::body::Payload;
use crate::disclosure::Disclosure;
use crate::error::{ApiError, json_response};
use crate::generation::{chain_options, check_names};
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
    let texts = fields.input.0;
    let models = app.models_for(fields.model.map(|names| names.0));
    let options =
        chain_options(fields.fallbacks, fields.disable_fallbacks, fields.num_retries, fields.timeout, fields.mock_testing_fallbacks)?;
    let Vectors { answer, disclosure } = vectors(&app, id, texts, models, options, fields.dimensions).await?;
    let data = answer.output.vectors.iter().enumerate().map(|(index, vector)| {
        let embedding = if as_base64 { Value::String(STANDARD.encode(little_endian(vector))) } else { json!(vector) };
        json!({"object": "embedding", "index": index, "embedding": embedding})
    });
    let prompt_tokens = answer.output.prompt_tokens;
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
    disclosure.write(response.headers_mut());
    Ok(response)
}

/// Vectors of texts, and who made them.
pub(crate) struct Vectors {
    pub answer: Answer<Embedded>,
    pub disclosure: Disclosure,
}

fn not_empty((at, prompt): (usize, Prompt)) -> Result<Prompt, ApiError> {
    let is_empty = match &prompt {
        Prompt::Text(text) => text.is_empty(),
        Prompt::Tokens(token_ids) => token_ids.is_empty(),
    };
    if is_empty { Err(ApiError::param(format!("input[{at}]"), "a text of `input` is empty")) } else { Ok(prompt) }
}

/// Asks for vectors of `texts`, shortened to `dimensions` numbers each.
pub(crate) async fn vectors(
    app: &Arc<App>,
    id: RequestId,
    texts: Vec<Prompt>,
    models: Vec<String>,
    options: Options,
    dimensions: Option<usize>,
) -> Result<Vectors, ApiError> {
    let texts = texts.into_iter().enumerate().map(not_empty).collect::<Result<Vec<_>, _>>()?;
    if texts.is_empty() || texts.len() > MOST_INPUTS {
        let message = format!("`input` has {} texts, and can have from 1 to {MOST_INPUTS}", texts.len());
        return Err(ApiError::param("input", message));
    }
    check_names("model", &models)?;
    let leave = app.leave_to_ask(1)?;
    let requested = app.requested(&models);
    let _cancel = CancelOnDrop { app: app.clone(), id };
    let scheduler = app.scheduler.clone();
    let asked = tokio::task::spawn_blocking(move || {
        let _leave = leave;
        scheduler.embed(id, texts, models, options)
    });
    let outcome = asked.await.map_err(|_| ApiError::internal("the server failed while it asked the model"))?;
    let mut answer = outcome.map_err(|refused| ApiError::refused(&refused))?;
    let width = answer.output.vectors.first().map_or(0, Vec::len);
    let kept = dimensions.unwrap_or(width);
    if kept == 0 || kept > width {
        let message = format!("`dimensions` is {kept}, and the vectors of `{}` have {width}", answer.model);
        return Err(ApiError::param("dimensions", message));
    }
    answer.output.vectors.iter_mut().for_each(|vector| shorten(vector, kept));
    let disclosure = Disclosure::of_answer(&requested, &answer);
    Ok(Vectors { answer, disclosure })
}

/// Keeps the first `kept` numbers; what was shortened is brought to length 1 again.
fn shorten(vector: &mut Vec<f32>, kept: usize) {
    if kept < vector.len() {
        vector.truncate(kept);
        let norm = vector.iter().map(|number| number * number).sum::<f32>().sqrt();
        if norm > 0.0 {
            vector.iter_mut().for_each(|number| *number /= norm);
        }
    }
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
