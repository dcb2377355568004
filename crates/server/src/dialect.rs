//! Refusals in the words of the dialect that was spoken: OpenAI's, unless the path belongs to another.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use serde_json::Value;

use crate::error::ApiError;
use crate::ollama;

/// Rewrites the body of a refusal; its status and headers stay.
pub(crate) async fn reword(request: Request, next: Next) -> Response {
    let wording = wording(request.uri().path());
    let mut response = next.run(request).await;
    let Some(body) = wording.and_then(|wording| response.extensions().get().map(wording)) else { return response };
    response.headers_mut().remove(header::CONTENT_LENGTH);
    *response.body_mut() = Body::from(body.to_string());
    response
}

/// How errors of a path are worded; `None` as OpenAI does.
fn wording(path: &str) -> Option<fn(&ApiError) -> Value> {
    path.starts_with("/api/").then_some(ollama::error_body as _)
}
