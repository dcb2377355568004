//! OpenAI's Responses: `/v1/responses` and `/v1/responses/input_tokens`, without the state that OpenAI keeps between them.
//!
//! Owns the items, the response object and the events. What the fields mean is decided where those of chat are: a request here
//! becomes a [`Generation`](crate::generation::Generation) too. A request that refers to something kept is refused.

mod items;
mod output;
mod request;
mod response;
mod stream;

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use axum::{Extension, Router};
use serde_json::{json, to_value};

use self::output::items_of;
use self::request::{Asked, AskedCount};
use self::response::{Ended, Status};
use self::stream::Events;
use crate::app::App;
use crate::body::Payload;
use crate::error::{ApiError, json_response};
use crate::gather::gather;
use crate::guard::Id;
use crate::narration::narrate;
use crate::text::count;

/// The routes of responses.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new().route("/v1/responses", post(create)).route("/v1/responses/input_tokens", post(input_tokens))
}

async fn create(State(app): State<Arc<App>>, Extension(Id(id)): Extension<Id>, payload: Payload) -> Result<Response, ApiError> {
    let Asked { generation, input, one_call, mut response } = Asked::read(&app, &payload)?;
    drop(payload);
    let answers = app.ask(generation.submissions(&app, id, vec![input]))?;
    answers.requested().clone_into(&mut response.model);
    if generation.options.stream {
        return narrate(answers, &app, Events::new(response, one_call)).await;
    }
    let whole = gather(answers, &app, 1, one_call).await?;
    let gathered = whole.gathered.into_iter().next().unwrap_or_default();
    let Some(answer) = &gathered.answer else { return Err(ApiError::internal("the answer has no end")) };
    response.model = whole.told.model;
    response.fallback = whole.told.fallback.and_then(|fallback| to_value(fallback).ok());
    let ended = Ended { completion: &answer.output, reasoning_tokens: gathered.reasoning_tokens };
    let status = Status::of(&answer.output);
    let items = items_of(&gathered).iter().map(|item| item.to_json(status.of_items())).collect();
    let mut reply = json_response(StatusCode::OK, &response.to_json(status, items, Some(ended)));
    whole.told.disclosure.write(reply.headers_mut());
    Ok(reply)
}

async fn input_tokens(State(app): State<Arc<App>>, Extension(Id(id)): Extension<Id>, payload: Payload) -> Result<Response, ApiError> {
    let AskedCount { models, input } = AskedCount::read(&app, &payload)?;
    drop(payload);
    let tokens = count(&app, id, &models, input).await?;
    Ok(json_response(StatusCode::OK, &json!({"object": "response.input_tokens", "input_tokens": tokens})))
}
