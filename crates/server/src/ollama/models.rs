//! `GET /api/tags`, `/api/ps`, `/api/version` and `POST /api/show`.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use downshift_scheduler::config::ModelEntry;
use downshift_worker::{ModelInfo, ModelKind};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::model_name;
use crate::app::{App, lock};
use crate::body::Payload;
use crate::error::{ApiError, json_response};
use crate::models::{ModelBody, bodies, read_headers};

pub(crate) async fn tags(State(app): State<Arc<App>>) -> Response {
    read_headers(&app).await;
    let models: Vec<Value> = app.scheduler.config().models().iter().filter_map(|entry| tag(&app, entry)).collect();
    json_response(StatusCode::OK, &json!({"models": models}))
}

pub(crate) async fn ps(State(app): State<Arc<App>>) -> Response {
    read_headers(&app).await;
    let loaded = bodies(&app).await.into_iter().filter(ModelBody::is_loaded);
    let models: Vec<Value> = loaded
        .filter_map(|body| {
            let config = app.scheduler.config();
            let mut tag = tag(&app, &config.models()[config.index_of(body.name())?])?;
            let resident = body.resident_bytes().unwrap_or(0);
            tag["size"] = json!(resident);
            tag["size_vram"] = json!(if body.is_on_gpu() { resident } else { 0 });
            tag["context_length"] = json!(body.context());
            Some(tag)
        })
        .collect();
    json_response(StatusCode::OK, &json!({"models": models}))
}

pub(crate) async fn version(State(app): State<Arc<App>>) -> Response {
    json_response(StatusCode::OK, &json!({"version": app.options.version}))
}

#[derive(Deserialize)]
struct Show {
    #[serde(alias = "name")]
    model: String,
}

pub(crate) async fn show(State(app): State<Arc<App>>, payload: Payload) -> Result<Response, ApiError> {
    let Show { model } = payload.parse()?;
    let name = model_name(&app, model);
    let config = app.scheduler.config();
    let Some(index) = config.index_of(&name) else {
        let name: String = name.chars().take(100).collect();
        return Err(ApiError::no_model(format!("model '{name}' not found")));
    };
    read_headers(&app).await;
    let entry = &config.models()[index];
    let Some(info) = lock(&app.headers).get(entry.name()).cloned() else {
        return Err(ApiError::busy(format!("`{name}` cannot be read now"), std::time::Duration::from_secs(5)));
    };
    let architecture = &info.architecture;
    let mut model_info = json!({"general.architecture": architecture, "general.parameter_count": info.parameters});
    model_info[format!("{architecture}.context_length")] = json!(info.context_train);
    model_info[format!("{architecture}.vocab_size")] = json!(info.vocab_size);
    let mut capabilities = match info.kind {
        ModelKind::Embedding => vec!["embedding"],
        _ => vec!["completion"],
    };
    if info.calls_tools {
        capabilities.push("tools");
    }
    if info.infills {
        capabilities.push("insert");
    }
    let body = json!({
        "modelfile": format!("FROM {}", entry.spec.path.display()),
        "parameters": parameters(entry),
        "template": "",
        "details": details(&info),
        "model_info": model_info,
        "capabilities": capabilities,
        "modified_at": modified(entry),
    });
    Ok(json_response(StatusCode::OK, &body))
}

/// A model as lists have it; `None` if its header cannot be read.
fn tag(app: &App, entry: &ModelEntry) -> Option<Value> {
    let info = lock(&app.headers).get(entry.name()).cloned()?;
    let name = entry.name();
    Some(json!({
        "name": name,
        "model": name,
        "modified_at": modified(entry),
        "size": info.footprint.weights_bytes,
        "digest": digest(entry, &info),
        "details": details(&info),
    }))
}

fn details(info: &ModelInfo) -> Value {
    let format = if info.kind == ModelKind::Embedding { "safetensors" } else { "gguf" };
    json!({
        "parent_model": "",
        "format": format,
        "family": info.architecture,
        "families": [info.architecture],
        "parameter_size": parameter_size(info.parameters),
        "quantization_level": info.dtype,
    })
}

/// As people write it: 7.6B, 494M, 22K.
pub(super) fn parameter_size(parameters: u64) -> String {
    let number = parameters as f64;
    match parameters {
        1_000_000_000.. => format!("{:.1}B", number / 1e9),
        1_000_000.. => format!("{:.0}M", number / 1e6),
        1_000.. => format!("{:.0}K", number / 1e3),
        _ => parameters.to_string(),
    }
}

/// The entry's own sampling defaults, a line each.
fn parameters(entry: &ModelEntry) -> String {
    let sampling = json!(entry.spec.sampling);
    let known = sampling.as_object().into_iter().flatten().filter(|(_, value)| value.is_number());
    known.map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join("\n")
}

fn modified(entry: &ModelEntry) -> String {
    let time = std::fs::metadata(&entry.spec.path).and_then(|found| found.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    humantime::format_rfc3339_seconds(time).to_string()
}

/// Tells versions of a model apart: by where it lies, its size and its time, as its gigabytes are not read for a list.
fn digest(entry: &ModelEntry, info: &ModelInfo) -> String {
    let named = format!("{}\n{}\n{}", entry.spec.path.display(), info.footprint.weights_bytes, modified(entry));
    Sha256::digest(named).iter().map(|byte| format!("{byte:02x}")).collect()
}
