//! `POST /api/embed` and the older `/api/embeddings`.

use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use downshift_scheduler::Options;
use downshift_worker::Prompt;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{model_name, nanoseconds};
use crate::app::App;
use crate::body::Payload;
use crate::embeddings::{Vectors, vectors};
use crate::error::{ApiError, json_response};
use crate::guard::Id;
use crate::openai::Texts;

#[derive(Deserialize)]
struct Embed {
    model: String,
    input: Texts,
    #[serde(default)]
    dimensions: Option<usize>,
}

#[derive(Deserialize)]
struct EmbedOne {
    model: String,
    prompt: String,
}

pub(crate) async fn embed(State(app): State<Arc<App>>, Extension(Id(id)): Extension<Id>, payload: Payload) -> Result<Response, ApiError> {
    let Embed { model, input, dimensions } = payload.parse()?;
    drop(payload);
    let began = Instant::now();
    let texts = input.0.into_iter().map(Prompt::Text).collect();
    let found = vectors(&app, id, texts, vec![model_name(&app, model)], Options::default(), dimensions).await?;
    let total = nanoseconds(began.elapsed().as_secs_f64() * 1e3);
    let body = json!({
        "model": found.answer.model,
        "embeddings": found.answer.output.vectors,
        "total_duration": total,
        "load_duration": 0,
        "prompt_eval_count": found.answer.output.prompt_tokens,
    });
    Ok(disclosed(body, &found))
}

pub(crate) async fn embed_one(
    State(app): State<Arc<App>>,
    Extension(Id(id)): Extension<Id>,
    payload: Payload,
) -> Result<Response, ApiError> {
    let EmbedOne { model, prompt } = payload.parse()?;
    drop(payload);
    let found = vectors(&app, id, vec![Prompt::Text(prompt)], vec![model_name(&app, model)], Options::default(), None).await?;
    let body = json!({"embedding": found.answer.output.vectors.first()});
    Ok(disclosed(body, &found))
}

fn disclosed(mut body: Value, found: &Vectors) -> Response {
    if let Some(fallback) = &found.answer.fallback {
        body["fallback"] = json!(fallback);
    }
    let mut response = json_response(StatusCode::OK, &body);
    found.disclosure.write(response.headers_mut());
    response
}
