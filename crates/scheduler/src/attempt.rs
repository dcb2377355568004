//! The record of what was tried for a request: the same facts for the caller, the log and the metrics.

use std::fmt;
use std::time::Duration;

use downshift_worker::{Completion, Device, Failure, FailureKind, Stage};
use serde::Serialize;

use crate::policy::{Memory, passes_with_time, remember};

/// One attempt that failed, or a model that was skipped (then the stage is [`Stage::Admission`]).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Attempt {
    /// The model that was tried.
    pub model: String,
    /// The device it was tried on; `None` if no device was chosen yet.
    pub device: Option<Device>,
    /// How far it came.
    pub stage: Stage,
    /// Why it failed: `kind`, with the numbers that belong to it.
    #[serde(flatten)]
    pub kind: FailureKind,
    /// The same for people.
    pub message: String,
    /// Milliseconds it took.
    pub ms: u64,
}

impl Attempt {
    pub(crate) fn new(model: &str, device: Option<Device>, failure: &Failure, took: Duration) -> Self {
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        Self { model: model.to_owned(), device, stage: failure.stage, kind: failure.kind, message: failure.message.clone(), ms }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({} at {}", self.model, self.message, self.kind.as_str(), self.stage.as_str())?;
        match self.device {
            Some(device) => write!(f, " on {device}, {} ms)", self.ms),
            None => write!(f, ", {} ms)", self.ms),
        }
    }
}

/// What failed or was skipped before the answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fallback {
    /// The model that was asked for.
    pub requested: String,
    /// What was tried in its place, in order; never empty.
    pub attempts: Vec<Attempt>,
}

/// A request that was answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer<T = Completion> {
    /// The model that answered; where several wrote a stream, the last one.
    pub model: String,
    /// The device it ran on.
    pub device: Device,
    /// What it produced.
    pub output: T,
    /// How often the answering model had been tried before in this request.
    pub retries: u32,
    /// What failed before; `None` if nothing did.
    pub fallback: Option<Fallback>,
}

/// After this time busy models and full memory are worth another try.
const USUAL_WAIT: Duration = Duration::from_secs(5);
/// Nobody is told to wait longer: a file or a setting may have changed by then.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A request that nobody answered, or whose stream ended early.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// The model that was asked for.
    pub requested: String,
    /// Why the last attempt failed, or what is wrong with the request for every model that can be loaded. It decides what the
    /// caller is told.
    pub failure: Failure,
    /// Every attempt, in order; empty if the request was refused before any.
    pub attempts: Vec<Attempt>,
    /// Whether text had been shown before.
    pub shown: bool,
    /// When trying again may help: a cause passes with time. `None` if it will not.
    pub retry_after: Option<Duration>,
}

/// What a caller makes of a refusal, in the classes of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedClass {
    /// 400: the request itself.
    Invalid,
    /// 404: there is no such model.
    NotFound,
    /// The client left; nobody is told.
    Cancelled,
    /// 504: the time was used up.
    Timeout,
    /// 503: later it may work.
    Unavailable,
    /// 500: it will not work without a change.
    Failed,
}

impl Refused {
    /// `comes_back`: when a model that cools down may be tried again.
    pub(crate) fn new(requested: String, failure: Failure, attempts: Vec<Attempt>, shown: bool, comes_back: Option<Duration>) -> Self {
        let passes =
            attempts.iter().any(|attempt| passes_with_time(attempt.kind, attempt.stage)) || passes_with_time(failure.kind, failure.stage);
        let failure = if passes || shown { failure } else { of_the_request(&attempts).unwrap_or(failure) };
        let retry_after = passes.then(|| comes_back.unwrap_or(USUAL_WAIT).clamp(Duration::from_secs(1), LONGEST_WAIT));
        Self { requested, failure, attempts, shown, retry_after }
    }

    /// What a caller is told.
    pub fn class(&self) -> RefusedClass {
        match self.failure.kind {
            FailureKind::InvalidRequest | FailureKind::PromptTooLong { .. } | FailureKind::CannotDo => RefusedClass::Invalid,
            FailureKind::UnknownModel => RefusedClass::NotFound,
            FailureKind::Cancelled => RefusedClass::Cancelled,
            FailureKind::Timeout => RefusedClass::Timeout,
            _ if self.retry_after.is_some() => RefusedClass::Unavailable,
            _ => RefusedClass::Failed,
        }
    }
}

/// What is wrong with the request, where the first model found it so and nothing but that or broken files kept the others from
/// answering. Of several that it is too long for, the one with most room says so.
fn of_the_request(attempts: &[Attempt]) -> Option<Failure> {
    let room = |attempt: &Attempt| match attempt.kind {
        FailureKind::PromptTooLong { limit, .. } => Some(u64::from(limit) + 1),
        FailureKind::CannotDo => Some(0),
        _ => None,
    };
    let explained = |attempt: &Attempt| room(attempt).is_some() || remember(attempt.kind) == Memory::Quarantine;
    room(attempts.first()?)?;
    let told = attempts.iter().filter(|attempt| room(attempt).is_some()).max_by_key(|attempt| room(attempt))?;
    let failure = || Failure::new(told.kind, told.stage, told.message.clone());
    attempts.iter().all(explained).then(failure)
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.attempts.as_slice() {
            [] | [_] => self.failure.fmt(f),
            attempts => {
                write!(f, "no model could answer for `{}`", self.requested)?;
                attempts.iter().try_for_each(|attempt| write!(f, "; {attempt}"))
            }
        }
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_serializes_flat_with_the_numbers_of_its_kind() {
        let failure = Failure::new(FailureKind::PromptTooLong { needed: 9000, limit: 8192 }, Stage::Admission, "too long");
        let attempt = Attempt::new("chat", Some(Device::Cuda(1)), &failure, Duration::from_millis(12));
        let json = serde_json::to_string(&attempt).unwrap();
        assert_eq!(
            json,
            r#"{"model":"chat","device":"cuda:1","stage":"admission","kind":"prompt_too_long","needed":9000,"limit":8192,"message":"too long","ms":12}"#
        );
    }

    #[test]
    fn refusals_are_unavailable_if_any_cause_passes_and_failed_if_none_does() {
        let attempt = |kind| Attempt::new("m", None, &Failure::new(kind, Stage::Load, ""), Duration::ZERO);
        let refused = |kinds: &[FailureKind]| {
            let last = *kinds.last().unwrap();
            let attempts = kinds.iter().map(|kind| attempt(*kind)).collect();
            Refused::new("m".to_owned(), Failure::new(last, Stage::Load, ""), attempts, false, None).class()
        };
        assert_eq!(refused(&[FailureKind::DoesNotFit, FailureKind::Missing]), RefusedClass::Unavailable);
        assert_eq!(refused(&[FailureKind::Corrupt, FailureKind::Missing]), RefusedClass::Failed);
        assert_eq!(refused(&[FailureKind::DoesNotFit, FailureKind::Timeout]), RefusedClass::Timeout);
        assert_eq!(refused(&[FailureKind::Missing, FailureKind::CannotDo]), RefusedClass::Invalid);
        assert_eq!(refused(&[FailureKind::UnknownModel]), RefusedClass::NotFound);
        let too_long = |limit| FailureKind::PromptTooLong { needed: 9, limit };
        assert_eq!(refused(&[too_long(8), FailureKind::Missing]), RefusedClass::Invalid, "no other model could have answered");
        assert_eq!(refused(&[too_long(8), FailureKind::NonFinite]), RefusedClass::Failed, "the last one tried and failed");
        let attempts = [too_long(4), too_long(8), FailureKind::Missing].map(attempt).to_vec();
        let told = Refused::new("m".to_owned(), Failure::new(FailureKind::Missing, Stage::Load, ""), attempts, false, None).failure;
        assert_eq!(told.kind, too_long(8), "of the model with most room");
    }
}
