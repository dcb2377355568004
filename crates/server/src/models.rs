//! `GET /v1/models` and `/v1/models/{id}`: every model of models.toml, and how it stands. Answered while models load.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use downshift_scheduler::config::ModelEntry;
use downshift_scheduler::{ModelStatus, ModelVerdict};
use downshift_worker::{ModelKind, ModelSpec, ResidentMemory};
use serde::Serialize;
use serde_json::json;

use crate::app::{App, lock};
use crate::error::{ApiError, json_response};
use crate::metrics::{state_word, verdict_word};

/// Nobody waits longer than this for headers that are slow to read; they are there next time.
const PATIENCE: Duration = Duration::from_secs(2);

/// A model, as OpenAI has it and more.
#[derive(Debug, Serialize)]
pub(crate) struct ModelBody {
    id: String,
    object: &'static str,
    /// Unix seconds.
    created: u64,
    owned_by: &'static str,
    aliases: Vec<String>,
    kind: Option<ModelKind>,
    state: &'static str,
    /// 0 to 1 of a load that is under way.
    progress: Option<f64>,
    verdict: &'static str,
    /// Why the verdict is not ok.
    reason: Option<String>,
    device: Option<String>,
    /// Positions it has, or would be loaded with.
    context: Option<u32>,
    /// Bytes of its weights.
    size_bytes: Option<u64>,
    /// Bytes it has in memory now.
    resident_bytes: Option<u64>,
    active_requests: usize,
    is_default: bool,
    /// The models that answer for it, in order.
    fallbacks: Vec<String>,
}

impl ModelBody {
    pub fn name(&self) -> &str {
        &self.id
    }

    /// Whether it is in memory.
    pub fn is_loaded(&self) -> bool {
        self.device.is_some() && self.progress.is_none()
    }

    pub fn is_on_gpu(&self) -> bool {
        self.device.as_deref().is_some_and(|device| device != "cpu")
    }

    pub fn resident_bytes(&self) -> Option<u64> {
        self.resident_bytes
    }

    pub fn context(&self) -> Option<u32> {
        self.context
    }
}

pub(crate) async fn list(State(app): State<Arc<App>>) -> Response {
    read_headers(&app).await;
    json_response(StatusCode::OK, &json!({"object": "list", "data": bodies(&app).await}))
}

pub(crate) async fn one(State(app): State<Arc<App>>, id: Result<Path<String>, PathRejection>) -> Result<Response, ApiError> {
    let Ok(Path(id)) = id else { return Err(ApiError::no_model("there is no model whose name is not UTF-8")) };
    let config = app.scheduler.config();
    let Some(index) = config.index_of(&id) else {
        let id: String = id.chars().take(100).collect();
        let names: Vec<&str> = config.models().iter().map(ModelEntry::name).collect();
        return Err(ApiError::no_model(format!("there is no model `{id}`; the models are {}", names.join(", "))));
    };
    read_headers(&app).await;
    let body = bodies(&app).await.into_iter().nth(index);
    body.map(|body| json_response(StatusCode::OK, &body)).ok_or_else(|| ApiError::internal("the models have changed"))
}

/// Reads the headers that are not known yet, or waits a little for who does.
pub(crate) async fn read_headers(app: &Arc<App>) {
    if app.reading_headers.swap(true, Ordering::AcqRel) {
        return;
    }
    let reader = app.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let _done = Done(&reader);
        for entry in reader.scheduler.config().models() {
            let found = reader.scheduler.inspect(entry.name());
            let mut headers = lock(&reader.headers);
            match found {
                Ok(info) => headers.insert(entry.name().to_owned(), info),
                Err(_) => headers.remove(entry.name()),
            };
        }
    });
    // Who is not waited for goes on by itself.
    let _ = tokio::time::timeout(PATIENCE, reading).await;
}

/// Says that headers are no longer being read.
struct Done<'a>(&'a App);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.reading_headers.store(false, Ordering::Release);
    }
}

pub(crate) async fn bodies(app: &Arc<App>) -> Vec<ModelBody> {
    let asked = app.clone();
    // A worker is asked through its pipe.
    let asked = tokio::task::spawn_blocking(move || {
        let statuses = asked.scheduler.models();
        statuses.iter().enumerate().map(|(index, status)| body(&asked, index, status)).collect()
    });
    asked.await.unwrap_or_default()
}

fn body(app: &App, index: usize, status: &ModelStatus) -> ModelBody {
    let config = app.scheduler.config();
    let entry = &config.models()[index];
    let info = lock(&app.headers).get(&status.name).cloned();
    let is_embedder = info.as_ref().is_some_and(|info| info.kind == ModelKind::Embedding);
    let usual = || info.as_ref().map(|info| info.context_train.min(entry.spec.context.unwrap_or(ModelSpec::DEFAULT_CONTEXT)));
    let resident = app.scheduler.peek(&status.name, |worker| worker.resident()).flatten();
    let reason = match &status.verdict {
        ModelVerdict::Ok => None,
        ModelVerdict::Cooling(_, failure) | ModelVerdict::Quarantined(failure) => Some(failure.message.clone()),
    };
    let default = config.index_of(&app.requested(&[])).map_or("", |index| config.models()[index].name());
    let names = |index: usize| config.models()[index].name().to_owned();
    let same_kind = |index: &usize| {
        let other = lock(&app.headers).get(config.models()[*index].name()).map(|info| info.kind);
        other.is_none() || info.is_none() || (other == Some(ModelKind::Embedding)) == is_embedder
    };
    ModelBody {
        id: status.name.clone(),
        object: "model",
        created: app.started,
        owned_by: "downshift",
        aliases: entry.aliases.clone(),
        kind: info.as_ref().map(|info| info.kind),
        state: state_word(status.state),
        progress: status.progress.map(|(done, total)| if total == 0 { 0.0 } else { done as f64 / total as f64 }),
        verdict: verdict_word(&status.verdict),
        reason,
        device: status.placement.map(|placement| placement.device.to_string()),
        context: status.placement.map(|placement| placement.context).or_else(usual),
        size_bytes: info.as_ref().map(|info| info.footprint.weights_bytes),
        resident_bytes: resident.map(|ResidentMemory { anon_bytes, file_bytes }| anon_bytes + file_bytes),
        active_requests: status.running,
        is_default: status.name == default,
        fallbacks: config.chain(index).into_iter().skip(1).filter(same_kind).map(names).collect(),
    }
}
