//! Every refusal of the API: `{"error": {message, type, param, code}}` with its status, and what a client may do about it.

use std::fmt;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use downshift_scheduler::{Attempt, Refused, RefusedClass};
use downshift_worker::{Failure, FailureKind};
use serde_json::{Map, Value, json};

use crate::disclosure::Disclosure;

/// Parameters that only a model's vocabulary or a compiler of grammars can judge.
const ENGINES_PARAMS: [&str; 5] = ["response_format", "grammar", "logit_bias", "tools", "suffix"];
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Why there is no answer.
///
/// A response that was made of one carries it in its extensions, for dialects that word their errors differently.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    pub status: StatusCode,
    /// OpenAI's class of the error.
    pub kind: &'static str,
    /// The cause, for machines.
    pub code: Option<&'static str>,
    /// The parameter that is wrong, such as `messages[0].role`.
    pub param: Option<String>,
    pub message: String,
    pub retry_after: Option<Duration>,
    /// What came before, where models were tried.
    pub background: Option<Box<Background>>,
}

/// The models that were tried in vain.
#[derive(Clone, Debug)]
pub(crate) struct Background {
    /// Everything that was tried.
    pub attempts: Vec<Attempt>,
    /// Numbers that belong to the cause.
    pub details: Map<String, Value>,
    pub disclosure: Disclosure,
}

impl ApiError {
    pub fn new(status: StatusCode, kind: &'static str, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { status, kind, code, param: None, message: message.into(), retry_after: None, background: None }
    }

    /// 400: the request is not understood.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", None, message)
    }

    /// 400: this parameter is wrong.
    pub fn param(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::invalid(message) }
    }

    /// 404: there is no such route.
    pub fn no_route(method: &str, path: &str) -> Self {
        let message = format!("there is no {method} {path}");
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("not_found"), message)
    }

    /// 404: there is no such model.
    pub fn no_model(message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("model_not_found"), message);
        Self { param: Some("model".to_owned()), ..error }
    }

    /// 503: not now.
    pub fn busy(message: impl Into<String>, retry_after: Duration) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", Some("overloaded"), message);
        Self { retry_after: Some(retry_after), ..error }
    }

    /// 500: our own fault.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", Some("internal_error"), message)
    }

    /// What a refusal by the scheduler means to a client.
    pub fn refused(refused: &Refused) -> Self {
        let Refused { failure, attempts, retry_after, .. } = refused;
        let cause = failure.kind.as_str();
        let server = |status| Self::new(status, "server_error", Some(cause), refused.to_string());
        let error = match refused.class() {
            RefusedClass::Invalid => Self::wrong(failure),
            RefusedClass::NotFound => Self::no_model(failure.message.as_str()),
            RefusedClass::Cancelled => Self::busy("the request was ended, because the server is shutting down", Duration::from_secs(1)),
            RefusedClass::Timeout => server(StatusCode::GATEWAY_TIMEOUT),
            RefusedClass::Unavailable => server(StatusCode::SERVICE_UNAVAILABLE),
            RefusedClass::Failed => server(StatusCode::INTERNAL_SERVER_ERROR),
        };
        let retry_after = error.retry_after.or(retry_after.filter(|_| error.status == StatusCode::SERVICE_UNAVAILABLE));
        let background =
            Background { attempts: attempts.clone(), details: details(failure.kind), disclosure: Disclosure::of_refusal(refused) };
        Self { retry_after, background: Some(Box::new(background)), ..error }
    }

    /// What a failure of one model outside any request for an answer means to a client.
    pub fn failure(failure: &Failure) -> Self {
        match failure.kind {
            FailureKind::UnknownModel => Self::no_model(failure.message.as_str()),
            FailureKind::InvalidRequest | FailureKind::PromptTooLong { .. } | FailureKind::CannotDo => Self::wrong(failure),
            kind => {
                let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", Some(kind.as_str()), failure.message.as_str());
                Self { retry_after: Some(Duration::from_secs(5)), ..error }
            }
        }
    }

    fn wrong(failure: &Failure) -> Self {
        let FailureKind::PromptTooLong { needed, limit } = failure.kind else {
            // The engine names a parameter first, where it finds fault with one.
            let named = failure.message.split([':', ' ']).next().filter(|name| ENGINES_PARAMS.contains(name));
            return Self { param: named.map(str::to_owned), ..Self::invalid(failure.message.as_str()) };
        };
        let kind = "exceed_context_size_error";
        let message = format!("the request of {needed} tokens exceeds the available context size of {limit} tokens");
        Self::new(StatusCode::BAD_REQUEST, kind, Some("context_length_exceeded"), message)
    }

    /// The value of `error` in the body.
    pub fn to_json(&self) -> Value {
        let mut error = json!({"message": self.message, "type": self.kind, "param": self.param, "code": self.code});
        let Some(background) = &self.background else { return error };
        for (name, value) in &background.details {
            error[name] = value.clone();
        }
        if !background.attempts.is_empty() {
            error["attempts"] = json!(background.attempts);
        }
        error
    }
}

fn details(kind: FailureKind) -> Map<String, Value> {
    let FailureKind::PromptTooLong { needed, limit } = kind else { return Map::new() };
    Map::from_iter([("n_prompt_tokens".to_owned(), json!(needed)), ("n_ctx".to_owned(), json!(limit))])
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = json_response(self.status, &json!({"error": self.to_json()}));
        let headers = response.headers_mut();
        if let Some(after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        } else if self.status.is_server_error() && self.status != StatusCode::GATEWAY_TIMEOUT {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(background) = &self.background {
            background.disclosure.write(headers);
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// `value` as a body.
pub(crate) fn json_response(status: StatusCode, value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], bytes).into_response(),
        // Values of this crate's own making have string keys only, so that this does not happen.
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
