//! From the bytes of a body to a typed request, within limits; what is wrong is told with the parameter that it is about.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use crate::app::App;
use crate::error::ApiError;

/// Values of one body, lists and objects included. What is parsed takes many times the bytes it came in: `[0,0,0,` forty times.
const MOST_VALUES: usize = 500_000;
/// How long the rest of a body that is too long is read and dropped, so that its sender comes to read the answer.
const LINGER: std::time::Duration = std::time::Duration::from_secs(5);

/// A whole body.
pub(crate) struct Payload {
    bytes: Bytes,
    room: OwnedSemaphorePermit,
}

impl FromRequest<Arc<App>> for Payload {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let limits = &app.options.limits;
        let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        let mut body = request.into_body();
        if declared.is_some_and(|length| length > limits.body_bytes) {
            linger(body);
            return Err(too_large(limits.body_bytes));
        }
        let deadline = Instant::now() + limits.body_timeout;
        // Room is taken for what has come and not for what was announced: who announces much and sends nothing takes none.
        let mut room = app.room_for_body(0)?;
        let mut bytes = Vec::new();
        loop {
            let frame = timeout_at(deadline, body.frame()).await.map_err(|_| too_slow())?;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|error| ApiError::invalid(format!("the body broke off: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > limits.body_bytes {
                linger(body);
                return Err(too_large(limits.body_bytes));
            }
            room.merge(app.room_for_body(data.len())?);
            bytes.extend_from_slice(&data);
        }
        Ok(Self { bytes: bytes.into(), room })
    }
}

impl Payload {
    /// What the body counts for towards the bytes of all bodies; to be kept while what was parsed of it is.
    pub fn into_room(self) -> OwnedSemaphorePermit {
        self.room
    }

    /// The body as `T`; fields that `T` does not know are passed over.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        if count_values(&self.bytes) > MOST_VALUES {
            return Err(ApiError::invalid(format!("the body has more than {MOST_VALUES} values")));
        }
        self.parse_any_number()
    }

    /// As [`Payload::parse`], for a `T` that takes little more memory than the body, however many values it has.
    pub fn parse_any_number<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        let first = self.bytes.iter().find(|byte| !byte.is_ascii_whitespace());
        if first.is_some_and(|byte| matches!(byte, b'[' | b'"' | b'0'..=b'9' | b'-' | b't' | b'f' | b'n')) {
            return Err(ApiError::invalid("the body must be a JSON object"));
        }
        let mut json = serde_json::Deserializer::from_slice(&self.bytes);
        let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let path = error.path().to_string();
            wrong(error.into_inner(), &path)
        })?;
        json.end().map_err(|error| wrong(error, "."))?;
        Ok(parsed)
    }
}

/// Roughly how many values JSON has: its commas, lists and objects. Never too few.
fn count_values(json: &[u8]) -> usize {
    let (mut count, mut in_string, mut escaped) = (1, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b',' | b'[' | b'{' if !in_string => count += 1,
            _ => {}
        }
    }
    count
}

fn wrong(error: serde_json::Error, path: &str) -> ApiError {
    if error.classify() != Category::Data {
        return ApiError::invalid(format!("the body is not valid JSON: {error}"));
    }
    let message = error.to_string();
    // "at line 1 column 9" helps nobody whose client wrote the JSON.
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
    let field = ["missing field `", "duplicate field `"].iter().find_map(|start| message.strip_prefix(start)?.strip_suffix('`'));
    let param = match (path, field) {
        (".", Some(field)) => Some(field.to_owned()),
        (path, Some(field)) if !path.ends_with(field) => Some(format!("{path}.{field}")),
        (".", None) => None,
        (path, _) => Some(path.to_owned()),
    };
    let message = match &param {
        Some(param) if !message.contains(param.as_str()) => format!("`{param}`: {message}"),
        _ => message.to_owned(),
    };
    ApiError { param, ..ApiError::invalid(message) }
}

fn too_large(limit: usize) -> ApiError {
    let message = format!("the body is longer than {limit} bytes");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", Some("request_too_large"), message)
}

fn too_slow() -> ApiError {
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", Some("request_timeout"), "the body did not come in time")
}

/// Closing a connection with unread data makes many clients lose the answer.
fn linger(mut body: Body) {
    tokio::spawn(async move {
        let deadline = Instant::now() + LINGER;
        while let Ok(Some(Ok(_))) = timeout_at(deadline, body.frame()).await {}
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_outside_of_strings() {
        for (json, count) in [("1", 1), ("[0,0,0]", 4), (r#"{"a":[1,{}]}"#, 5), (r#"{"a":"[,{\",,"}"#, 2), ("", 1)] {
            assert_eq!(count_values(json.as_bytes()), count, "{json}");
        }
    }
}
