//! Anthropic's API, for the clients that speak it: `/v1/messages` and `/v1/messages/count_tokens`.
//!
//! Owns Anthropic's fields, blocks and events. What they mean is decided where OpenAI's fields are: a request here becomes a
//! [`Generation`](crate::generation::Generation) too. Nothing is kept between requests.

mod answer;
mod request;
mod stream;

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use axum::{Extension, Router};
use serde_json::{Value, json};

use self::answer::{Ending, content, message};
use self::request::{Asked, AskedCount};
use self::stream::Events;
use crate::app::App;
use crate::body::Payload;
use crate::error::{ApiError, json_response};
use crate::gather::gather;
use crate::guard::Id;
use crate::ids::random_id;
use crate::narration::narrate;
use crate::text::count;

/// Anthropic's routes.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new().route("/v1/messages", post(create)).route("/v1/messages/count_tokens", post(count_tokens))
}

async fn create(State(app): State<Arc<App>>, Extension(Id(id)): Extension<Id>, payload: Payload) -> Result<Response, ApiError> {
    let Asked { generation, input, one_call } = Asked::read(&app, &payload)?;
    drop(payload);
    let answers = app.ask(generation.submissions(&app, id, vec![input]))?;
    let (message_id, stop) = (random_id("msg_", 24), generation.stop);
    if generation.options.stream {
        let events = Events::new(message_id, answers.requested().to_owned(), stop, one_call);
        return narrate(answers, &app, events).await;
    }
    let whole = gather(answers, &app, 1, one_call).await?;
    let gathered = whole.gathered.into_iter().next().unwrap_or_default();
    let Some(answer) = &gathered.answer else { return Err(ApiError::internal("the answer has no end")) };
    let ending = Ending::new(&answer.output, &stop);
    let mut body = message(&message_id, &whole.told.model, content(&gathered), &ending);
    if let Some(fallback) = &whole.told.fallback {
        body["fallback"] = json!(fallback);
    }
    let mut response = json_response(StatusCode::OK, &body);
    whole.told.disclosure.write(response.headers_mut());
    Ok(response)
}

async fn count_tokens(State(app): State<Arc<App>>, Extension(Id(id)): Extension<Id>, payload: Payload) -> Result<Response, ApiError> {
    let AskedCount { models, input } = AskedCount::read(&app, &payload)?;
    drop(payload);
    let tokens = count(&app, id, &models, input).await?;
    Ok(json_response(StatusCode::OK, &json!({"input_tokens": tokens})))
}

/// An error as Anthropic words it; what else is known of it stands beside.
pub(crate) fn error_body(error: &ApiError) -> Value {
    let kind = match error.status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 => "overloaded_error",
        504 => "timeout_error",
        400..500 => "invalid_request_error",
        _ => "api_error",
    };
    let mut body = error.to_json();
    body["type"] = json!(kind);
    json!({"type": "error", "error": body})
}
