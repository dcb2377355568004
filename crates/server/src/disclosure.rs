//! Who answered, and what failed before: the headers of every answer. The same facts are in its body.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use downshift_scheduler::{Answer, Attempt, Fallback, Refused};
use downshift_worker::{Device, RequestId};

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUESTED: HeaderName = HeaderName::from_static("x-model-requested");
const MODEL: HeaderName = HeaderName::from_static("x-model");
const FALLBACKS: HeaderName = HeaderName::from_static("x-attempted-fallbacks");
const RETRIES: HeaderName = HeaderName::from_static("x-attempted-retries");
const REASON: HeaderName = HeaderName::from_static("x-fallback-reason");
const DEVICE: HeaderName = HeaderName::from_static("x-device");

/// What the headers tell.
#[derive(Clone, Debug)]
pub(crate) struct Disclosure {
    /// The model that was asked for.
    pub requested: String,
    /// Who answers and where; `None` while that is open.
    pub author: Option<(String, Device)>,
    /// Other models tried.
    pub fallbacks: usize,
    /// Times the answering model had been tried before.
    pub retries: usize,
    /// Why the model that was asked for did not answer at once.
    pub reason: Option<&'static str>,
}

impl Disclosure {
    /// Of an answer that `author` gives after `attempts`.
    pub fn new(requested: &str, author: Option<(String, Device)>, attempts: &[Attempt]) -> Self {
        let mut failed: Vec<&str> = attempts.iter().map(|attempt| attempt.model.as_str()).collect();
        let name = author.as_ref().map(|(model, _)| model.as_str());
        let retries = failed.iter().filter(|model| Some(**model) == name).count();
        failed.dedup();
        // Each model that failed gave way to another one, but for the last if nobody answered.
        let fallbacks = match name {
            Some(name) => failed.iter().filter(|model| **model != name).count(),
            None => failed.len().saturating_sub(1),
        };
        let reason = attempts.first().map(|attempt| attempt.kind.as_str());
        Self { requested: requested.to_owned(), author, fallbacks, retries, reason }
    }

    /// Of a whole answer.
    pub fn of_answer<T>(requested: &str, answer: &Answer<T>) -> Self {
        let attempts = answer.fallback.as_ref().map_or(&[][..], |fallback| &fallback.attempts);
        Self::new(requested, Some((answer.model.clone(), answer.device)), attempts)
    }

    /// Of no answer.
    pub fn of_refusal(refused: &Refused) -> Self {
        Self::new(&refused.requested, None, &refused.attempts)
    }

    /// Adds the headers.
    pub fn write(&self, headers: &mut HeaderMap) {
        let mut put = |name, value: &str| {
            // A name that cannot stand in a header is in the body.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        put(REQUESTED, &self.requested);
        put(FALLBACKS, &self.fallbacks.to_string());
        put(RETRIES, &self.retries.to_string());
        if let Some((model, device)) = &self.author {
            put(MODEL, model);
            put(DEVICE, &device.to_string());
        }
        if let Some(reason) = self.reason {
            put(REASON, reason);
        }
    }
}

/// The `fallback` of a body: `None` if nothing failed.
pub(crate) fn fallback(requested: &str, attempts: &[Attempt]) -> Option<Fallback> {
    (!attempts.is_empty()).then(|| Fallback { requested: requested.to_owned(), attempts: attempts.to_vec() })
}

/// The value of `x-request-id`: the id that the log has.
pub(crate) fn request_id(id: RequestId) -> HeaderValue {
    HeaderValue::from_str(&id.to_string()).unwrap_or(HeaderValue::from_static("r0"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use downshift_worker::{FailureKind, Stage};

    #[test]
    fn retries_are_of_the_model_that_answers_and_fallbacks_of_the_others() {
        let attempt = |model: &str| Attempt {
            model: model.to_owned(),
            device: None,
            stage: Stage::Load,
            kind: FailureKind::OutOfMemory,
            message: String::new(),
            ms: 1,
        };
        let told = |author: Option<&str>, attempts: &[&str]| {
            let attempts: Vec<_> = attempts.iter().map(|model| attempt(model)).collect();
            let found = Disclosure::new("a", author.map(|name| (name.to_owned(), Device::Cpu)), &attempts);
            (found.fallbacks, found.retries, found.reason)
        };
        assert_eq!(told(Some("a"), &[]), (0, 0, None));
        assert_eq!(told(Some("a"), &["a"]), (0, 1, Some("out_of_memory")));
        assert_eq!(told(Some("c"), &["a", "a", "b", "c"]), (2, 1, Some("out_of_memory")));
        assert_eq!(told(None, &["a", "b"]), (1, 0, Some("out_of_memory")));
    }
}
