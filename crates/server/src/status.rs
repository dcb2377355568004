//! `/health`, `/ready`, `/metrics` and `/props`: how the server stands, for people and for what watches it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use downshift_scheduler::ModelVerdict;
use downshift_scheduler::config::MemoryLimit;
use downshift_scheduler::room::Probe;
use serde_json::json;

use crate::app::App;
use crate::error::{ApiError, json_response};

/// Whether the server lives.
pub(crate) async fn health() -> Response {
    json_response(StatusCode::OK, &json!({"status": "ok"}))
}

/// Whether somebody can answer: some model of the default one's chain is not known to fail.
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    if app.is_draining() {
        return Err(ApiError::busy("the server is shutting down", Duration::from_secs(5)));
    }
    let config = app.scheduler.config();
    let models = app.scheduler.models();
    let default = config.index_of(&app.requested(&[])).unwrap_or(config.default_index());
    let chain = config.chain(default);
    let able: Vec<&str> = chain
        .iter()
        .filter(|index| matches!(models[**index].verdict, ModelVerdict::Ok))
        .map(|index| models[*index].name.as_str())
        .collect();
    if able.is_empty() {
        return Err(ApiError::busy("no model of the default one's chain can answer now", Duration::from_secs(10)));
    }
    Ok(json_response(StatusCode::OK, &json!({"status": "ready", "models": able})))
}

/// Counts for Prometheus.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    ([kind], app.metrics.text(&app.scheduler)).into_response()
}

/// The machine and the settings.
pub(crate) async fn props(State(app): State<Arc<App>>) -> Response {
    let config = app.scheduler.config();
    let settings = &config.settings;
    let room = Probe::system().read();
    let tightest = room.tightest();
    let configured = match settings.memory_limit {
        MemoryLimit::Auto => None,
        MemoryLimit::Bytes(bytes) => Some(bytes),
        MemoryLimit::Share(share) => room.total_bytes.map(|total| (total as f64 * share) as u64),
    };
    let limit = tightest.map(|limit| limit.limit_bytes);
    let (limit_bytes, source) = match (configured, limit) {
        (Some(bytes), limit) if limit.is_none_or(|limit| bytes < limit) => (Some(bytes), "memory_limit".to_owned()),
        (_, limit) => (limit, tightest.map_or_else(|| "unknown".to_owned(), |limit| limit.source.clone())),
    };
    let threads = settings.threads.or_else(|| std::thread::available_parallelism().ok().map(usize::from));
    let body = json!({
        "version": app.options.version,
        "default_model": app.requested(&[]),
        "memory": {"limit_bytes": limit_bytes, "source": source, "free_bytes": tightest.map(|limit| limit.free_bytes())},
        "isolate": settings.isolate,
        "threads": threads,
    });
    json_response(StatusCode::OK, &body)
}
