//! What all requests share, and the table of routes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware;
use axum::routing::{get, post};
use downshift_scheduler::Scheduler;
use downshift_worker::ModelInfo;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::options::ServeOptions;
use crate::{chat, completions, dialect, embeddings, guard, messages, models, ollama, openapi, page, responses, status, text};

/// The state of the server.
pub(crate) struct App {
    pub scheduler: Arc<Scheduler>,
    pub options: ServeOptions,
    pub metrics: Metrics,
    pub runtime: Handle,
    /// Whether the address is one that only this machine reaches.
    pub on_loopback: bool,
    /// Unix seconds.
    pub started: u64,
    /// Headers of the models that were read so far, by name.
    pub headers: Mutex<HashMap<String, Arc<ModelInfo>>>,
    /// Whether headers are being read.
    pub reading_headers: AtomicBool,
    draining: AtomicBool,
    active: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
}

impl App {
    pub fn new(scheduler: Arc<Scheduler>, options: ServeOptions, runtime: Handle, on_loopback: bool) -> Arc<Self> {
        let active = Arc::new(Semaphore::new(options.limits.active_requests));
        let bodies = Arc::new(Semaphore::new(options.limits.all_bodies_bytes));
        Arc::new(Self {
            scheduler,
            options,
            metrics: Metrics::default(),
            runtime,
            on_loopback,
            started: unix_seconds(),
            headers: Mutex::default(),
            reading_headers: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            active,
            bodies,
        })
    }

    /// The models to submit for, where a request names `models`: none of its own means those the server was started for.
    pub fn models_for(&self, models: Option<Vec<String>>) -> Vec<String> {
        models.filter(|models| !models.is_empty()).unwrap_or_else(|| self.options.model.iter().cloned().collect())
    }

    /// The name that a request asks for, where it names `models`.
    pub fn requested(&self, models: &[String]) -> String {
        let config = self.scheduler.config();
        let named = models.first().or(self.options.model.as_ref());
        named.map_or_else(|| config.models()[config.default_index()].name().to_owned(), Clone::clone)
    }

    /// Leave to answer `threads` submissions at once.
    pub fn leave_to_ask(&self, threads: u32) -> Result<OwnedSemaphorePermit, ApiError> {
        if self.is_draining() {
            return Err(ApiError::busy("the server is shutting down", Duration::from_secs(5)));
        }
        let full = |_| ApiError::busy("too many requests are being answered", Duration::from_secs(2));
        self.active.clone().try_acquire_many_owned(threads).map_err(full)
    }

    /// Leave to read `bytes` more of a body.
    pub fn room_for_body(&self, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        let full = |_| ApiError::busy("too many long requests are being read", Duration::from_secs(2));
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.bodies.clone().try_acquire_many_owned(bytes).map_err(full)
    }

    /// From now on nothing new is begun.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}

/// All routes.
pub(crate) fn router(app: Arc<App>) -> Router {
    let routes = Router::new()
        .merge(page::routes())
        .merge(messages::routes())
        .merge(ollama::routes())
        .merge(responses::routes())
        .route("/health", get(status::health))
        .route("/ready", get(status::ready))
        .route("/metrics", get(status::metrics))
        .route("/props", get(status::props))
        .route("/openapi.json", get(openapi::show))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::one))
        .route("/v1/chat/completions", post(chat::create))
        .route("/v1/completions", post(completions::create))
        .route("/v1/embeddings", post(embeddings::create))
        .route("/tokenize", post(text::tokenize))
        .route("/detokenize", post(text::detokenize))
        .route("/apply-template", post(text::apply_template))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(middleware::from_fn_with_state(app.clone(), guard::check))
        .layer(middleware::from_fn(dialect::reword));
    guard::with_cors(routes, &app.options.cors_origins).with_state(app)
}

async fn no_route(request: Request) -> ApiError {
    ApiError::no_route(request.method().as_str(), request.uri().path())
}

async fn no_method(request: Request) -> ApiError {
    let message = format!("{} does not take {}", request.uri().path(), request.method());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", Some("method_not_allowed"), message)
}

pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A lock whose data stays usable after a panic elsewhere.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
