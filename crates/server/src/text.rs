//! `POST /tokenize`, `/detokenize` and `/apply-template`: one very model is asked; no other takes its place.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use downshift_worker::{Failure, Input, Request, RequestId, ToolChoice, Worker};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::body::Payload;
use crate::chat::{check_tools, conversation};
use crate::error::{ApiError, json_response};
use crate::generation::{check_names, check_size};
use crate::openai::{ChatMessage, Object};

#[derive(Deserialize)]
struct Tokenize {
    content: String,
    #[serde(default)]
    model: Option<String>,
    /// Spellings of special tokens become those tokens, and the model's own begin and end are added.
    #[serde(default, alias = "parse_special")]
    add_special: Option<bool>,
}

#[derive(Deserialize)]
struct Detokenize {
    tokens: Vec<u32>,
    #[serde(default)]
    model: Option<String>,
}

#[derive(Deserialize)]
struct ApplyTemplate {
    messages: Vec<Object<ChatMessage>>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    tools: Option<Vec<Value>>,
    #[serde(default)]
    chat_template_kwargs: Option<Map<String, Value>>,
}

pub(crate) async fn tokenize(State(app): State<Arc<App>>, payload: Payload) -> Result<Response, ApiError> {
    let Tokenize { content, model, add_special } = payload.parse()?;
    let special = add_special.unwrap_or(false);
    let tokens = with_model(&app, model, move |worker| worker.tokenize(&content, special)).await?;
    Ok(json_response(StatusCode::OK, &json!({"tokens": tokens})))
}

pub(crate) async fn detokenize(State(app): State<Arc<App>>, payload: Payload) -> Result<Response, ApiError> {
    let Detokenize { tokens, model } = payload.parse()?;
    let content = with_model(&app, model, move |worker| worker.detokenize(&tokens)).await?;
    Ok(json_response(StatusCode::OK, &json!({"content": content})))
}

pub(crate) async fn apply_template(State(app): State<Arc<App>>, payload: Payload) -> Result<Response, ApiError> {
    let ApplyTemplate { messages, model, tools, chat_template_kwargs } = payload.parse()?;
    let tools = tools.unwrap_or_default();
    check_tools(&tools)?;
    let variables = chat_template_kwargs.unwrap_or_default();
    check_size("chat_template_kwargs", &variables)?;
    let input = Input::Chat { messages: conversation(messages)?, tools, tool_choice: ToolChoice::Auto, variables };
    let prompt = with_model(&app, model, move |worker| worker.apply_template(&input)).await?;
    Ok(json_response(StatusCode::OK, &json!({"prompt": prompt})))
}

/// The text of `ids`, by the model of this name.
pub(crate) async fn text_of(app: &Arc<App>, model: String, ids: Vec<u32>) -> Result<String, ApiError> {
    with_model(app, Some(model), move |worker| worker.detokenize(&ids)).await
}

/// Tokens of `input` as the model reads it; no worker is loaded for that.
pub(crate) async fn count(app: &Arc<App>, id: RequestId, models: &[String], input: Input) -> Result<usize, ApiError> {
    let leave = app.leave_to_ask(1)?;
    let name = app.requested(models);
    let app = app.clone();
    let asked = tokio::task::spawn_blocking(move || {
        let _leave = leave;
        app.scheduler.count(&name, &Request::new(id, input))
    });
    match asked.await {
        Ok(outcome) => outcome.map_err(|failure| ApiError::failure(&failure)),
        Err(_) => Err(ApiError::internal("the server failed while it counted")),
    }
}

/// Asks a worker of the model, which is loaded if need be.
pub(crate) async fn with_model<R: Send + 'static>(
    app: &Arc<App>,
    model: Option<String>,
    ask: impl FnOnce(&dyn Worker) -> Result<R, Failure> + Send + 'static,
) -> Result<R, ApiError> {
    check_names("model", model.as_slice())?;
    let leave = app.leave_to_ask(1)?;
    let name = app.requested(model.as_slice());
    let app = app.clone();
    let asked = tokio::task::spawn_blocking(move || {
        let _leave = leave;
        app.scheduler.with_worker(&name, ask)
    });
    match asked.await {
        Ok(outcome) => outcome.and_then(|inner| inner).map_err(|failure| ApiError::failure(&failure)),
        Err(_) => Err(ApiError::internal("the server failed while it asked the model")),
    }
}
