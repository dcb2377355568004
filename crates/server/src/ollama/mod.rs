//! Ollama's API, for the clients that speak it: `/api/chat`, `/api/generate`, `/api/embed`, `/api/tags`, `/api/show`, `/api/ps`
//! and `/api/version`.
//!
//! Owns Ollama's fields and its lines of JSON. What they mean is decided where OpenAI's fields are: a request here becomes a
//! [`Generation`](crate::generation::Generation) too.

mod embed;
mod generate;
mod models;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::routing::{get, post};
use serde_json::{Value, json};

use crate::app::App;
use crate::error::ApiError;

/// Ollama's routes.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/chat", post(generate::chat))
        .route("/api/generate", post(generate::generate))
        .route("/api/embed", post(embed::embed))
        .route("/api/embeddings", post(embed::embed_one))
        .route("/api/tags", get(models::tags))
        .route("/api/show", post(models::show))
        .route("/api/ps", get(models::ps))
        .route("/api/version", get(models::version))
}

/// An error as Ollama words it.
pub(crate) fn error_body(error: &ApiError) -> Value {
    json!({"error": error.message})
}

/// The model that Ollama's clients mean: to them every name has a tag, and `latest` where none is given.
fn model_name(app: &App, name: String) -> String {
    if app.scheduler.config().index_of(&name).is_some() {
        return name;
    }
    name.strip_suffix(":latest").map(str::to_owned).unwrap_or(name)
}

fn now() -> String {
    humantime::format_rfc3339_micros(SystemTime::now()).to_string()
}

/// Ollama counts time in nanoseconds.
fn nanoseconds(ms: f64) -> u64 {
    (ms.max(0.0) * 1e6) as u64
}
