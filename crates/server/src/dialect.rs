//! What the dialects share: refusals in the words of the one that was spoken, OpenAI's unless the path belongs to another, and
//! fields that are a text or a list.

use std::fmt;
use std::marker::PhantomData;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde_json::Value;

use crate::error::ApiError;
use crate::openai::Object;
use crate::{messages, ollama};

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
    match path {
        "/v1/messages" | "/v1/messages/count_tokens" => Some(messages::error_body),
        _ if path.starts_with("/api/") => Some(ollama::error_body),
        _ => None,
    }
}

/// An error about one of OpenAI's parameters, with the dialect's own name of it: pairs of theirs and ours.
pub(crate) fn renamed(mut error: ApiError, names: &[(&str, &str)]) -> ApiError {
    let found = names.iter().find(|(theirs, _)| error.param.as_ref().is_some_and(|param| param.starts_with(theirs)));
    if let (Some((theirs, ours)), Some(param)) = (found, &mut error.param) {
        error.message = error.message.replace(&format!("`{theirs}"), &format!("`{ours}"));
        param.replace_range(..theirs.len(), ours);
    }
    error
}

/// A text, or a list of objects.
pub(crate) enum TextOr<T> {
    Text(String),
    List(Vec<T>),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for TextOr<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = TextOr<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of objects")
            }

            fn visit_str<E>(self, text: &str) -> Result<TextOr<T>, E> {
                Ok(TextOr::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<TextOr<T>, A::Error> {
                let mut found = Vec::new();
                while let Some(Object(one)) = list.next_element()? {
                    found.push(one);
                }
                Ok(TextOr::List(found))
            }
        }
        from.deserialize_any(Either(PhantomData))
    }
}
